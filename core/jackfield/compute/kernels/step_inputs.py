"""What a step needs of the batch state, gathered by one kernel in the place of twenty."""

from __future__ import annotations

from functools import cache

import torch
import triton
import triton.language as tl
from torch import Tensor

from jackfield.compute.kernels.launch import power_of_2, quick


@triton.jit
def _change_blocks(block_table, places, blocks, num_changes, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    for start in range(0, num_changes, BLOCK):
        live = start + i < num_changes
        place = tl.load(places + start + i, mask=live, other=0)
        block = tl.load(blocks + start + i, mask=live, other=0)
        tl.store(block_table + place, block, mask=live)
    tl.debug_barrier()


@triton.jit
def _slot_of(block_table, row, position, live, table_stride, BLOCK_SIZE: tl.constexpr):
    # Where the KV of a row's position lies; int64, as the row is.
    page = row * table_stride + position // BLOCK_SIZE
    block = tl.load(block_table + page, mask=live, other=0).to(tl.int64)
    return block * BLOCK_SIZE + position % BLOCK_SIZE


@quick
@triton.jit(do_not_specialize=["size", "num_changes"], do_not_specialize_on_alignment=["packed"])
def _decode_inputs_kernel(
    packed,
    block_table,
    token_ids,
    numbers,
    seq_lens,
    size,
    num_changes,
    table_stride,
    ids_stride,
    BLOCK_SIZE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    # One program, because the changes come before the look-ups.
    i = tl.arange(0, BLOCK)
    changes = packed + 2 * size
    _change_blocks(block_table, changes, changes + num_changes, num_changes, BLOCK)
    live = i < size
    row = tl.load(packed + i, mask=live, other=0).to(tl.int64)
    first = tl.load(packed + size + i, mask=live, other=0)
    position = tl.maximum(first, 0)
    slot = _slot_of(block_table, row, position, live, table_stride, BLOCK_SIZE)
    token = tl.load(token_ids + row * ids_stride + position, mask=live, other=0)
    tl.store(seq_lens + i, first + 1, mask=live)
    tl.store(numbers + i, row, mask=live)
    tl.store(numbers + size + i, (first + 1).to(tl.int64), mask=live)
    tl.store(numbers + 2 * size + i, position.to(tl.int64), mask=live)
    tl.store(numbers + 3 * size + i, slot, mask=live)
    tl.store(numbers + 4 * size + i, token.to(tl.int64), mask=live)


@cache
def _outputs(device: torch.device, block: int) -> tuple[Tensor, Tensor]:
    # Zeros: where launches only compile, ids that mean nothing must still be in the vocabulary.
    numbers = torch.zeros(5 * block, dtype=torch.int64, device=device)
    return numbers, torch.zeros(block, dtype=torch.int32, device=device)


def gather_decode_inputs(
    packed: Tensor,
    block_table: Tensor,
    token_ids: Tensor,
    *,
    size: int,
    num_changes: int,
    block_size: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Applies the block changes of ``batch.pack_decode``'s array and looks up the rest: KV lengths
    after the step int32 [size]; rows, the positions that follow, positions, KV slots and token
    ids, int64 [size] each. All hold until the next call."""
    block = max(32, power_of_2(size))
    numbers, seq_lens = _outputs(packed.device, block)
    numbers, seq_lens = numbers[: 5 * size].view(5, size), seq_lens[:size]
    _decode_inputs_kernel[(1,)](
        packed,
        block_table,
        token_ids,
        numbers,
        seq_lens,
        size,
        num_changes,
        block_table.stride(0),
        token_ids.stride(0),
        BLOCK_SIZE=block_size,
        BLOCK=block,
        num_warps=4,
    )
    rows, following, positions, slots, ids = numbers.unbind()
    return seq_lens, rows, following, positions, slots, ids


@quick
@triton.jit(
    do_not_specialize=["num_changes", "num_seqs", "num_tokens", "num_samples"],
    do_not_specialize_on_alignment=["packed"],
)
def _mixed_inputs_kernel(
    packed,
    block_table,
    token_ids,
    numbers,
    num_changes,
    num_seqs,
    num_tokens,
    num_samples,
    table_stride,
    ids_stride,
    BLOCK_SIZE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    # One program, because the changes come before the look-ups.
    i = tl.arange(0, BLOCK)
    _change_blocks(block_table, packed, packed + num_changes, num_changes, BLOCK)
    tokens = packed + 2 * num_changes + 3 * num_seqs + 1
    for start in range(0, num_tokens, BLOCK):
        at = start + i
        live = at < num_tokens
        row = tl.load(tokens + at, mask=live, other=0).to(tl.int64)
        position = tl.load(tokens + num_tokens + at, mask=live, other=0)
        slot = _slot_of(block_table, row, position, live, table_stride, BLOCK_SIZE)
        token = tl.load(token_ids + row * ids_stride + position, mask=live, other=0)
        tl.store(numbers + at, position.to(tl.int64), mask=live)
        tl.store(numbers + num_tokens + at, slot, mask=live)
        tl.store(numbers + 2 * num_tokens + at, token.to(tl.int64), mask=live)
    samples = tokens + 2 * num_tokens
    numbers += 3 * num_tokens
    for start in range(0, num_samples, BLOCK):
        at = start + i
        live = at < num_samples
        index = tl.load(samples + at, mask=live, other=0)
        row = tl.load(samples + num_samples + at, mask=live, other=0).to(tl.int64)
        following = tl.load(samples + 2 * num_samples + at, mask=live, other=0)
        position = tl.maximum(following - 1, 0)
        slot = _slot_of(block_table, row, position, live, table_stride, BLOCK_SIZE)
        tl.store(numbers + at, index.to(tl.int64), mask=live)
        tl.store(numbers + num_samples + at, row, mask=live)
        tl.store(numbers + 2 * num_samples + at, following.to(tl.int64), mask=live)
        tl.store(numbers + 3 * num_samples + at, position.to(tl.int64), mask=live)
        tl.store(numbers + 4 * num_samples + at, slot, mask=live)


def gather_mixed_inputs(
    packed: Tensor,
    block_table: Tensor,
    token_ids: Tensor,
    *,
    num_changes: int,
    num_seqs: int,
    num_tokens: int,
    num_samples: int,
    block_size: int,
) -> tuple[Tensor, Tensor]:
    """Applies the block changes of an array in the order of ``batch.mixed_parts`` and looks up the
    rest: positions, KV slots and ids of the tokens, int64 [3, T]; index, row and following position
    of what is sampled, and position and slot of the token that it follows, int64 [5, N]. All hold
    until the next call."""
    size = 3 * num_tokens + 5 * num_samples
    numbers, _ = _outputs(packed.device, power_of_2(size))
    _mixed_inputs_kernel[(1,)](
        packed,
        block_table,
        token_ids,
        numbers,
        num_changes,
        num_seqs,
        num_tokens,
        num_samples,
        block_table.stride(0),
        token_ids.stride(0),
        BLOCK_SIZE=block_size,
        BLOCK=1024,
        num_warps=8,
    )
    tokens, samples = numbers[:size].split([3 * num_tokens, 5 * num_samples])
    return tokens.view(3, num_tokens), samples.view(5, num_samples)
