"""Which shape a step with prompts takes, and what its padding does."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.core.compute.rows import CPU

from jackfield.compute.mixed_graphs import MixedShape, pack, shape_for, unpack
from jackfield.compute.row_state import RowState
from jackfield.compute.transfer import Uploads
from jackfield.contracts.sampling import TokenSampling
from jackfield.contracts.work import AdmittedRow, ScheduledBatch


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
    ("lens", "tokens", "seqs"),
    [([3], 16, 4), ([16, 1], 32, 4), ([100] * 5, 512, 16), ([10] * 64, 1024, 64)],
)
def test_a_step_takes_the_smallest_shape_that_holds_it(
    state: RowState, lens: list[int], tokens: int, seqs: int
) -> None:
    shape = shape_for(batch(lens), state)
    assert shape is not None
    assert (shape.num_tokens, shape.num_seqs) == (tokens, seqs)


def test_large_steps_and_long_contexts_have_no_shape(state: RowState) -> None:
    assert shape_for(batch([1025]), state) is None
    assert shape_for(batch([1] * 65), state) is None
    assert shape_for(batch([1, 5], [5000, 0]), state) is None


def test_padding_alone_changes_no_row_but_the_dummy(state: RowState) -> None:
    state.admit([AdmittedRow(0, np.arange(5, dtype=np.int32), 5, TokenSampling())])
    before = state.token_ids.clone(), state.block_table.clone()
    shape = MixedShape(16, 4, 9)
    inputs = unpack(torch.from_numpy(pack(None, state, shape)), state, shape)
    assert inputs.attention.seq_lens.tolist() == [0] * 4
    assert inputs.attention.query_starts.tolist() == [0] * 5
    assert inputs.attention.slots.tolist() == [0] * 16
    assert set(inputs.sample_rows.tolist()) == {state.dummy_row}
    assert torch.equal(state.token_ids, before[0])
    assert torch.equal(state.block_table, before[1])


def test_a_packed_step_says_what_the_step_said(state: RowState) -> None:
    state.admit([AdmittedRow(0, np.array([5, 6, 7, 9], dtype=np.int32), 4, TokenSampling())])
    step = batch([2, 1], [2, 0])
    shape = MixedShape(16, 4, 9)
    inputs = unpack(torch.from_numpy(pack(step, state, shape)), state, shape)
    assert inputs.ids[:3].tolist() == [7, 9, 0]
    assert inputs.attention.positions[:3].tolist() == [2, 3, 0]
    assert inputs.attention.query_starts.tolist() == [0, 2, 3, 3, 3]
    assert inputs.attention.seq_lens.tolist() == [4, 1, 0, 0]
    assert inputs.attention.slots[:2].tolist() == [7 * 16 + 2, 7 * 16 + 3]
    assert inputs.sample_index is not None
    assert inputs.sample_index[:2].tolist() == [1, 2]
    assert inputs.sample_rows[:2].tolist() == [0, 1]
    assert inputs.sample_positions[:2].tolist() == [4, 1]
    assert state.block_table[0, :2].tolist() == [7, 8]
