"""Who takes which tiles of the KV of all sequences and heads, found from the lengths alone.

A (sequence, KV head) pair's tiles are beside each other on a line of which each program takes an
equal stretch. Where pairs are few each has programs of its own.
"""

import triton
import triton.language as tl

from jackfield.compute.kernels.decode_parts import PARTS_AT_ONCE


@triton.jit
def _first_tile(seq_len, WINDOW: tl.constexpr, TILE: tl.constexpr):
    if WINDOW > 0:
        return tl.maximum(seq_len - WINDOW, 0) // TILE
    else:
        return seq_len * 0


@triton.jit
def _tiles_of(seq_lens, pair_cost, WINDOW: tl.constexpr, TILE: tl.constexpr):
    # Of one KV head. The beginning of a pair counts as ``pair_cost`` tiles, which come first.
    tiles = tl.cdiv(seq_lens, TILE) - _first_tile(seq_lens, WINDOW, TILE)
    return tl.where(tiles > 0, tiles + pair_cost, 0)


@triton.jit
def _own_share(tiles, num_seqs, num_programs, NUM_KV_HEADS: tl.constexpr):
    # Tiles a program takes of the one pair it has some of. As long as programs suffice, a pair has
    # no more parts than are merged at once, or parts of four tiles; two tiles take less than a
    # merge. With a program for each pair's last part they always suffice.
    total, longest = tl.sum(tiles, 0) * NUM_KV_HEADS, tl.max(tiles, 0)
    wanted = tl.minimum(tl.maximum(tl.cdiv(longest, PARTS_AT_ONCE), 1), 4)
    wanted = tl.where(longest == 2, 2, wanted)
    pairs = num_seqs * NUM_KV_HEADS
    share = tl.maximum(tl.cdiv(total, num_programs - pairs), wanted)
    for spare in tl.static_range(1, -1, -1):
        less = tl.maximum(tl.cdiv(total, num_programs - pairs // 2 * spare), wanted)
        programs = tl.sum(tl.cdiv(tiles, less), 0) * NUM_KV_HEADS
        share = tl.where(programs <= num_programs, less, share)
    return share


@triton.jit
def shares(
    lens,
    num_seqs,
    num_programs,
    pair_cost,
    least,
    NUM_KV_HEADS: tl.constexpr,
    WINDOW: tl.constexpr,
    TILE: tl.constexpr,
    OWN_PROGRAMS: tl.constexpr,
):
    """Tiles of a program, and how many each sequence's heads count for together. The beginning of a
    pair counts as ``pair_cost`` tiles, which is nothing where it has programs of its own; elsewhere
    programs take ``least`` tiles or the longest pair at least."""
    tiles = _tiles_of(lens, pair_cost, WINDOW, TILE)
    if OWN_PROGRAMS:
        share = _own_share(tiles, num_seqs, num_programs, NUM_KV_HEADS)
        # What a pair's last program lacks of its share counts too.
        return share, tl.cdiv(tiles, share) * share * NUM_KV_HEADS
    else:
        share = tl.minimum(tl.max(tiles, 0), least)
        tiles *= NUM_KV_HEADS
        return tl.maximum(tl.cdiv(tl.sum(tiles, 0), num_programs), share), tiles


@triton.jit
def tokens_of(seq_len, skipped, count, pair_cost, WINDOW: tl.constexpr, TILE: tl.constexpr):
    """Where ``count`` tiles of a pair begin and end, behind ``skipped`` of them."""
    tile = _first_tile(seq_len, WINDOW, TILE)
    start = tile + tl.maximum(skipped - pair_cost, 0)
    stop = tile + tl.maximum(skipped + count - pair_cost, 0)
    return start * TILE, tl.minimum(stop * TILE, seq_len)


@triton.jit
def pair_at(
    here,
    stop,
    rows,
    seq_lens,
    block_table,
    table_stride,
    ids,
    tiles,
    ends,
    NUM_KV_HEADS: tl.constexpr,
):
    """The pair that tile ``here`` belongs to: sequence and head, its first tile and how many it
    has, the sequence's length and blocks. From ``stop`` on nothing of that means anything."""
    seq = tl.sum((ends <= here).to(tl.int32), 0)
    seq_tiles = tl.sum(tl.where(ids == seq, tiles, 0), 0)
    seq_start = tl.sum(tl.where(ids == seq, ends, 0), 0) - seq_tiles
    head_tiles = seq_tiles // NUM_KV_HEADS
    head = (here - seq_start) // tl.maximum(head_tiles, 1)
    seq_len = tl.load(seq_lens + seq, mask=here < stop, other=0)
    row = tl.load(rows + seq, mask=here < stop, other=0).to(tl.int64)
    table = block_table + row * table_stride
    return seq, head, seq_start + head * head_tiles, head_tiles, seq_len, table
