from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from jackfield.config.plan import PluginSetup, PluginSource, WorkerPlan
from jackfield.contracts.sampling import TokenSampling
from jackfield.contracts.work import AdmittedRow, ScheduledBatch
from jackfield.errors import ConfigError, UnknownPluginError
from jackfield.testing.simulated_worker import SimulatedWorker, continuation
from jackfield_executors.uni import UniExecutor

SIMULATED = "jackfield.testing.simulated_worker:SimulatedWorker"


def make_plan(worker: str = SIMULATED, **changes: object) -> WorkerPlan:
    values: dict[str, object] = {
        "model": "simulated",
        "config": {"vocab_size": 97},
        "device": "none",
        "dtype": "float32",
        "max_model_len": 32,
        "max_num_seqs": 2,
        "max_num_batched_tokens": 16,
        "block_size": 4,
        "worker": worker,
        **changes,
    }
    return WorkerPlan(**values)  # type: ignore[arg-type]


def test_calls_reach_the_worker_that_the_plan_names() -> None:
    executor = UniExecutor()
    capacity = executor.start(make_plan(num_blocks_override=12))
    assert (capacity.num_blocks, capacity.logits_width) == (12, 97)
    prompt = np.array([5, 6, 7], dtype=np.int32)
    batch = ScheduledBatch(
        step=1,
        admitted=(AdmittedRow(1, prompt, 3, TokenSampling()),),
        rows=np.array([1], dtype=np.int32),
        num_tokens=np.array([3], dtype=np.int32),
        first_positions=np.array([0], dtype=np.int32),
        samples=np.array([True]),
        new_blocks=np.array([[1, 0, 4]], dtype=np.int32),
    )
    assert executor.execute(batch).wait().token_ids.tolist() == continuation([5, 6, 7], 1, 97)
    executor.stop()


def test_a_worker_from_a_plugin_file_is_found_by_its_name(tmp_path: Path) -> None:
    file = tmp_path / "my_worker.py"
    file.write_text(
        "from jackfield.testing.simulated_worker import SimulatedWorker\n"
        "class MyWorker(SimulatedWorker):\n"
        "    name = 'mine'\n"
    )
    source = PluginSource("workers", str(file))
    executor = UniExecutor()
    capacity = executor.start(make_plan("mine", plugins=PluginSetup(sources=(source,))))
    assert capacity.num_blocks == 64
    executor.stop()


def test_an_unknown_worker_is_refused() -> None:
    with pytest.raises(UnknownPluginError, match="nobody"):
        UniExecutor().start(make_plan("nobody"))


def test_more_than_one_worker_is_refused() -> None:
    with pytest.raises(ConfigError, match="tensor_parallel_size"):
        UniExecutor().start(make_plan(tensor_parallel_size=2))


def test_stop_reaches_the_worker_once(monkeypatch: pytest.MonkeyPatch) -> None:
    stopped: list[int] = []
    monkeypatch.setattr(SimulatedWorker, "stop", lambda self: stopped.append(1))
    executor = UniExecutor()
    executor.start(make_plan())
    executor.stop()
    executor.stop()
    assert stopped == [1]
