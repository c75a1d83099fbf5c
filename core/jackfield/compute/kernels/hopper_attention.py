"""``prefill_attention`` as Hopper wants it: loads, products and softmax each on warps of their own.

One warp copies tiles of keys and values from the pages to shared memory; two groups of four warps
take 64 query rows each. A group has two products under way while it computes a softmax: the scores
of the next tile and the values weighted by the last one's. After FlashAttention-3 (arXiv
2407.08608), sections 3.1 and 3.2. Written in Gluon, which is Triton without its scheduling; the
interpreter does not run it, so that it is checked on a GPU only.
"""

from __future__ import annotations

import torch
from torch import Tensor
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    mbarrier,
    tma,
    warpgroup_mma,
    warpgroup_mma_wait,
)

from jackfield.compute.kernels.hopper_tiles import described, shared_layout
from jackfield.compute.kernels.launch import cdiv, power_of_2, quick, runs_hopper_kernels

MASKED = gl.constexpr(-1.0e30)

BOX = 64
"""Tokens and elements of a head that one copy brings: what lies together in any page."""
_TILE = 128
_BLOCK_ROWS = 128
_HEAD_DIM = 128
_STAGES = 2
_GROUP_REGISTERS, _LOADER_REGISTERS = 240, 24


@gluon.jit
def _add(a, b):
    return a + b


@gluon.jit
def _locate(query_starts, first_seq, num_seqs, block, TOKENS: gl.constexpr, SEQS: gl.constexpr):
    # The sequence of a block, and its first token there; a block behind the last has none.
    LINE: gl.constexpr = gl.BlockedLayout([1], [32], [4], [0])
    ids = gl.arange(0, SEQS, layout=LINE)
    live = ids < num_seqs - first_seq
    starts = gl.load(query_starts + first_seq + ids, mask=live, other=0)
    stops = gl.load(query_starts + first_seq + ids + 1, mask=live, other=0)
    blocks = (stops - starts + TOKENS - 1) // TOKENS
    ends = gl.associative_scan(blocks, 0, _add)
    index = gl.sum((ends <= block).to(gl.int32), 0)
    # The last block of a sequence has the most keys to see: it goes first.
    first_token = (gl.sum(gl.where(ids == index, ends, 0), 0) - 1 - block) * TOKENS
    exists = block < gl.sum(blocks, 0)
    return gl.where(exists, first_seq + index, first_seq), first_token, exists


@gluon.jit
def _row_of(table, token, head, NUM_KV_HEADS: gl.constexpr, BLOCK_SIZE: gl.constexpr):
    page = gl.load(table + token // BLOCK_SIZE)
    return (page * NUM_KV_HEADS + head) * BLOCK_SIZE + token % BLOCK_SIZE


@gluon.jit
def _load_tile(pages, row, next_row, boxes, stage, ready, TILE: gl.constexpr):
    # Two boxes of tokens, each in two halves of the head: as wgmma wants a tile of 128 x 128.
    BOX: gl.constexpr = boxes.shape[1]
    mbarrier.expect(ready.index(stage), TILE * 2 * BOX * 2)
    for half in gl.static_range(2):
        box = (stage * 2 + half) * 2
        column = half * BOX
        tma.async_copy_global_to_shared(pages, [row, column], ready.index(stage), boxes.index(box))
        tma.async_copy_global_to_shared(
            pages, [next_row, column], ready.index(stage), boxes.index(box + 1)
        )


@gluon.jit
def _load_tiles(
    source,
    tiles,
    NUM_KV_HEADS: gl.constexpr,
    BLOCK_SIZE: gl.constexpr,
    STAGES: gl.constexpr,
    TILE: gl.constexpr,
):
    k_pages, v_pages, table, head, seen, num_tiles = source
    k_boxes, v_boxes, k_ready, v_ready, k_free, v_free = tiles
    BOX: gl.constexpr = k_boxes.shape[1]
    last_box = (seen - 1) // BOX * BOX
    for i in range(num_tiles):
        stage = i % STAGES
        phase = (i // STAGES) & 1
        row = _row_of(table, i * TILE, head, NUM_KV_HEADS, BLOCK_SIZE)
        # Behind the last token there may be no page: what comes instead is masked.
        token = gl.minimum(i * TILE + BOX, last_box)
        next_row = _row_of(table, token, head, NUM_KV_HEADS, BLOCK_SIZE)
        mbarrier.wait(k_free.index(stage), phase ^ 1)
        _load_tile(k_pages, row, next_row, k_boxes, stage, k_ready, TILE)
        mbarrier.wait(v_free.index(stage), phase ^ 1)
        _load_tile(v_pages, row, next_row, v_boxes, stage, v_ready, TILE)


@gluon.jit
def _softmax(s, m, denom, positions, start, scale, S: gl.constexpr, MASK: gl.constexpr):
    if MASK:
        tokens = start + gl.arange(0, s.shape[1], layout=gl.SliceLayout(0, S))
        s = gl.where(tokens[None, :] <= positions[:, None], s, MASKED)
    new_m = gl.maximum(m, gl.max(s, 1) * scale)
    p = gl.exp2(s * scale - new_m[:, None])
    alpha = gl.exp2(m - new_m)
    return p, alpha, new_m, denom * alpha + gl.sum(p, 1)


@gluon.jit
def _attend_tiles(
    q,
    p,
    tiles,
    positions,
    first,
    last,
    m,
    denom,
    acc,
    scale,
    S: gl.constexpr,
    O: gl.constexpr,  # noqa: E741
    STAGES: gl.constexpr,
    MASK: gl.constexpr,
):
    # Scores of tiles first .. last - 1, values of those before each. p: weights of tile first - 1.
    k_tiles, v_tiles, k_ready, v_ready, k_free, v_free = tiles
    TILE: gl.constexpr = k_tiles.shape[1]
    zeros = gl.zeros((q.shape[0], TILE), gl.float32, S)
    for i in range(first, last):
        here = i % STAGES
        before = (i - 1) % STAGES
        mbarrier.wait(k_ready.index(here), (i // STAGES) & 1)
        keys = k_tiles.index(here).permute((1, 0))
        s = warpgroup_mma(q, keys, zeros, use_acc=False, is_async=True)
        mbarrier.wait(v_ready.index(before), ((i - 1) // STAGES) & 1)
        acc = warpgroup_mma(p, v_tiles.index(before), acc, is_async=True)
        s = warpgroup_mma_wait(1, deps=[s])
        mbarrier.arrive(k_free.index(here), count=1)
        weights, alpha, m, denom = _softmax(s, m, denom, positions, i * TILE, scale, S, MASK)
        acc, p = warpgroup_mma_wait(0, deps=[acc, p])
        mbarrier.arrive(v_free.index(before), count=1)
        acc = acc * gl.convert_layout(alpha, gl.SliceLayout(1, O))[:, None]
        p = gl.convert_layout(weights.to(v_tiles.dtype), gl.DotOperandLayout(0, O, 2))
    return m, denom, acc, p


@gluon.jit
def _attend(
    place,
    tiles,
    NUM_KV_HEADS: gl.constexpr,
    GROUP: gl.constexpr,
    STAGES: gl.constexpr,
    TILE: gl.constexpr,
    TILE_LAYOUT: gl.constexpr,
    HALF: gl.constexpr,
):
    # 64 of the block's query rows: neighbouring tokens, all query heads of the group for each.
    q, out, q_stride, query_start, query_len, prefix, first_token, head, num_tiles, scale = place
    k_boxes, v_boxes, k_ready, v_ready, k_free, v_free = tiles
    DIM: gl.constexpr = 2 * k_boxes.shape[2]
    ROWS: gl.constexpr = 64
    k_tiles = k_boxes._reinterpret(k_boxes.dtype, [STAGES, TILE, DIM], TILE_LAYOUT)
    v_tiles = v_boxes._reinterpret(v_boxes.dtype, [STAGES, TILE, DIM], TILE_LAYOUT)
    tiles = (k_tiles, v_tiles, k_ready, v_ready, k_free, v_free)
    LIVE_ROWS: gl.constexpr = 2 * ROWS // GROUP * GROUP
    S: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, TILE, 16])
    O: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, DIM, 16])  # noqa: E741
    LINES: gl.constexpr = gl.BlockedLayout([1, 8], [2, 16], [4, 1], [1, 0])
    row = HALF * ROWS + gl.arange(0, ROWS, layout=gl.SliceLayout(1, LINES))
    dims = gl.arange(0, DIM, layout=gl.SliceLayout(0, LINES))
    token = first_token + row // GROUP
    live = (token < query_len) & (row < LIVE_ROWS)
    start = (query_start + token).to(gl.int64) * q_stride + (head * GROUP + row % GROUP) * DIM
    queries = gl.load(q + start[:, None] + dims[None, :], mask=live[:, None], other=0.0)
    queries = gl.convert_layout(queries, gl.DotOperandLayout(0, S, 2))
    row = HALF * ROWS + gl.arange(0, ROWS, layout=gl.SliceLayout(1, S))
    positions = prefix + first_token + row // GROUP
    m = gl.full((ROWS,), MASKED, gl.float32, gl.SliceLayout(1, S))
    denom = gl.zeros((ROWS,), gl.float32, gl.SliceLayout(1, S))
    acc = gl.zeros((ROWS, DIM), gl.float32, O)
    mbarrier.wait(k_ready.index(0), 0)
    zeros = gl.zeros((ROWS, TILE), gl.float32, S)
    keys = k_tiles.index(0).permute((1, 0))
    s = warpgroup_mma(queries, keys, zeros, use_acc=False, is_async=True)
    s = warpgroup_mma_wait(0, deps=[s])
    mbarrier.arrive(k_free.index(0), count=1)
    weights, _, m, denom = _softmax(s, m, denom, positions, 0, scale, S, True)
    p = gl.convert_layout(weights.to(v_tiles.dtype), gl.DotOperandLayout(0, O, 2))
    # Tiles that every row sees whole need no mask.
    whole = (prefix + first_token + HALF * ROWS // GROUP + 1) // TILE
    whole = gl.minimum(gl.maximum(whole, 1), num_tiles)
    m, denom, acc, p = _attend_tiles(
        queries, p, tiles, positions, 1, whole, m, denom, acc, scale, S, O, STAGES, False
    )
    m, denom, acc, p = _attend_tiles(
        queries, p, tiles, positions, whole, num_tiles, m, denom, acc, scale, S, O, STAGES, True
    )
    last = num_tiles - 1
    mbarrier.wait(v_ready.index(last % STAGES), (last // STAGES) & 1)
    acc = warpgroup_mma(p, v_tiles.index(last % STAGES), acc, is_async=True)
    acc, p = warpgroup_mma_wait(0, deps=[acc, p])
    denom = gl.convert_layout(denom, gl.SliceLayout(1, O))
    row = HALF * ROWS + gl.arange(0, ROWS, layout=gl.SliceLayout(1, O))
    dims = gl.arange(0, DIM, layout=gl.SliceLayout(0, O))
    token = first_token + row // GROUP
    live = (token < query_len) & (row < LIVE_ROWS)
    heads = (query_start + token).to(gl.int64) * (NUM_KV_HEADS * GROUP) + head * GROUP + row % GROUP
    result = (acc / denom[:, None]).to(out.dtype.element_ty)
    gl.store(out + heads[:, None] * DIM + dims[None, :], result, mask=live[:, None])


@quick
@gluon.jit(
    do_not_specialize=[
        "first_seq",
        "num_seqs",
        "num_blocks",
        "head_step",
        "block_step",
        "table_stride",
    ],
    do_not_specialize_on_alignment=["rows", "query_starts", "seq_lens", "block_table"],
)
def _hopper_kernel(
    q,
    k_pages,
    v_pages,
    rows,
    query_starts,
    seq_lens,
    block_table,
    out,
    first_seq,
    num_seqs,
    num_blocks,
    head_step,
    block_step,
    q_stride,
    table_stride,
    scale,
    NUM_KV_HEADS: gl.constexpr,
    GROUP: gl.constexpr,
    BLOCK_SIZE: gl.constexpr,
    BLOCK_ROWS: gl.constexpr,
    SEQS: gl.constexpr,
    STAGES: gl.constexpr,
    TILE: gl.constexpr,
    TILE_LAYOUT: gl.constexpr,
    GROUP_REGISTERS: gl.constexpr,
    LOADER_REGISTERS: gl.constexpr,
):
    TOKENS: gl.constexpr = BLOCK_ROWS // GROUP
    BOX: gl.constexpr = k_pages.block_type.shape[0]
    head = gl.program_id(0) // head_step % NUM_KV_HEADS
    block = gl.program_id(0) // block_step % num_blocks
    seq, first_token, exists = _locate(query_starts, first_seq, num_seqs, block, TOKENS, SEQS)
    query_start = gl.load(query_starts + seq)
    query_len = gl.load(query_starts + seq + 1) - query_start
    prefix = gl.load(seq_lens + seq) - query_len
    table = block_table + gl.load(rows + seq).to(gl.int64) * table_stride
    # Warps cannot return before they part: a block of no sequence looks at a tile, stores nothing.
    query_len = gl.where(exists, query_len, 0)
    first_token = gl.where(exists, first_token, 0)
    seen = gl.where(exists, prefix + gl.minimum(first_token + TOKENS, query_len), 1)
    num_tiles = (seen + TILE - 1) // TILE
    dtype: gl.constexpr = k_pages.dtype
    LAYOUT: gl.constexpr = k_pages.layout
    k_boxes = gl.allocate_shared_memory(dtype, [STAGES * 4, BOX, BOX], LAYOUT)
    v_boxes = gl.allocate_shared_memory(dtype, [STAGES * 4, BOX, BOX], LAYOUT)
    k_ready = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    v_ready = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    k_free = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    v_free = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    for i in gl.static_range(STAGES):
        mbarrier.init(k_ready.index(i), count=1)
        mbarrier.init(v_ready.index(i), count=1)
        mbarrier.init(k_free.index(i), count=2)
        mbarrier.init(v_free.index(i), count=2)
    tiles = (k_boxes, v_boxes, k_ready, v_ready, k_free, v_free)
    place = (q, out, q_stride, query_start, query_len, prefix, first_token, head, num_tiles, scale)
    source = (k_pages, v_pages, table, head, seen, num_tiles)
    gl.warp_specialize(
        [
            (_attend, (place, tiles, NUM_KV_HEADS, GROUP, STAGES, TILE, TILE_LAYOUT, 0)),
            (_attend, (place, tiles, NUM_KV_HEADS, GROUP, STAGES, TILE, TILE_LAYOUT, 1)),
            (_load_tiles, (source, tiles, NUM_KV_HEADS, BLOCK_SIZE, STAGES, TILE)),
        ],
        [4, 1],
        [GROUP_REGISTERS, LOADER_REGISTERS],
    )


def supports(q: Tensor, key_pages: Tensor, sliding_window: int | None, cap: float | None) -> bool:
    """Whether ``hopper_attention`` can do it: on what it is made for, over pages of q's dtype."""
    return (
        runs_hopper_kernels(q.device)
        and sliding_window is None
        and cap is None
        and q.shape[2] == _HEAD_DIM
        and q.dtype in (torch.bfloat16, torch.float16)
        and key_pages.shape[2] % BOX == 0
        and q.shape[1] // key_pages.shape[1] <= 64
    )


def hopper_attention(
    q: Tensor,
    key_pages: Tensor,
    value_pages: Tensor,
    rows: Tensor,
    query_starts: Tensor,
    seq_lens: Tensor,
    block_table: Tensor,
    out: Tensor,
    *,
    first_seq: int,
    num_seqs: int,
    num_tokens: int,
    scale: float,
) -> None:
    """``prefill_attention`` over pages, for what ``supports`` says yes to. Pages hold no infinity
    and no NaN, not even where nobody's tokens are: they are multiplied by zero."""
    num_kv_heads, block_size = key_pages.shape[1:3]
    group = q.shape[1] // num_kv_heads
    num_prefills = num_seqs - first_seq
    blocks = cdiv(num_tokens, _BLOCK_ROWS // group) + num_prefills - 1
    # Neighbouring programs share a block of queries in a small step, a head's keys in a large one.
    head_step, block_step = (1, num_kv_heads) if num_tokens <= 2048 else (blocks, 1)
    _hopper_kernel[(blocks * num_kv_heads,)](
        q,
        described(key_pages.view(-1, _HEAD_DIM), BOX, BOX),
        described(value_pages.view(-1, _HEAD_DIM), BOX, BOX),
        rows,
        query_starts,
        seq_lens,
        block_table,
        out,
        first_seq,
        num_seqs,
        blocks,
        head_step,
        block_step,
        q.stride(0),
        block_table.stride(0),
        scale * 1.4426950408889634,
        NUM_KV_HEADS=num_kv_heads,
        GROUP=group,
        BLOCK_SIZE=block_size,
        BLOCK_ROWS=_BLOCK_ROWS,
        SEQS=128 if num_prefills <= 128 else power_of_2(num_prefills),
        STAGES=_STAGES,
        TILE=_TILE,
        TILE_LAYOUT=shared_layout(q.dtype, _TILE, _HEAD_DIM),
        GROUP_REGISTERS=_GROUP_REGISTERS,
        LOADER_REGISTERS=_LOADER_REGISTERS,
        num_warps=4,
    )
