"""CUDA graphs by level, by JSON object, and by options of their own."""

from __future__ import annotations

import pytest
from tests.core.planning.conftest import Plan

from jackfield.config.command_line import parse_arguments
from jackfield.config.plan import WorkerPlan
from jackfield.config.settings import make_settings
from jackfield.errors import ConfigError
from jackfield.planning.graphs import graph_plan


def test_a_level_turns_graphs_on_and_off() -> None:
    for words, eager in (
        ([], False),
        (["-O0"], True),
        (["-O", "0"], True),
        (["-O3"], False),
        (["--compilation-config", "2"], False),
        (["-cc.level", "0"], True),
        (["-O1", "--enforce-eager"], True),
        (["-cc", '{"cudagraph_mode": "NONE"}'], True),
        (["-cc.cudagraph_mode=FULL"], False),
        (["-cc", '{"mode": 0, "cudagraph_mode": "FULL_DECODE_ONLY"}'], False),
        (["-cc", '{"mode": 3, "custom_ops": ["all"], "use_inductor": false}'], False),
        (["-cc", '{"level": 3, "full_cuda_graph": true, "splitting_ops": []}'], False),
        (["--compilation-config.use_cudagraph", "false"], True),
    ):
        assert graph_plan(parse_arguments(["M", *words])[0]).enforce_eager == eager, words


def test_sizes_and_lengths_reach_the_worker(plan: Plan) -> None:
    def worker(**options: object) -> WorkerPlan:
        return plan(**options).engine.worker

    assert (worker().graph_sizes, worker().max_graph_seq_len) == ((), None)
    assert worker(cudagraph_capture_sizes=[4, 1, 4]).graph_sizes == (1, 4)
    config = {"cudagraph_capture_sizes": [2], "max_cudagraph_capture_size": 8}
    made = worker(compilation_config=config, cudagraph_capture_sizes=[5])
    assert (made.graph_sizes, made.max_graph_batch) == ((2,), 8)
    assert worker(max_seq_len_to_capture="1k").max_graph_seq_len == 1000


@pytest.mark.parametrize(
    ("config", "part"),
    [
        (4, "the level is 0"),
        ({"levl": 1}, "did you mean 'level'"),
        ({"use_inductor": True}, "nothing is compiled; leave it out"),
        ({"mode": 4}, "nothing is compiled; leave it out"),
        ({"custom_ops": ["+rms_norm"]}, "nothing is compiled; leave it out"),
        ({"cudagraph_mode": "PIECEWISE"}, "cudagraph_mode is NONE, FULL"),
        ({"cudagraph_capture_sizes": [0]}, "from 1 on"),
        ({"max_capture_size": "x"}, "max_capture_size is a whole number"),
        ({"use_cudagraph": 1}, "true or false"),
    ],
)
def test_what_means_nothing_here_is_refused(config: object, part: str) -> None:
    with pytest.raises(ConfigError, match=r"^--compilation-config") as error:
        graph_plan(make_settings({"model": "M", "compilation_config": config}))
    assert part in str(error.value)
