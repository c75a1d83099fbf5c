"""Causal attention of several query tokens a sequence, of any lengths, over pages or fresh KV.

A program takes ``block_m`` query rows of one KV head: neighbouring tokens, all query heads of the
group for each, so that every key read serves the whole group and causality skips in steps of
few tokens. Programs find their sequence from ``query_starts`` in device memory.
"""

from dataclasses import dataclass

import triton
import triton.language as tl
from torch import Tensor

from jackfield.compute.kernels.kv_write import load_scale
from jackfield.compute.kernels.launch import LARGE_ROOM, cdiv, power_of_2, quick, shared_bytes
from jackfield.compute.kernels.softmax import add_tile, as_factor, before_any_key, page_places


@triton.jit
def _attend_tiles(
    q,
    key,
    value,
    table,
    kv_start,
    key_stride,
    value_stride,
    head,
    positions,
    start,
    stop,
    m,
    denom,
    acc,
    scale,
    NUM_KV_HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    WINDOW: tl.constexpr,
    SOFT_CAP: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    STAGES: tl.constexpr,
    MASK: tl.constexpr,
):
    # Keys start .. stop; without MASK every row sees all of them. BLOCK_SIZE 0: fresh KV.
    dims = tl.arange(0, BLOCK_D)[None, :]
    # A tile in one page: its page is loaded a tile ahead, or the loads behind it would be too late
    # to fill the pipeline's stages.
    ONE_PAGE: tl.constexpr = BLOCK_SIZE > 0 and BLOCK_SIZE % BLOCK_N == 0
    page = tl.load(table + tl.minimum(start, stop - 1) // BLOCK_SIZE) if ONE_PAGE else start
    for t in tl.range(start, stop, BLOCK_N, num_stages=STAGES):
        tokens = t + tl.arange(0, BLOCK_N)
        written = tokens < stop
        if ONE_PAGE:
            row = (page.to(tl.int64) * NUM_KV_HEADS + head) * BLOCK_SIZE + t % BLOCK_SIZE
            k_at = (row + tl.arange(0, BLOCK_N))[:, None] * HEAD_DIM + dims
            v_at = k_at
            page = tl.load(table + tl.minimum(t + BLOCK_N, stop - 1) // BLOCK_SIZE)
        elif BLOCK_SIZE > 0:
            places = page_places(table, t, tokens, written, head, NUM_KV_HEADS, BLOCK_SIZE, BLOCK_N)
            k_at = places[:, None] * HEAD_DIM + dims
            v_at = k_at
        else:
            places = (kv_start + tokens).to(tl.int64)[:, None]
            k_at = places * key_stride + head * HEAD_DIM + dims
            v_at = places * value_stride + head * HEAD_DIM + dims
        mask = dims < HEAD_DIM
        if MASK:
            mask = mask & written[:, None]
        k = tl.load(key + k_at, mask=mask, other=0.0)
        v = tl.load(value + v_at, mask=mask, other=0.0)
        visible = tokens[None, :] <= positions[:, None]
        if WINDOW > 0:
            visible = visible & (tokens[None, :] > positions[:, None] - WINDOW)
        m, denom, accs = add_tile(q, k, (v,), m, denom, (acc,), visible, scale, SOFT_CAP, MASK)
        acc = accs[0]
    return m, denom, acc


@triton.jit
def _locate(
    query_starts, first_seq, num_seqs, block, TOKENS: tl.constexpr, BLOCK_SEQS: tl.constexpr
):
    # Which sequence the block falls in, and its first token there; -1 behind the last.
    ids = tl.arange(0, BLOCK_SEQS)
    live = ids < num_seqs - first_seq
    starts = tl.load(query_starts + first_seq + ids, mask=live, other=0)
    stops = tl.load(query_starts + first_seq + ids + 1, mask=live, other=0)
    blocks = tl.cdiv(stops - starts, TOKENS)
    ends = tl.cumsum(blocks, 0)
    index = tl.sum((ends <= block).to(tl.int32), 0)
    # The last block of a sequence has the most keys to see: it goes first.
    first_token = (tl.sum(tl.where(ids == index, ends, 0), 0) - 1 - block) * TOKENS
    seq = tl.where(block < tl.sum(blocks, 0), first_seq + index, -1)
    return seq, first_token


# One variant serves whatever the sizes of the step and the offsets of its index tensors are.
@quick
@triton.jit(
    do_not_specialize=[
        "first_seq",
        "num_seqs",
        "num_blocks",
        "head_step",
        "block_step",
        "table_stride",
    ],
    do_not_specialize_on_alignment=["rows", "query_starts", "seq_lens", "block_table", "scales"],
)
def _prefill_kernel(
    q,
    key,
    value,
    scales,
    sinks,
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
    key_stride,
    value_stride,
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
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    STAGES: tl.constexpr,
):
    TOKENS: tl.constexpr = BLOCK_M // GROUP
    head = tl.program_id(0) // head_step % NUM_KV_HEADS
    block = tl.program_id(0) // block_step % num_blocks
    seq, first_token = _locate(query_starts, first_seq, num_seqs, block, TOKENS, BLOCK_SEQS)
    if seq < 0:
        return
    query_start = tl.load(query_starts + seq)
    query_len = tl.load(query_starts + seq + 1) - query_start
    seq_len = tl.load(seq_lens + seq)
    prefix = seq_len - query_len
    table = block_table + tl.load(rows + seq).to(tl.int64) * table_stride
    row = tl.arange(0, BLOCK_M)
    token = first_token + row // GROUP
    positions = prefix + token
    dims = tl.arange(0, BLOCK_D)[None, :]
    live = (token < query_len) & (row < TOKENS * GROUP)
    mask = live[:, None] & (dims < HEAD_DIM)
    query_head = head * GROUP + row % GROUP
    where = query_head[:, None] * HEAD_DIM + dims
    flat = (query_start + token).to(tl.int64)[:, None]
    queries = as_factor(tl.load(q + flat * q_stride + where, mask=mask, other=0.0), key)
    scale *= load_scale(scales, key)
    m, denom = before_any_key(sinks, query_head, live, HAS_SINKS)
    acc = tl.zeros((BLOCK_M, BLOCK_D), tl.float32)
    stop = prefix + tl.minimum(first_token + TOKENS, query_len)
    if WINDOW > 0:
        start = tl.maximum(prefix + first_token - WINDOW + 1, 0) // BLOCK_N * BLOCK_N
    else:
        # Tiles that every row sees whole need no mask.
        start = (prefix + first_token + 1) // BLOCK_N * BLOCK_N
        m, denom, acc = _attend_tiles(
            queries,
            key,
            value,
            table,
            query_start,
            key_stride,
            value_stride,
            head,
            positions,
            0,
            start,
            m,
            denom,
            acc,
            scale,
            NUM_KV_HEADS,
            HEAD_DIM,
            BLOCK_SIZE,
            WINDOW,
            SOFT_CAP,
            BLOCK_N,
            BLOCK_D,
            STAGES,
            False,
        )
    m, denom, acc = _attend_tiles(
        queries,
        key,
        value,
        table,
        query_start,
        key_stride,
        value_stride,
        head,
        positions,
        start,
        stop,
        m,
        denom,
        acc,
        scale,
        NUM_KV_HEADS,
        HEAD_DIM,
        BLOCK_SIZE,
        WINDOW,
        SOFT_CAP,
        BLOCK_N,
        BLOCK_D,
        STAGES if WINDOW > 0 else 1,
        True,
    )
    acc *= load_scale(scales + 1, key)
    result = (acc / denom[:, None]).to(out.dtype.element_ty)
    tl.store(out + flat * (NUM_KV_HEADS * GROUP * HEAD_DIM) + where, result, mask=mask)


@dataclass(frozen=True, slots=True)
class PrefillConfig:
    """Query rows and keys of a tile, warps a program, pipeline stages."""

    block_m: int
    block_n: int
    warps: int
    stages: int


def prefill_config(
    head_dim: int,
    itemsize: int,
    max_query_len: int,
    *,
    eight_bit: bool,
    room: int,
) -> PrefillConfig:
    """Where a program may have ``room`` bytes of shared memory. What measured best on an H200 at
    head_dim 128; wide heads and float32 take smaller tiles, keys of 8 bits large ones, so that each
    is converted less often."""
    row_bytes = power_of_2(head_dim) * itemsize
    if room < LARGE_ROOM and row_bytes > 256:
        # Not measured.
        if itemsize > 2:
            return PrefillConfig(16, 16, 4, 2) if row_bytes > 512 else PrefillConfig(32, 32, 4, 2)
        return PrefillConfig(64, 32, 4, 2)
    if itemsize > 2:
        return PrefillConfig(32, 32, 4, 2) if row_bytes > 512 else PrefillConfig(64, 32, 4, 2)
    if row_bytes > 256:
        return PrefillConfig(128, 64, 8, 2)
    if max_query_len >= (128 if eight_bit else 16384) and room >= LARGE_ROOM:
        return PrefillConfig(128, 128, 8, 3)
    return PrefillConfig(64, 64, 4, 3)


def prefill_attention(
    q: Tensor,
    key: Tensor,
    value: Tensor,
    rows: Tensor,
    query_starts: Tensor,
    seq_lens: Tensor,
    block_table: Tensor,
    out: Tensor,
    *,
    first_seq: int,
    num_seqs: int,
    num_tokens: int,
    max_query_len: int,
    num_kv_heads: int,
    paged: bool,
    scale: float,
    scales: Tensor | None = None,
    sinks: Tensor | None = None,
    sliding_window: int | None = None,
    soft_cap: float | None = None,
    config: PrefillConfig | None = None,
) -> None:
    """Sequences ``first_seq .. num_seqs`` of the batch, at most ``num_tokens`` tokens: q [T, H, D]
    into out [T, H, D], both of the whole batch.

    Where ``paged``, key and value are pages [N, K, block_size, D]; else the step's own k and v
    [T, K, D] (rows may be strided), and no sequence has a prefix. ``scales`` float32 [2]: of 8-bit
    pages. ``sinks`` float32 [H]: a score each head has beside those of keys; its value is zero.
    """
    _, num_heads, head_dim = q.shape
    group = num_heads // num_kv_heads
    if config is None:
        eight_bit = key.element_size() == 1
        config = prefill_config(
            head_dim,
            q.element_size(),
            max_query_len,
            eight_bit=eight_bit,
            room=shared_bytes(q.device),
        )
    block_m = max(config.block_m, power_of_2(group))
    num_prefills = num_seqs - first_seq
    blocks = cdiv(num_tokens, block_m // group) + num_prefills - 1
    # Neighbouring programs share a block of queries in a small step, a head's keys in a large one.
    head_step, block_step = (1, num_kv_heads) if num_tokens <= 2048 else (blocks, 1)
    _prefill_kernel[(blocks * num_kv_heads,)](
        q,
        key,
        value,
        q if scales is None else scales,
        q if sinks is None else sinks,
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
        key.stride(0),
        value.stride(0),
        block_table.stride(0),
        scale * 1.4426950408889634,
        NUM_KV_HEADS=num_kv_heads,
        GROUP=group,
        HEAD_DIM=head_dim,
        BLOCK_SIZE=key.shape[2] if paged else 0,
        WINDOW=sliding_window or 0,
        SOFT_CAP=soft_cap or 0.0,
        HAS_SINKS=sinks is not None,
        BLOCK_SEQS=16 if num_prefills <= 16 else max(256, power_of_2(num_prefills)),
        BLOCK_M=block_m,
        BLOCK_N=config.block_n,
        BLOCK_D=power_of_2(head_dim),
        STAGES=config.stages,
        num_warps=config.warps,
    )
