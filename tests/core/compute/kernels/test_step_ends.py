"""The kernels at the two ends of a step, in the interpreter, against the tensor operations that
the CPU uses."""

from __future__ import annotations

import numpy as np
import pytest
import tests.interpreter
import torch
from tests.core.compute.rows import CPU

from jackfield.compute.batch import decode_inputs, pack_decode
from jackfield.compute.kernels import greedy, step_inputs
from jackfield.compute.mixed_graphs import MixedShape, pack, unpack
from jackfield.compute.row_state import RowState
from jackfield.compute.transfer import Uploads
from jackfield.contracts.sampling import TokenSampling
from jackfield.contracts.work import AdmittedRow, ScheduledBatch

DEVICE = tests.interpreter.DEVICE


def filled_state() -> RowState:
    state = RowState(
        max_num_seqs=6, max_model_len=40, block_size=8, device=CPU, uploads=Uploads(CPU)
    )
    tokens = np.arange(100, 130, dtype=np.int32)
    state.admit([AdmittedRow(row, tokens + row, 30, TokenSampling()) for row in range(6)])
    blocks = np.array([[row, i, 5 * row + i + 1] for row in range(6) for i in range(5)], np.int32)
    state.apply_blocks(blocks)
    return state


@pytest.mark.parametrize("size", [3, 4, 40])
def test_a_decode_step_is_gathered_as_by_tensor_operations(size: int) -> None:
    firsts = np.array([29, 8, 0], dtype=np.int32)
    batch = ScheduledBatch(
        step=1,
        admitted=(),
        rows=np.array([4, 0, 2], dtype=np.int32),
        num_tokens=np.ones(3, dtype=np.int32),
        first_positions=firsts,
        samples=np.ones(3, dtype=np.bool_),
        new_blocks=np.array([[4, 3, 77], [0, 1, 78]], dtype=np.int32),
    )
    by_tensors, by_kernel = filled_state(), filled_state()
    packed = torch.from_numpy(pack_decode(batch, by_tensors, size, size))
    starts = torch.arange(size + 1, dtype=torch.int32)
    wanted = decode_inputs(
        packed, by_tensors, size=size, num_changes=size, max_seq_len=40, query_starts=starts
    )
    found = step_inputs.gather_decode_inputs(
        packed.to(DEVICE),
        by_kernel.block_table,
        by_kernel.token_ids,
        size=size,
        num_changes=size,
        block_size=8,
    )
    seq_lens, rows, following, positions, slots, ids = found
    assert torch.equal(seq_lens, wanted.attention.seq_lens)
    assert torch.equal(rows, wanted.sample_rows)
    assert torch.equal(following, wanted.sample_positions)
    assert torch.equal(positions, wanted.attention.positions)
    assert torch.equal(slots, wanted.attention.slots)
    assert torch.equal(ids, wanted.ids)
    assert torch.equal(by_kernel.block_table, by_tensors.block_table)


@pytest.mark.parametrize("num_pieces", [0, 2])
def test_a_step_with_prompts_is_gathered_as_by_tensor_operations(num_pieces: int) -> None:
    lens = np.array([1, 1, 7, 20], dtype=np.int32)
    batch = ScheduledBatch(
        step=1,
        admitted=(),
        rows=np.array([4, 0, 2, 5], dtype=np.int32),
        num_tokens=lens,
        first_positions=np.array([29, 8, 0, 9], dtype=np.int32),
        samples=np.arange(4) >= num_pieces,
        new_blocks=np.array([[4, 3, 77], [0, 1, 78], [5, 3, 79]], dtype=np.int32),
    )
    by_tensors, by_kernel = filled_state(), filled_state()
    shape = MixedShape(16, 4, 64, 9, samples=True)
    packed = torch.from_numpy(pack(batch, by_tensors, shape))
    wanted = unpack(packed, by_tensors, shape, torch.arange(30, dtype=torch.int32))
    tokens, samples = step_inputs.gather_mixed_inputs(
        packed.to(DEVICE),
        by_kernel.block_table,
        by_kernel.token_ids,
        num_changes=9,
        num_seqs=20,
        num_tokens=64,
        num_samples=20,
        block_size=8,
    )
    attention, selection = wanted.attention, wanted.selection
    assert selection is not None and wanted.sample_index is not None
    assert torch.equal(tokens, torch.stack([attention.positions, attention.slots, wanted.ids]))
    places = selection.attention.positions, selection.attention.slots
    expected = (wanted.sample_index, wanted.sample_rows, wanted.sample_positions, *places)
    assert torch.equal(samples, torch.stack(expected))
    assert torch.equal(by_kernel.block_table, by_tensors.block_table)
    # Of what is sampled, the places are those of the last tokens.
    count = 4 - num_pieces
    last = wanted.sample_index[:count]
    assert torch.equal(selection.attention.positions[:count], attention.positions[last])
    assert torch.equal(selection.attention.slots[:count], attention.slots[last])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_the_first_of_the_largest_is_chosen_and_written(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(5, 17_000, generator=generator).to(dtype)
    logits[1, 16_990], logits[1, 3] = 9.0, 9.0
    logits[2, 8_192] = 9.0
    logits[3, 12_000] = float("nan")
    logits[4, :] = float("-inf")
    token_ids = torch.zeros(8, 50, dtype=torch.int32)
    rows, positions = torch.tensor([7, 0, 3, 1, 2]), torch.tensor([4, 49, 0, 2, 3])
    chosen = greedy.choose_greedily(logits, rows, positions, token_ids)
    assert chosen.tolist() == [int(logits[0].argmax()), 3, 8_192, -1, -1]
    assert token_ids[rows[:3], positions[:3]].tolist() == chosen[:3].tolist()
    assert bool(((token_ids >= 0) & (token_ids < 17_000)).all())
    assert int((token_ids != 0).sum()) <= 5
