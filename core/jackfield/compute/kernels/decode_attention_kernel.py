"""The kernel of decode attention: a stretch of tiles a program, the last one merges parts."""

import triton
import triton.language as tl

from jackfield.compute.kernels.kv_write import load_scale
from jackfield.compute.kernels.launch import quick
from jackfield.compute.kernels.softmax import (
    MASKED,
    add_tile,
    as_factor,
    before_any_key,
    page_places,
)


@triton.jit
def _first_tile(seq_len, WINDOW: tl.constexpr, TILE: tl.constexpr):
    if WINDOW > 0:
        return tl.maximum(seq_len - WINDOW, 0) // TILE
    else:
        return seq_len * 0


@triton.jit
def _attend(
    q,
    key,
    value,
    table,
    head,
    seq_len,
    start,
    stop,
    m,
    denom,
    scale,
    NUM_KV_HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    WINDOW: tl.constexpr,
    SOFT_CAP: tl.constexpr,
    BLOCK_G: tl.constexpr,
    BLOCK_D: tl.constexpr,
    TILE: tl.constexpr,
    STAGES: tl.constexpr,
):
    dims = tl.arange(0, BLOCK_D)[None, :]
    acc = tl.zeros((BLOCK_G, BLOCK_D), tl.float32)
    for t in tl.range(start, stop, TILE, num_stages=STAGES):
        tokens = t + tl.arange(0, TILE)
        valid = tokens < seq_len
        if WINDOW > 0:
            valid = valid & (tokens >= seq_len - WINDOW)
        places = page_places(table, t, tokens, valid, head, NUM_KV_HEADS, BLOCK_SIZE, TILE)
        offsets = places[:, None] * HEAD_DIM + dims
        # What a page holds beyond the sequence is undefined, and 0 * NaN is NaN: mask the load.
        mask = valid[:, None] & (dims < HEAD_DIM)
        k = tl.load(key + offsets, mask=mask, other=0.0)
        v = tl.load(value + offsets, mask=mask, other=0.0)
        m, denom, acc = add_tile(q, k, v, m, denom, acc, valid[None, :], scale, SOFT_CAP, True)
    return m, denom, acc


@triton.jit
def _leave(
    partial,
    stats,
    slot,
    m,
    denom,
    acc,
    rows,
    mask,
    HEAD_DIM: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    tl.store(stats + 2 * slot, m, mask=rows)
    tl.store(stats + 2 * slot + 1, denom, mask=rows)
    dims = tl.arange(0, BLOCK_D)[None, :]
    tl.store(partial + slot[:, None] * HEAD_DIM + dims, acc, mask=mask)


@triton.jit
def _part(
    partial,
    stats,
    program,
    first,
    last,
    GROUP: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    # What ``program`` left of a pair: its second slot if it is the pair's first, else its first
    # slot; beyond the pair's last nothing.
    g = tl.arange(0, BLOCK_ROWS)
    dims = tl.arange(0, BLOCK_D)[None, :]
    rows = (g < GROUP) & (program <= last)
    place = (2 * program + (program == first).to(tl.int32)) * GROUP + g
    m = tl.load(stats + 2 * place, mask=rows, other=MASKED, cache_modifier=".cg")
    denom = tl.load(stats + 2 * place + 1, mask=rows, other=0.0, cache_modifier=".cg")
    offsets = place[:, None] * HEAD_DIM + dims
    mask = rows[:, None] & (dims < HEAD_DIM)
    return m, denom, tl.load(partial + offsets, mask=mask, other=0.0, cache_modifier=".cg")


@triton.jit
def _joined(part, other):
    m, denom, acc = part
    other_m, other_denom, other_acc = other
    both = tl.maximum(m, other_m)
    weight, other_weight = tl.exp2(m - both), tl.exp2(other_m - both)
    acc = acc * weight[:, None] + other_acc * other_weight[:, None]
    return both, denom * weight + other_denom * other_weight, acc


@triton.jit
def _merge(
    partial,
    stats,
    first,
    last,
    out,
    factor,
    GROUP: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    # The pair's parts times ``factor``, [GROUP, HEAD_DIM] at ``out``. Four parts are asked for
    # before one is looked at.
    dims = tl.arange(0, BLOCK_D)[None, :]
    g = tl.arange(0, BLOCK_ROWS)
    mask = (g < GROUP)[:, None] & (dims < HEAD_DIM)
    m = tl.full((BLOCK_ROWS,), MASKED, tl.float32)
    denom = tl.zeros((BLOCK_ROWS,), tl.float32)
    acc = tl.zeros((BLOCK_ROWS, BLOCK_D), tl.float32)
    for program in range(first, last + 1, 4):
        a = _part(partial, stats, program, first, last, GROUP, HEAD_DIM, BLOCK_ROWS, BLOCK_D)
        b = _part(partial, stats, program + 1, first, last, GROUP, HEAD_DIM, BLOCK_ROWS, BLOCK_D)
        c = _part(partial, stats, program + 2, first, last, GROUP, HEAD_DIM, BLOCK_ROWS, BLOCK_D)
        d = _part(partial, stats, program + 3, first, last, GROUP, HEAD_DIM, BLOCK_ROWS, BLOCK_D)
        four = _joined(_joined((m, denom, acc), a), _joined(_joined(b, c), d))
        m, denom, acc = four
    denom = tl.where(g < GROUP, denom, 1.0)
    y = (acc * (factor / denom)[:, None]).to(out.dtype.element_ty)
    tl.store(out + g[:, None] * HEAD_DIM + dims, y, mask=mask)


@triton.jit
def _zero_padding(
    out, seq_lens, num_seqs, HEADS_DIM: tl.constexpr, BLOCK: tl.constexpr, program, num_programs
):
    # Rows that pad a graph have no KV; NaN from unwritten memory must not reach the sampler.
    for seq in range(program, num_seqs, num_programs):
        if tl.load(seq_lens + seq) == 0:
            for c in tl.static_range(0, HEADS_DIM, BLOCK):
                cols = c + tl.arange(0, BLOCK)
                zeros = tl.zeros((BLOCK,), out.dtype.element_ty)
                tl.store(out + seq * HEADS_DIM + cols, zeros, mask=cols < HEADS_DIM)


@triton.jit
def _tiles_of(seq_lens, pair_cost, WINDOW: tl.constexpr, TILE: tl.constexpr):
    # Of one KV head. The beginning of a pair counts as ``pair_cost`` tiles, which come first.
    tiles = tl.cdiv(seq_lens, TILE) - _first_tile(seq_lens, WINDOW, TILE)
    return tl.where(tiles > 0, tiles + pair_cost, 0)


@triton.jit
def _tokens_of(seq_len, skipped, count, pair_cost, WINDOW: tl.constexpr, TILE: tl.constexpr):
    # Where ``count`` tiles of a pair begin and end, behind ``skipped`` of them.
    tile = _first_tile(seq_len, WINDOW, TILE)
    start = tile + tl.maximum(skipped - pair_cost, 0)
    return start * TILE, (tile + tl.maximum(skipped + count - pair_cost, 0)) * TILE


@triton.jit
def _pair_at(
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
    # The pair that tile ``here`` belongs to: sequence and head, its first tile and how many it has,
    # the sequence's length and blocks. From ``stop`` on nothing of that means anything.
    seq = tl.sum((ends <= here).to(tl.int32), 0)
    seq_tiles = tl.sum(tl.where(ids == seq, tiles, 0), 0)
    seq_start = tl.sum(tl.where(ids == seq, ends, 0), 0) - seq_tiles
    head_tiles = seq_tiles // NUM_KV_HEADS
    head = (here - seq_start) // tl.maximum(head_tiles, 1)
    seq_len = tl.load(seq_lens + seq, mask=here < stop, other=0)
    row = tl.load(rows + seq, mask=here < stop, other=0).to(tl.int64)
    table = block_table + row * table_stride
    return seq, head, seq_start + head * head_tiles, head_tiles, seq_len, table


@triton.jit
def _prefetch(
    key,
    value,
    table,
    head,
    seq_len,
    here,
    most,
    pair_cost,
    pair_start,
    head_tiles,
    NUM_KV_HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    WINDOW: tl.constexpr,
    TILE: tl.constexpr,
    PIECE: tl.constexpr,
):
    # Brings what a program's first pair has of its ``most`` tiles from ``here`` on, or the first 32
    # pieces of that, as far as L2 while the kernel that writes the newest keys still runs: L2 is
    # where the device is coherent, so that none of them can be out of date.
    skipped = here - pair_start
    count = tl.minimum(head_tiles - skipped, most)
    start, stop = _tokens_of(seq_len, skipped, count, pair_cost, WINDOW, TILE)
    stop = tl.minimum(stop, seq_len)
    # A piece is contiguous, and values are at the same places as keys.
    tokens = start + tl.arange(0, 32) * PIECE
    live = tokens < stop
    pages = tl.load(table + tokens // BLOCK_SIZE, mask=live, other=0).to(tl.int64)
    places = ((pages * NUM_KV_HEADS + head) * BLOCK_SIZE + tokens % BLOCK_SIZE) * HEAD_DIM
    ROW_BYTES: tl.constexpr = HEAD_DIM * (key.dtype.element_ty.primitive_bitwidth // 8)
    num_bytes = tl.where(live, tl.minimum(stop - tokens, PIECE), 0) * ROW_BYTES
    for kind in tl.static_range(2):
        # All warps know the 32 pieces; one asks for them, a lane each.
        tl.inline_asm_elementwise(
            """
            {
                .reg .pred live, first;
                .reg .u32 thread;
                mov.u32 thread, %tid.x;
                setp.lt.u32 first, thread, 32;
                setp.ne.and.u32 live, $2, 0, first;
                @live cp.async.bulk.prefetch.L2.global [$1], $2;
                mov.u32 $0, 0;
            }
            """,
            "=r,l,r",
            [((key if kind == 0 else value) + places).to(tl.int64), num_bytes],
            dtype=tl.int32,
            is_pure=False,
            pack=1,
        )


# The step's index tensors are views into uploads, at any offset: one variant serves all.
@quick
@triton.jit(
    do_not_specialize=["num_seqs", "ahead", "pair_cost", "table_stride"],
    do_not_specialize_on_alignment=["rows", "seq_lens", "block_table", "scales"],
)
def decode_kernel(
    q,
    key,
    value,
    scales,
    sinks,
    rows,
    seq_lens,
    block_table,
    out,
    partial,
    stats,
    arrivals,
    num_seqs,
    ahead,
    pair_cost,
    q_stride,
    table_stride,
    scale,
    NUM_KV_HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    WINDOW: tl.constexpr,
    SOFT_CAP: tl.constexpr,
    HAS_SINKS: tl.constexpr,
    BLOCK_SEQS: tl.constexpr,
    BLOCK_G: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_D: tl.constexpr,
    TILE: tl.constexpr,
    STAGES: tl.constexpr,
    PIECE: tl.constexpr,
    PDL: tl.constexpr,
):
    """A program's stretch of the line of tiles; arguments as ``decode_attention`` gives them."""
    program, num_programs = tl.program_id(0), tl.num_programs(0)
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()
    ids = tl.arange(0, BLOCK_SEQS)
    lens = tl.load(seq_lens + ids, mask=ids < num_seqs, other=0)
    tiles = _tiles_of(lens, pair_cost, WINDOW, TILE) * NUM_KV_HEADS
    ends, total = tl.cumsum(tiles, 0), tl.sum(tiles, 0)
    share = tl.cdiv(total, num_programs)
    here = program * share
    stop = tl.minimum(here + share, total)
    heads_dim: tl.constexpr = NUM_KV_HEADS * GROUP * HEAD_DIM
    g = tl.arange(0, BLOCK_G)
    dims = tl.arange(0, BLOCK_D)[None, :]
    mask = (g < GROUP)[:, None] & (dims < HEAD_DIM)
    seq, head, pair_start, head_tiles, seq_len, table = _pair_at(
        here, stop, rows, seq_lens, block_table, table_stride, ids, tiles, ends, NUM_KV_HEADS
    )
    key_scale, value_scale = load_scale(scales, key), load_scale(scales + 1, key)
    if PDL:
        # A copy is of multiples of 16 bytes.
        if HEAD_DIM * key.dtype.element_ty.primitive_bitwidth % 128 == 0:
            most = tl.minimum(stop - here, ahead)
            _prefetch(
                *(key, value, table, head, seq_len),
                *(here, most, pair_cost, pair_start, head_tiles),
                *(NUM_KV_HEADS, HEAD_DIM, BLOCK_SIZE, WINDOW, TILE, PIECE),
            )
        tl.extra.cuda.gdc_wait()
    while here < stop:
        if BLOCK_SEQS > 64:
            # Registers are short: what the first pair is, is not kept for so long.
            seq, head, pair_start, head_tiles, seq_len, table = _pair_at(
                *(here, stop, rows, seq_lens, block_table, table_stride, ids, tiles, ends),
                NUM_KV_HEADS,
            )
        skipped = here - pair_start
        count = tl.minimum(head_tiles - skipped, stop - here)
        begin, end = _tokens_of(seq_len, skipped, count, pair_cost, WINDOW, TILE)
        places = (head * GROUP + g)[:, None] * HEAD_DIM + dims
        # A sink is in the pair's first part only.
        m, denom = before_any_key(sinks, head * GROUP + g, (g < GROUP) & (skipped == 0), HAS_SINKS)
        query = tl.load(q + seq.to(tl.int64) * q_stride + places, mask=mask, other=0.0)
        m, denom, acc = _attend(
            as_factor(query, key),
            key,
            value,
            table,
            head,
            seq_len,
            begin,
            end,
            m,
            denom,
            scale * key_scale,
            NUM_KV_HEADS,
            HEAD_DIM,
            BLOCK_SIZE,
            WINDOW,
            SOFT_CAP,
            BLOCK_G,
            BLOCK_D,
            TILE,
            STAGES,
        )
        first, last = pair_start // share, (pair_start + head_tiles - 1) // share
        if first == last:
            acc *= value_scale
            target = out + seq.to(tl.int64) * heads_dim + places
            tl.store(target, (acc / denom[:, None]).to(out.dtype.element_ty), mask=mask)
        else:
            slot = (2 * program + (skipped == 0).to(tl.int32)) * GROUP + g
            _leave(partial, stats, slot, m, denom, acc, g < GROUP, mask, HEAD_DIM, BLOCK_D)
            # The barrier orders this program's stores before its one releasing increment.
            tl.debug_barrier()
            if tl.atomic_add(arrivals + first, 1, sem="acq_rel") == last - first:
                tl.debug_barrier()
                pair = out + seq.to(tl.int64) * heads_dim + head * GROUP * HEAD_DIM
                _merge(
                    *(partial, stats, first, last, pair, value_scale),
                    *(GROUP, HEAD_DIM, BLOCK_ROWS, BLOCK_D),
                )
                tl.store(arrivals + first, 0)
        here += count
        if BLOCK_SEQS <= 64:
            seq, head, pair_start, head_tiles, seq_len, table = _pair_at(
                *(here, stop, rows, seq_lens, block_table, table_stride, ids, tiles, ends),
                NUM_KV_HEADS,
            )
    _zero_padding(out, seq_lens, num_seqs, heads_dim, 1024, program, num_programs)
