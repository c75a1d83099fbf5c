"""Which graphs are captured, when, and what a replay reads."""

from __future__ import annotations

import gc
from collections.abc import Callable

import numpy as np
import pytest
import torch
from tests.core.compute.rows import CPU
from tests.core.compute.steps import ReplayedFunction

from jackfield.compute.cuda_graphs import DecodeGraphs, StepLogits, graph_sizes
from jackfield.compute.sampler import GREEDY, SamplingMode, Way
from jackfield.compute.transfer import Uploads
from jackfield.contracts.work import Int32Array

SAMPLED = SamplingMode(Way.SHORTLIST, 64)


def padding(size: int) -> Int32Array:
    return np.full(4 * size, -1, dtype=np.int32)


def make(recorder: ReplayedFunction, sizes: tuple[int, ...], seen: list[object]) -> DecodeGraphs:
    def body(packed: torch.Tensor, size: int) -> StepLogits:
        seen.append(size)
        return StepLogits(packed[:size] * 2, packed[:size], packed[:size])

    def sample(left: StepLogits, mode: SamplingMode, masked: bool) -> torch.Tensor:
        seen.append((mode, "masked") if masked else mode)
        return left.logits + (0 if mode == GREEDY else 100)

    return DecodeGraphs(sizes, recorder, body, sample, padding, Uploads(CPU), CPU)


@pytest.mark.parametrize(
    ("max_num_seqs", "max_graph_batch", "expected"),
    [
        (1, 512, (1,)),
        (6, 512, (1, 2, 4, 6)),
        (64, 512, (1, 2, 4, 8, 16, 24, 32, 48, 64)),
        (256, 20, (1, 2, 4, 8, 16, 20)),
        (256, 0, ()),
    ],
)
def test_sizes_end_with_the_largest_batch_there_can_be(
    max_num_seqs: int, max_graph_batch: int, expected: tuple[int, ...]
) -> None:
    assert graph_sizes(max_num_seqs, max_graph_batch) == expected


def test_no_graph_is_larger_than_512() -> None:
    assert graph_sizes(2000, 2000)[-1] == 512


def test_sizes_that_were_asked_for_are_taken_where_they_can_come() -> None:
    assert graph_sizes(16, 8, asked=(1, 12, 600)) == (1, 12)


def test_capture_takes_some_sizes_from_the_largest_down_and_the_others_follow() -> None:
    seen: list[object] = []
    graphs = make(ReplayedFunction(), (1, 2, 4, 8, 16), seen)
    graphs.capture(GREEDY)
    assert seen == [16, GREEDY, 8, GREEDY, 1, GREEDY]
    seen.clear()
    assert [graphs.capture_next(GREEDY) for _ in range(4)] == [True, True, False, False]
    assert seen == [2, GREEDY, 4, GREEDY]


def test_a_size_that_is_needed_before_is_not_captured_again() -> None:
    graphs = make(recorder := ReplayedFunction(), (1, 2, 4), [])
    graphs.capture(GREEDY)
    graphs.run(np.zeros(8, dtype=np.int32), 2).sample(GREEDY)
    assert not graphs.capture_next(GREEDY)
    assert recorder.recorded == 6


def test_a_batch_takes_the_smallest_graph_that_holds_it() -> None:
    graphs = make(ReplayedFunction(), (1, 2, 4, 8), [])
    assert [graphs.size_for(n) for n in (1, 2, 3, 5, 8, 9)] == [1, 2, 4, 8, 8, None]


def test_a_size_that_is_not_captured_is_stood_in_for_until_it_is_wanted_often() -> None:
    graphs = make(ReplayedFunction(), (1, 2, 4, 8, 16), [])
    graphs.capture(GREEDY)
    assert [graphs.choose(n) for n in (1, 3, 9, 17)] == [1, 8, 16, None]
    chosen = [graphs.choose(4) for _ in range(128)]
    assert chosen == [8] * 126 + [4] * 2
    graphs.run(np.zeros(16, dtype=np.int32), 4)
    assert graphs.choose(3) == 4


def test_a_size_that_nothing_can_stand_in_for_is_taken_at_once() -> None:
    graphs = make(ReplayedFunction(), (1, 2, 4), [])
    assert graphs.choose(3) == 4


def test_a_replay_reads_the_step_and_capture_only_padding() -> None:
    recorder = ReplayedFunction()
    graphs = make(recorder, (2, 4), [])
    packed = np.array([5, 6, 0, 0, 0, 0, 0, 0], dtype=np.int32)
    assert graphs.run(packed, 2).sample(GREEDY).tolist() == [10, 12]
    packed[:2] = 7
    assert graphs.run(packed, 2).sample(GREEDY).tolist() == [14, 14]
    assert (recorder.recorded, recorder.replayed, len(graphs)) == (2, 4, 1)


def test_another_mode_captures_its_sampling_only() -> None:
    recorder = ReplayedFunction()
    seen: list[object] = []
    graphs = make(recorder, (2,), seen)
    graphs.capture(GREEDY)
    step = np.array([5, 6, 0, 0, 0, 0, 0, 0], dtype=np.int32)
    seen.clear()
    for _ in range(2):
        assert graphs.run(step, 2).sample(SAMPLED).tolist() == [110, 112]
    assert recorder.recorded == 3
    assert seen == [2, SAMPLED, SAMPLED, 2, SAMPLED]


def test_sampling_under_masks_is_captured_apart() -> None:
    seen: list[object] = []
    graphs = make(ReplayedFunction(), (2,), seen)
    graphs.capture(GREEDY)
    step = np.array([5, 6, 0, 0, 0, 0, 0, 0], dtype=np.int32)
    seen.clear()
    graphs.run(step, 2).sample(GREEDY, masked=True)
    graphs.run(step, 2).sample(GREEDY)
    assert seen == [2, (GREEDY, "masked"), (GREEDY, "masked"), 2, GREEDY]


def test_what_a_step_leaves_can_be_sampled_elsewhere() -> None:
    graph = make(ReplayedFunction(), (2,), []).run(np.array([3, 4, *[0] * 6], dtype=np.int32), 2)
    assert graph.left is not None and graph.left.logits.tolist() == [6, 8]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="captures a CUDA graph")
def test_a_cuda_graph_replays_with_new_values() -> None:
    from jackfield.compute.cuda_graphs import CudaGraphRecorder

    device = torch.device("cuda", 0)
    value = torch.zeros(4, device=device)
    out = torch.zeros(4, device=device)
    collecting: list[bool] = []

    def body() -> None:
        collecting.append(gc.isenabled())
        out.copy_(value * 2 + 1)

    recorder = CudaGraphRecorder(device)
    replays: list[Callable[[], None]] = [recorder.record(body) for _ in range(3)]
    for number, replay in enumerate(replays):
        value.fill_(number)
        replay()
        assert out.tolist() == [2.0 * number + 1] * 4
    assert not any(collecting)
    assert gc.isenabled()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="captures a CUDA graph")
def test_a_graph_that_is_cut_does_the_same_in_parts() -> None:
    from jackfield.compute.cuda_graphs import CudaGraphRecorder

    device = torch.device("cuda", 0)
    value, out = torch.zeros(1000, device=device), torch.zeros(1000, device=device)
    recorder = CudaGraphRecorder(device)

    def body() -> None:
        one = value * 2
        recorder.cut()
        two = one + value
        recorder.cut()
        # What an earlier part has left is still there, and its memory is not given out again.
        out.copy_(torch.zeros_like(one) + one * two)

    replays = [recorder.record(body) for _ in range(2)]
    for number in range(4):
        value.fill_(number)
        replays[number % 2]()
        assert out.tolist() == [6.0 * number * number] * 1000
