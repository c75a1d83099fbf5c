"""From the engine's batch to the tensors of one step: one upload, then views and gathers.

Two layouts. A *decode* step (every sequence computes one token and samples the next) is closed
on the device: row and position say everything, which is what a captured graph needs. A *mixed*
step brings its token-to-sequence arrays from the host.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from jackfield.compute.row_state import RowState
from jackfield.compute.shapes import padded_rows
from jackfield.contracts.attention import AttentionBatch, Selection
from jackfield.contracts.model import Model, SelectsTokens
from jackfield.contracts.work import Int32Array, ScheduledBatch


@dataclass(frozen=True, slots=True)
class StepInputs:
    """The step on the device: T tokens, of which N are sampled from.

    ``ids`` int64 [T]. ``sample_index`` int64 [N]: the tokens whose logits are needed, None for
    all T in order. ``sample_rows``, ``sample_positions`` int64 [N]: where the sampled id goes.
    ``selection``: the sampled tokens as decodes, where ``sample_index`` names them.
    """

    ids: Tensor
    attention: AttentionBatch
    sample_index: Tensor | None
    sample_rows: Tensor
    sample_positions: Tensor
    selection: Selection | None = None


def sampled_hidden(model: Model, inputs: StepInputs) -> Tensor:
    """The hidden states of the tokens that are sampled from, [N, hidden]."""
    step = (inputs.ids, inputs.attention.positions, inputs.attention)
    index = inputs.sample_index
    if index is None:
        return model.forward(*step)
    if inputs.selection is not None and isinstance(model, SelectsTokens):
        return model.forward_selected(*step, inputs.selection)
    return model.forward(*step).index_select(0, index)


def select(batch: AttentionBatch, index: Tensor, rows: Tensor, seq_lens: Tensor) -> Selection:
    """The tokens ``index`` int64 [N] of a step, each the last of its sequence: of row ``rows`` with
    ``seq_lens`` tokens of KV after the step, int32 [N]."""
    places = batch.positions.index_select(0, index), batch.slots.index_select(0, index)
    return _selection(batch, index, rows, seq_lens, *places, count_up(len(index), index.device))


def _selection(
    batch: AttentionBatch,
    index: Tensor,
    rows: Tensor,
    seq_lens: Tensor,
    positions: Tensor,
    slots: Tensor,
    starts: Tensor,
) -> Selection:
    n = len(index)
    lens = None if batch.host_lens is None else tuple((1, kv) for kv in seq_lens.tolist())
    decodes = replace(
        batch,
        rows=rows,
        query_starts=starts,
        seq_lens=seq_lens,
        slots=slots,
        positions=positions,
        num_seqs=n,
        num_tokens=n,
        num_decodes=n,
        max_query_len=1,
        fresh=True,
        host_lens=lens,
    )
    return Selection(index, decodes)


def is_decode(batch: ScheduledBatch) -> bool:
    """Whether every sequence computes one token and samples the next."""
    return len(batch.rows) > 0 and bool(batch.samples.all()) and int(batch.num_tokens.max()) == 1


def pack_decode(batch: ScheduledBatch, state: RowState, size: int, num_changes: int) -> Int32Array:
    """A decode step as int32 [2 * size + 2 * num_changes]: rows, positions, changed places of
    the block table, block ids. Padding is the dummy row at position -1, and block id 0 for it.
    """
    n = len(batch.rows)
    packed = np.zeros(2 * (size + num_changes), dtype=np.int32)
    packed[:n] = batch.rows
    packed[n:size] = state.dummy_row
    packed[size : size + n] = batch.first_positions
    packed[size + n : 2 * size] = -1
    if num_changes:
        places, blocks = packed[2 * size :].reshape(2, num_changes)
        places[:] = state.dummy_row * state.max_blocks
        changes = batch.new_blocks
        places[: len(changes)] = state.block_places(changes)
        blocks[: len(changes)] = changes[:, 2]
    return packed


def pack_padding(state: RowState, size: int) -> Int32Array:
    """``pack_decode`` of nothing but padding, with room for ``size`` block changes."""
    empty = np.empty(0, dtype=np.int32)
    nothing = ScheduledBatch(
        0, (), empty, empty, empty, empty.astype(np.bool_), empty.reshape(0, 3)
    )
    return pack_decode(nothing, state, size, size)


def decode_inputs(
    packed: Tensor,
    state: RowState,
    *,
    size: int,
    num_changes: int,
    max_seq_len: int,
    query_starts: Tensor,
    host_lens: tuple[tuple[int, int], ...] | None = None,
) -> StepInputs:
    """Applies the block changes and builds the step from ``pack_decode``'s array.

    ``query_starts`` is int32 0 .. size. Reads no value on the host, so that it can be captured.
    """
    found = _gather_decode(packed, state, size, num_changes)
    seq_lens, rows, following, positions, slots, ids = found
    attention = AttentionBatch(
        rows=packed[:size],
        query_starts=query_starts,
        seq_lens=seq_lens,
        block_table=state.block_table,
        slots=slots,
        positions=positions,
        num_seqs=size,
        num_tokens=size,
        num_decodes=size,
        max_query_len=1,
        max_seq_len=max_seq_len,
        fresh=True,
        host_lens=host_lens,
    )
    return StepInputs(ids, attention, None, rows, following)


def _gather_decode(
    packed: Tensor, state: RowState, size: int, num_changes: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """KV lengths after the step, int32; rows, following positions, positions, slots, ids, int64:
    [size] each."""
    if packed.is_cuda:
        from jackfield.compute.kernels import step_inputs  # Triton: GPUs only

        return step_inputs.gather_decode_inputs(
            packed,
            state.block_table,
            state.token_ids,
            size=size,
            num_changes=num_changes,
            block_size=state.block_size,
        )
    # numpy: for so little a call costs a fifth of torch's.
    numbers, table, token_ids = packed.numpy(), state.block_table.numpy(), state.token_ids.numpy()
    if num_changes:
        places, blocks = numbers[2 * size :].reshape(2, num_changes)
        table.reshape(-1)[places] = blocks
    rows, first = numbers[: 2 * size].astype(np.int64).reshape(2, size)
    positions = np.maximum(first, 0)
    pages, offsets = np.divmod(positions, state.block_size)
    slots = table[rows, pages] * np.int64(state.block_size) + offsets
    ids = token_ids[rows, positions].astype(np.int64)
    return (
        torch.from_numpy(numbers[size : 2 * size] + 1),
        torch.from_numpy(rows),
        torch.from_numpy(first + 1),
        torch.from_numpy(positions),
        torch.from_numpy(slots),
        torch.from_numpy(ids),
    )


def padded_batch(batch: ScheduledBatch, state: RowState) -> ScheduledBatch:
    """The step with so many tokens that oneDNN has code for it: the dummy row has the rest."""
    total = batch.total_tokens
    rest = min(padded_rows(total) - total, state.max_model_len)
    if rest < 2:
        # A last sequence of one token would be a decode, and those come first.
        return batch
    return replace(
        batch,
        rows=np.append(batch.rows, np.int32(state.dummy_row)),
        num_tokens=np.append(batch.num_tokens, np.int32(rest)),
        first_positions=np.append(batch.first_positions, np.int32(0)),
        samples=np.append(batch.samples, False),
    )


def mixed_parts(batch: ScheduledBatch, state: RowState) -> tuple[Int32Array, ...]:
    """Any step as int32 arrays: changed places of the block table and their blocks; rows, KV
    lengths and query starts of the sequences; row and position of each token; index, row and
    position of each sample."""
    num_tokens, first, rows = batch.num_tokens, batch.first_positions, batch.rows
    ends = np.cumsum(num_tokens, dtype=np.int32)
    starts = ends - num_tokens
    sampled = batch.samples
    total = int(ends[-1]) if len(ends) else 0
    return (
        state.block_places(batch.new_blocks),
        batch.new_blocks[:, 2],
        rows,
        first + num_tokens,
        np.concatenate([np.zeros(1, dtype=np.int32), ends]),
        rows.repeat(num_tokens),
        np.arange(total, dtype=np.int32) - (starts - first).repeat(num_tokens),
        ends[sampled] - 1,
        rows[sampled],
        (first + num_tokens)[sampled],
    )


def pack_mixed(batch: ScheduledBatch, state: RowState) -> Int32Array:
    """Any step as one int32 array, in the order in which ``mixed_inputs`` takes it apart."""
    return np.concatenate(mixed_parts(batch, state)).astype(np.int32, copy=False)


@dataclass(frozen=True, slots=True)
class MixedLengths:
    """Of the arrays of ``mixed_parts``: block changes, sequences, tokens, samples."""

    num_changes: int
    num_seqs: int
    num_tokens: int
    num_samples: int

    @property
    def parts(self) -> list[int]:
        """In the order of ``mixed_parts``."""
        c, s, t, n = self.num_changes, self.num_seqs, self.num_tokens, self.num_samples
        return [c, c, s, s, s + 1, t, t, n, n, n]


def mixed_inputs(
    packed: Tensor, batch: ScheduledBatch, state: RowState, *, with_host_lens: bool
) -> StepInputs:
    """Applies the block changes and builds the step from ``pack_mixed``'s array."""
    seq_lens_host = batch.first_positions + batch.num_tokens
    num_decodes = int((batch.num_tokens == 1).sum())
    lengths = MixedLengths(
        len(batch.new_blocks), len(batch.rows), batch.total_tokens, int(batch.samples.sum())
    )
    host_lens = None
    if with_host_lens:
        host_lens = tuple(zip(batch.num_tokens.tolist(), seq_lens_host.tolist(), strict=True))
    inputs = unpack_mixed(
        packed,
        state,
        lengths,
        num_decodes=num_decodes,
        max_query_len=int(batch.num_tokens.max()),
        max_seq_len=int(seq_lens_host.max()),
        fresh=not batch.first_positions[num_decodes:].any(),
        host_lens=host_lens,
    )
    if lengths.num_samples < lengths.num_tokens:
        return inputs
    return replace(inputs, sample_index=None, selection=None)


def unpack_mixed(
    packed: Tensor,
    state: RowState,
    lengths: MixedLengths,
    *,
    num_decodes: int,
    max_query_len: int,
    max_seq_len: int,
    fresh: bool,
    host_lens: tuple[tuple[int, int], ...] | None = None,
    starts: Tensor | None = None,
) -> StepInputs:
    """Applies the block changes and builds the step from an array in the order of ``mixed_parts``;
    reads no value on the host. ``starts`` is int32 0 .. N or more, where the caller has it."""
    parts = torch.split(packed, lengths.parts)
    tokens, samples = _gather_mixed(packed, state, lengths, parts)
    positions, slots, ids = tokens
    index, sample_rows, following, sampled_positions, sampled_slots = samples
    n = lengths.num_samples
    attention = AttentionBatch(
        rows=parts[2],
        query_starts=parts[4],
        seq_lens=parts[3],
        block_table=state.block_table,
        slots=slots,
        positions=positions,
        num_seqs=lengths.num_seqs,
        num_tokens=lengths.num_tokens,
        num_decodes=num_decodes,
        max_query_len=max_query_len,
        max_seq_len=max_seq_len,
        fresh=fresh,
        host_lens=host_lens,
    )
    starts = count_up(n, packed.device) if starts is None else starts[: n + 1]
    places = sampled_positions, sampled_slots, starts
    selection = _selection(attention, index, parts[8], parts[9], *places)
    return StepInputs(ids, attention, index, sample_rows, following, selection)


def _gather_mixed(
    packed: Tensor, state: RowState, lengths: MixedLengths, parts: tuple[Tensor, ...]
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Positions, slots and ids of the tokens, int64 [T] each; index, row and following position of
    the samples, position and slot of the token that each follows, int64 [N] each."""
    if packed.is_cuda:
        from jackfield.compute.kernels import step_inputs  # Triton: GPUs only

        tokens, samples = step_inputs.gather_mixed_inputs(
            packed,
            state.block_table,
            state.token_ids,
            num_changes=lengths.num_changes,
            num_seqs=lengths.num_seqs,
            num_tokens=lengths.num_tokens,
            num_samples=lengths.num_samples,
            block_size=state.block_size,
        )
        return tokens.unbind(), samples.unbind()
    if lengths.num_changes:
        state.set_blocks(parts[0], parts[1])
    rows, positions = parts[5].long(), parts[6].long()
    slots, ids = state.gather_slots(rows, positions), state.gather_ids(rows, positions)
    index, sample_rows, following = (part.long() for part in parts[7:])
    before = (following - 1).clamp_min(0)
    sampled = index, sample_rows, following, before, state.gather_slots(sample_rows, before)
    return (positions, slots, ids), sampled


def count_up(n: int, device: torch.device) -> Tensor:
    """int32 0 .. n, the query starts of decode steps."""
    return torch.arange(n + 1, dtype=torch.int32, device=device)
