"""Which shape a step with prompts takes, and what its padding does."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.core.compute.rows import CPU
from tests.core.compute.steps import ReplayedFunction

from jackfield.compute.batch import StepInputs, count_up
from jackfield.compute.cuda_graphs import StepLogits
from jackfield.compute.mixed_graphs import (
    MAX_SEQS,
    MixedGraphs,
    MixedShape,
    likely_shapes,
    pack,
    shape_for,
    unpack,
)
from jackfield.compute.row_state import RowState
from jackfield.compute.sampler import GREEDY, SamplingMode
from jackfield.compute.transfer import Uploads
from jackfield.contracts.sampling import TokenSampling
from jackfield.contracts.work import AdmittedRow, ScheduledBatch

STARTS = count_up(MAX_SEQS, CPU)


@pytest.fixture
def state() -> RowState:
    return RowState(
        max_num_seqs=100, max_model_len=8192, block_size=16, device=CPU, uploads=Uploads(CPU)
    )


def batch(lens: list[int], firsts: list[int] | None = None) -> ScheduledBatch:
    first = np.array(firsts or [0] * len(lens), dtype=np.int32)
    return ScheduledBatch(
        step=1,
        admitted=(),
        rows=np.arange(len(lens), dtype=np.int32),
        num_tokens=np.array(lens, dtype=np.int32),
        first_positions=first,
        samples=np.ones(len(lens), dtype=np.bool_),
        new_blocks=np.array([[0, 0, 7], [0, 1, 8]], dtype=np.int32),
    )


@pytest.mark.parametrize(
    ("lens", "decodes", "prompts", "tokens"),
    [
        ([3], 0, 8, 16),
        ([1, 15], 16, 8, 16),
        ([1] * 17 + [3], 64, 8, 64),
        ([50] * 9, 0, 64, 512),
        ([1] * 60 + [1988], 64, 8, 2048),
        ([10] * 64, 0, 64, 768),
    ],
)
def test_a_step_takes_the_smallest_shape_that_holds_it(
    state: RowState, lens: list[int], decodes: int, prompts: int, tokens: int
) -> None:
    shape = shape_for(batch(lens), state)
    assert shape is not None
    assert (shape.num_decodes, shape.num_prompts, shape.num_tokens) == (decodes, prompts, tokens)


@pytest.mark.parametrize("max_num_seqs", [1, 16, 17, 100])
def test_likely_shapes_are_each_told_once_and_hold_every_step(
    state: RowState, max_num_seqs: int
) -> None:
    shapes = list(likely_shapes(512, max_num_seqs, state.block_size))
    assert len(set(shapes)) == len(shapes)
    rng = random.Random(max_num_seqs)
    for _ in range(200):
        num_seqs = rng.randint(1, max_num_seqs)
        prompts = rng.randint(1, min(num_seqs, 64))
        lens = [1] * (num_seqs - prompts) + [rng.randint(2, 30) for _ in range(prompts)]
        if sum(lens) <= 512:
            wanted = shape_for(batch(lens), state)
            assert wanted is not None and any(shape.holds(wanted) for shape in shapes), lens


def graphs_over(state: RowState, recorder: ReplayedFunction) -> MixedGraphs:
    """Graphs of a step whose logits are its ids, and whose choice is the largest of each row."""

    def body(inputs: StepInputs) -> StepLogits | None:
        if inputs.sample_index is None or not len(inputs.sample_index):
            return None
        ids = inputs.ids[inputs.sample_index].float()[:, None]
        return StepLogits(ids, inputs.sample_rows, inputs.sample_positions)

    def sample(left: StepLogits, mode: SamplingMode, masked: bool) -> torch.Tensor:
        return left.logits[:, 0].int()

    return MixedGraphs(recorder, body, sample, state, Uploads(CPU), CPU)


def test_a_larger_shape_stands_in_and_gives_the_same(state: RowState) -> None:
    lens = [3, 5]
    for row, length in enumerate(lens):
        ids = np.arange(10 * row, 10 * row + length, dtype=np.int32)
        state.admit([AdmittedRow(row, ids, length, TokenSampling())])
    graphs = graphs_over(state, recorder := ReplayedFunction())
    step = replace(batch(lens), new_blocks=np.empty((0, 3), dtype=np.int32))
    wanted = shape_for(step, state)
    assert wanted is not None and graphs.choose(wanted) == wanted
    larger = shape_for(batch([100]), state)
    assert larger is not None and larger.num_tokens == 128
    graphs.run(batch([100]), larger)
    # 112 tokens in vain each time.
    chosen = [graphs.choose(wanted) for _ in range(8192 // 112 + 1)]
    assert chosen == [larger] * (len(chosen) - 1) + [wanted]
    for shape in (larger, wanted):
        assert graphs.run(step, shape).sample(GREEDY)[:2].tolist() == [2, 14]
    assert graphs.choose(wanted) == wanted
    piece = replace(wanted, samples=False)
    assert graphs.choose(piece) == piece
    assert recorder.recorded == 4


@pytest.mark.parametrize(
    ("lens", "decodes"), [([30], 0), ([1, 30], 16), ([1] * 3 + [300], 256), ([1] * 70 + [900], 256)]
)
def test_what_nothing_can_stand_in_for_is_made_to_stand_in_for_more(
    state: RowState, lens: list[int], decodes: int
) -> None:
    graphs = graphs_over(state, ReplayedFunction())
    wanted = shape_for(batch(lens), state)
    assert wanted is not None
    chosen = graphs.choose(wanted)
    assert chosen.holds(wanted) and chosen.num_decodes == decodes
    assert chosen.num_tokens == wanted.num_tokens


def test_idle_time_captures_every_likely_shape_once(state: RowState) -> None:
    graphs = graphs_over(state, recorder := ReplayedFunction())
    shapes = list(likely_shapes(64, state.dummy_row, state.block_size))
    pieces = sum(not shape.samples for shape in shapes)
    while graphs.capture_next(GREEDY, 64):
        assert len(graphs) <= len(shapes)
    assert len(graphs) == len(shapes)
    assert recorder.recorded == 2 * len(shapes) - pieces


def test_large_steps_have_no_shape(state: RowState) -> None:
    assert shape_for(batch([4097]), state) is None
    assert shape_for(batch([2] * 65), state) is None


def test_a_piece_of_a_prompt_needs_no_logits(state: RowState) -> None:
    piece = replace(batch([50], [100]), samples=np.zeros(1, dtype=np.bool_))
    shape = shape_for(piece, state)
    assert shape is not None and not shape.samples
    inputs = unpack(torch.from_numpy(pack(piece, state, shape)), state, shape, STARTS)
    assert len(inputs.sample_rows) == 0
    assert inputs.attention.query_starts.tolist() == [0, *[50] * 8]


def test_padding_alone_changes_no_row_but_the_dummy(state: RowState) -> None:
    state.admit([AdmittedRow(0, np.arange(5, dtype=np.int32), 5, TokenSampling())])
    before = state.token_ids.clone(), state.block_table.clone()
    shape = MixedShape(2, 4, 16, 9, True)
    inputs = unpack(torch.from_numpy(pack(None, state, shape)), state, shape, STARTS)
    assert inputs.attention.seq_lens.tolist() == [0] * 6
    assert inputs.attention.query_starts.tolist() == [0] * 7
    assert inputs.attention.slots.tolist() == [0] * 16
    assert set(inputs.sample_rows.tolist()) == {state.dummy_row}
    assert torch.equal(state.token_ids, before[0])
    assert torch.equal(state.block_table, before[1])


def test_a_packed_step_says_what_the_step_said(state: RowState) -> None:
    prompt = np.array([5, 6, 7, 9], dtype=np.int32)
    state.admit([AdmittedRow(row, prompt, 4, TokenSampling()) for row in (0, 1)])
    step = batch([1, 3], [2, 0])
    shape = MixedShape(4, 4, 16, 9, True)
    inputs = unpack(torch.from_numpy(pack(step, state, shape)), state, shape, STARTS)
    dummy = state.dummy_row
    assert inputs.ids.tolist() == [7, 5, 6, 7, *[0] * 12]
    assert inputs.attention.positions[:6].tolist() == [2, 0, 1, 2, 0, 0]
    assert inputs.attention.rows.tolist() == [0, *[dummy] * 3, 1, *[dummy] * 3]
    assert inputs.attention.query_starts[4:].tolist() == [1, 4, 4, 4, 4]
    assert inputs.attention.seq_lens.tolist() == [3, 0, 0, 0, 3, 0, 0, 0]
    assert inputs.attention.num_decodes == 4
    assert inputs.attention.slots[0].item() == 7 * 16 + 2
    assert inputs.sample_index is not None
    assert inputs.sample_index[:2].tolist() == [0, 3]
    assert inputs.sample_rows.tolist() == [0, 1, *[dummy] * 6]
    assert inputs.sample_positions[:2].tolist() == [3, 3]
    assert state.block_table[0, :2].tolist() == [7, 8]
