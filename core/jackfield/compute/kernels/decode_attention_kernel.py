"""The kernel of decode attention: a stretch of tiles a program, the last one merges parts."""

import triton
import triton.language as tl

from jackfield.compute.kernels.code_numbers import numbers_of
from jackfield.compute.kernels.decode_parts import (
    PARTS_AT_ONCE,
    PARTS_OF_MANY_AT_ONCE,
    write_or_leave,
)
from jackfield.compute.kernels.decode_shares import pair_at, shares, tokens_of
from jackfield.compute.kernels.kv_write import load_scale
from jackfield.compute.kernels.launch import quick
from jackfield.compute.kernels.softmax import (
    add_tile,
    as_factor,
    before_any_key,
    page_places,
    places_in_page,
)

_KNOWN_BLOCKS = tl.constexpr(4)
"""Of a program, looked up before the newest key is written, where it has one pair's tiles only."""


@triton.jit
def _places(
    table,
    t,
    start,
    tokens,
    valid,
    head,
    known,
    NUM_KV_HEADS: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    TILE: tl.constexpr,
    KNOWS: tl.constexpr,
):
    # Rows of the tile at ``t``. KNOWS: ``known`` has the blocks from that of ``start`` on.
    if KNOWS:
        which = t // BLOCK_SIZE - start // BLOCK_SIZE
        page = tl.sum(tl.where(tl.arange(0, _KNOWN_BLOCKS) == which, known, 0), 0)
        page += tl.load(table + t // BLOCK_SIZE, mask=which >= _KNOWN_BLOCKS, other=0)
        return places_in_page(page, t, head, NUM_KV_HEADS, BLOCK_SIZE, TILE)
    else:
        return page_places(table, t, tokens, valid, head, NUM_KV_HEADS, BLOCK_SIZE, TILE)


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
    known,
    NUM_KV_HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    WINDOW: tl.constexpr,
    SOFT_CAP: tl.constexpr,
    BLOCK_G: tl.constexpr,
    BLOCK_D: tl.constexpr,
    TILE: tl.constexpr,
    STAGES: tl.constexpr,
    KNOWS: tl.constexpr,
    ASM: tl.constexpr,
):
    # ASM: two values of 8 bits are loaded as one number of 16, because bytes come out of shared
    # memory one at a time for a product. Even dimensions are added up apart from odd ones then.
    PARTS: tl.constexpr = 1 if ASM == "" else 2
    dims = tl.arange(0, BLOCK_D)[None, :]
    parts = tl.arange(0, BLOCK_D // PARTS)[None, :]
    accs = (tl.zeros((BLOCK_G, BLOCK_D // PARTS), tl.float32),) * PARTS
    if PARTS == 2:
        value = value.to(tl.pointer_type(tl.int16), bitcast=True)
    for t in tl.range(start, stop, TILE, num_stages=STAGES):
        tokens = t + tl.arange(0, TILE)
        valid = tokens < seq_len
        if WINDOW > 0:
            valid = valid & (tokens >= seq_len - WINDOW)
        places = _places(
            *(table, t, start, tokens, valid, head, known),
            *(NUM_KV_HEADS, BLOCK_SIZE, TILE, KNOWS),
        )
        # What a page holds beyond the sequence is undefined, and 0 * NaN is NaN: mask the load.
        mask = valid[:, None] & (dims < HEAD_DIM)
        k = tl.load(key + places[:, None] * HEAD_DIM + dims, mask=mask, other=0.0)
        mask = valid[:, None] & (parts < HEAD_DIM // PARTS)
        v = tl.load(value + places[:, None] * (HEAD_DIM // PARTS) + parts, mask=mask, other=0.0)
        values = (v,) if PARTS == 1 else numbers_of(v, (), (), q, None, ASM, 8, 0)
        m, denom, accs = add_tile(
            q, k, values, m, denom, accs, valid[None, :], scale, SOFT_CAP, True
        )
    acc = accs[0] if PARTS == 1 else tl.join(*accs).reshape(BLOCK_G, BLOCK_D)
    return m, denom, acc


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
    start, stop = tokens_of(seq_len, skipped, count, pair_cost, WINDOW, TILE)
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
    do_not_specialize=["num_seqs", "ahead", "pair_cost", "least", "table_stride"],
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
    least,
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
    OWN_PROGRAMS: tl.constexpr,
    ASM: tl.constexpr,
    PDL: tl.constexpr,
):
    """A program's stretch of the line of tiles; arguments as ``decode_attention`` gives them."""
    program, num_programs = tl.program_id(0), tl.num_programs(0)
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()
    ids = tl.arange(0, BLOCK_SEQS)
    lens = tl.load(seq_lens + ids, mask=ids < num_seqs, other=0)
    share, tiles = shares(
        *(lens, num_seqs, num_programs, pair_cost, least),
        *(NUM_KV_HEADS, WINDOW, TILE, OWN_PROGRAMS),
    )
    ends, total = tl.cumsum(tiles, 0), tl.sum(tiles, 0)
    here = program * share
    stop = tl.minimum(here + share, total)
    heads_dim: tl.constexpr = NUM_KV_HEADS * GROUP * HEAD_DIM
    KNOWS: tl.constexpr = OWN_PROGRAMS and BLOCK_SIZE % TILE == 0
    g = tl.arange(0, BLOCK_G)
    dims = tl.arange(0, BLOCK_D)[None, :]
    mask = (g < GROUP)[:, None] & (dims < HEAD_DIM)
    seq, head, pair_start, head_tiles, seq_len, table = pair_at(
        here, stop, rows, seq_lens, block_table, table_stride, ids, tiles, ends, NUM_KV_HEADS
    )
    known = 0
    if KNOWS:
        begin, end = tokens_of(seq_len, here - pair_start, share, pair_cost, WINDOW, TILE)
        blocks = begin // BLOCK_SIZE + tl.arange(0, _KNOWN_BLOCKS)
        known = tl.load(table + blocks, mask=(here < stop) & (blocks * BLOCK_SIZE < end), other=0)
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
            seq, head, pair_start, head_tiles, seq_len, table = pair_at(
                *(here, stop, rows, seq_lens, block_table, table_stride, ids, tiles, ends),
                NUM_KV_HEADS,
            )
        skipped = here - pair_start
        count = tl.minimum(head_tiles - skipped, stop - here)
        begin, end = tokens_of(seq_len, skipped, count, pair_cost, WINDOW, TILE)
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
            known,
            NUM_KV_HEADS,
            HEAD_DIM,
            BLOCK_SIZE,
            WINDOW,
            SOFT_CAP,
            BLOCK_G,
            BLOCK_D,
            TILE,
            STAGES,
            KNOWS,
            ASM,
        )
        write_or_leave(
            *(m, denom, acc, value_scale),
            out + seq.to(tl.int64) * heads_dim + head * GROUP * HEAD_DIM,
            *(partial, stats, arrivals, program),
            *(pair_start // share, (pair_start + head_tiles - 1) // share, skipped == 0),
            *(GROUP, HEAD_DIM, BLOCK_G, BLOCK_ROWS, BLOCK_D),
            PARTS_AT_ONCE if OWN_PROGRAMS else PARTS_OF_MANY_AT_ONCE,
        )
        here += count
        if BLOCK_SEQS <= 64 and not OWN_PROGRAMS:
            seq, head, pair_start, head_tiles, seq_len, table = pair_at(
                *(here, stop, rows, seq_lens, block_table, table_stride, ids, tiles, ends),
                NUM_KV_HEADS,
            )
    # The last programs are the first that have nothing else to do.
    _zero_padding(
        out, seq_lens, num_seqs, heads_dim, 1024, num_programs - 1 - program, num_programs
    )
