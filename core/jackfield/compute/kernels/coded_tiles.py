"""Some outputs of a coded weight times some rows: what a program of the kernels for codes computes.

The tensor cores take a weight as fragments: lane l of 32 has, of 16 outputs and 16 inputs, outputs
l / 4 and l / 4 + 8. Codes are stored so (``coded_layout``) that a lane loads 16 bytes, turns them
into numbers in its registers, and multiplies; nothing goes through shared memory. Rows of x are
loaded as fragments too. The shapes of tensors here follow from that: the order of dimensions
decides which of them the compiler gives to lanes and warps, the last one first, then from the
front. W warps, each with STRIPS strips of 16 outputs, UNROLL blocks of 64 inputs a step and
EIGHTS times 8 rows.
"""

from __future__ import annotations

import triton
import triton.language as tl

from jackfield.compute.kernels.code_numbers import numbers_of


@triton.jit
def _weight_of_4_bits(numbers, STRIPS: tl.constexpr, UNROLL: tl.constexpr, W: tl.constexpr):
    # [warps, strips, blocks, 8, 4, 2 (k + 2), 2 (row + 8), 2 (k + 1)] to [warps, rows, k].
    f = numbers.reshape(W, STRIPS, UNROLL, 8, 4, 2, 2, 2)
    return f.permute(0, 1, 6, 3, 2, 5, 4, 7).reshape(W, STRIPS * 16, UNROLL * 16)


@triton.jit
def _weight_of_8_bits(numbers, STRIPS: tl.constexpr, UNROLL: tl.constexpr, W: tl.constexpr):
    # [8, warps, strips, blocks, 2 (row + 8), 4, 2 (k + 8), 2 (k + 4), 2 (k + 2)].
    f = numbers.reshape(8, W, STRIPS, UNROLL, 2, 4, 2, 2, 2)
    return f.permute(1, 2, 4, 0, 3, 6, 7, 5, 8).reshape(W, STRIPS * 16, UNROLL * 32)


@triton.jit
def _rows_for_4_bits(x, UNROLL: tl.constexpr, EIGHTS: tl.constexpr, W: tl.constexpr):
    # [4, 8, warps, blocks, eights, 2 (k + 32), 2 (k + 4), 2 (k + 2), 2 (k + 1)] to four of
    # [warps, k, rows].
    f = x.reshape(4, 8, W, UNROLL, EIGHTS, 2, 2, 2, 2).permute(2, 3, 7, 0, 8, 4, 1, 6, 5)
    first, second = f.reshape(W, UNROLL * 16, EIGHTS * 8, 2, 2).split()
    a, b = first.split()
    c, d = second.split()
    return a, b, c, d


@triton.jit
def _rows_for_8_bits(x, UNROLL: tl.constexpr, EIGHTS: tl.constexpr, W: tl.constexpr):
    # [4, 8, warps, blocks, eights, 2 (k + 8), 2 (k + 4), 2 (k + 2), 2 (k + 1)] to two.
    f = x.reshape(4, 8, W, UNROLL, EIGHTS, 2, 2, 2, 2).permute(2, 3, 5, 6, 0, 7, 4, 1, 8)
    return f.reshape(W, UNROLL * 32, EIGHTS * 8, 2).split()


@triton.jit
def _dot(numbers, x, sums, BITS: tl.constexpr, S: tl.constexpr, U: tl.constexpr, W: tl.constexpr):
    # Two chains of products at a time: each waits for the one before it.
    others = tl.zeros_like(sums)
    if BITS == 4:
        sums = tl.dot(_weight_of_4_bits(numbers[0], S, U, W), x[0], sums)
        others = tl.dot(_weight_of_4_bits(numbers[1], S, U, W), x[1], others)
        sums = tl.dot(_weight_of_4_bits(numbers[2], S, U, W), x[2], sums)
        others = tl.dot(_weight_of_4_bits(numbers[3], S, U, W), x[3], others)
    else:
        sums = tl.dot(_weight_of_8_bits(numbers[0], S, U, W), x[0], sums)
        others = tl.dot(_weight_of_8_bits(numbers[1], S, U, W), x[1], others)
    return sums + others


@triton.jit
def _sum_of_inputs(x, sums, like, BITS: tl.constexpr):
    ones = tl.full((sums.shape[0], sums.shape[1], x[0].shape[1]), 1.0, like.dtype)
    sums = tl.dot(ones, x[0], sums)
    sums = tl.dot(ones, x[1], sums)
    if BITS == 4:
        sums = tl.dot(ones, x[2], sums)
        sums = tl.dot(ones, x[3], sums)
    return sums


@triton.jit
def _by_output(values, STRIPS: tl.constexpr, EIGHTS: tl.constexpr, W: tl.constexpr):
    # [32 lanes, warps, strips, 2 (row + 8)], the same in the 4 lanes of a row, to what multiplies
    # accumulators [warps, outputs, rows of x], where these lie.
    f = values.to(tl.float32).reshape(8, 4, W, STRIPS, 2).permute(2, 3, 4, 0, 1)
    f = f.reshape(W, STRIPS, 2, 8, 1, 4, 1).broadcast_to(W, STRIPS, 2, 8, EIGHTS, 4, 2)
    return f.reshape(W, STRIPS * 16, EIGHTS * 8)


@triton.jit
def _by_word(values, like, BITS: tl.constexpr, S: tl.constexpr, U: tl.constexpr, W: tl.constexpr):
    # [32 lanes, warps, strips, blocks, 2 (row + 8)] to what multiplies numbers where they lie.
    f = values.to(like.dtype).reshape(8, 4, W, S, U, 2)
    if BITS == 4:
        f = f.permute(2, 3, 4, 0, 1, 5).reshape(W, S, U, 8, 4, 1, 2, 1)
        return f.broadcast_to(W, S, U, 8, 4, 2, 2, 2).reshape(W, S, U, 128, 2)
    else:
        f = f.permute(0, 2, 3, 4, 5, 1).reshape(8, W, S, U, 2, 4, 1)
        return f.broadcast_to(8, W, S, U, 2, 4, 8).reshape(8, W, S, U, 2, 16, 2)


@triton.jit
def _scales_at(
    strip, first, block, num_groups, BITS: tl.constexpr, GROUP: tl.constexpr, SCALING: tl.constexpr
):
    # Which scales a lane needs for the blocks [warps, blocks], of which ``first`` [warps] are the
    # first, and which (of 4 bits and small groups) for what is 32 inputs behind.
    lane = tl.arange(0, 32)
    pair = (lane // 4)[:, None] * 2 + tl.arange(0, 2)[None, :]
    if SCALING > 0:
        group = (lane % 4 * (8 if BITS == 4 else 16) // GROUP)[:, None, None, None]
        group = group + block[None, :, None, :] * (64 // GROUP)
        own = (strip * num_groups)[None, :, :, None]
        pair = pair[:, None, None, None, :]
        a = (own + tl.minimum(group, num_groups - 1))[:, :, :, :, None] * 16 + pair
        group += 32 // GROUP
        b = (own + tl.minimum(group, num_groups - 1))[:, :, :, :, None] * 16 + pair
        return a, b
    else:
        group = tl.minimum(first * 64 // GROUP, num_groups - 1)[:, None]
        a = (strip * num_groups + group)[None, :, :, None] * 16 + pair[:, None, None, :]
        return a, a


@triton.jit
def _load_scales(
    scales,
    shifts,
    strip,
    first,
    block,
    num_groups,
    BITS: tl.constexpr,
    GROUP: tl.constexpr,
    SCALING: tl.constexpr,
    HAS_SHIFTS: tl.constexpr,
):
    # (scales, their second part, shifts, their second part); what is not needed is anything.
    if GROUP == 0:
        none = tl.zeros((1,), tl.float16)
        return none, none, none, none
    else:
        here, behind = _scales_at(strip, first, block, num_groups, BITS, GROUP, SCALING)
        a = tl.load(scales + here)
        b, c, d = a, a, a
        if SCALING > 0 and BITS == 4:
            b = tl.load(scales + behind)
        if HAS_SHIFTS:
            c = tl.load(shifts + here)
            d = c
            if SCALING > 0 and BITS == 4:
                d = tl.load(shifts + behind)
        return a, b, c, d


@triton.jit
def _words_at(words, strip, block, num_blocks, BITS: tl.constexpr):
    # Where the codes are, and the blocks that they are of.
    if BITS == 4:
        # [warps, strips, blocks, 256 words of 2 bytes].
        base = (strip.to(tl.int64) * num_blocks)[:, :, None] + block[:, None, :]
        return words + base[:, :, :, None] * 256 + tl.arange(0, 256), block[:, None, :, None]
    else:
        # [8, warps, strips, blocks, 2 (row + 8), 32 words].
        row = strip[None, :, :, None] * 16 + tl.arange(0, 2) * 8
        row = row + tl.arange(0, 8)[:, None, None, None]
        base = (row.to(tl.int64) * num_blocks)[:, :, :, None, :] + block[None, :, None, :, None]
        at = words + base[:, :, :, :, :, None] * 32 + tl.arange(0, 32)
        return at, block[None, :, None, :, None, None]


@triton.jit
def _inputs(block, BITS: tl.constexpr):
    # [4 of a row, 8 rows, warps, blocks, eights, 2 halves, 8]: which inputs of x a lane has.
    quarter = tl.arange(0, 4)[:, None, None]
    half = tl.arange(0, 2)[:, None]
    if BITS == 4:
        k = quarter * 8 + half * 32 + tl.arange(0, 8)
    else:
        k = quarter * 16 + half * 8 + tl.arange(0, 8)
    return k[:, None, None, None, None, :, :] + (block * 64)[None, None, :, :, None, None, None]


@triton.jit
def _numbers(
    words,
    factors,
    like,
    table,
    ASM: tl.constexpr,
    BITS: tl.constexpr,
    SCALING: tl.constexpr,
    S: tl.constexpr,
    U: tl.constexpr,
    W: tl.constexpr,
):
    early = (like, like)
    early_shifts = (like, like)
    if SCALING > 0:
        early = (
            _by_word(factors[0], like, BITS, S, U, W),
            _by_word(factors[1], like, BITS, S, U, W),
        )
    if SCALING == 2:
        early_shifts = (
            _by_word(factors[2], like, BITS, S, U, W),
            _by_word(factors[3], like, BITS, S, U, W),
        )
    if BITS == 4:
        words = words.reshape(W, S, U, 128, 2)
    else:
        words = words.reshape(8, W, S, U, 2, 16, 2)
    return numbers_of(words, early, early_shifts, like, table, ASM, BITS, SCALING)


@triton.jit
def _load_codes(
    weight,
    step,
    BITS: tl.constexpr,
    GROUP: tl.constexpr,
    SCALING: tl.constexpr,
    HAS_SHIFTS: tl.constexpr,
    EVEN: tl.constexpr,
):
    at, block_of, scales, shifts, strip, first, block, steps, num_blocks, num_groups = weight
    # A step's words, if there is such a step, and what they are multiplied by.
    U: tl.constexpr = block.shape[1]
    inside = step < steps
    if not EVEN:
        inside = inside & (block_of + step * U < num_blocks)
    words = tl.load(at + step * (U * (256 if BITS == 4 else 32)), mask=inside, other=0)
    factors = _load_scales(
        scales,
        shifts,
        strip,
        first + step * U,
        block + step * U,
        num_groups,
        BITS,
        GROUP,
        SCALING,
        HAS_SHIFTS,
    )
    return words, factors


@triton.jit
def _load_rows(at, k, live, step, steps, K, U: tl.constexpr, EVEN: tl.constexpr):
    inside = live & (step < steps)
    if not EVEN:
        inside = inside & (k + step * (U * 64) < K)
    return tl.load(at + step * (U * 64), mask=inside, other=0.0)


@triton.jit
def _add_products(
    acc,
    codes,
    x,
    like,
    table,
    ASM: tl.constexpr,
    BITS: tl.constexpr,
    GROUP: tl.constexpr,
    SCALING: tl.constexpr,
    HAS_SHIFTS: tl.constexpr,
    S: tl.constexpr,
    U: tl.constexpr,
):
    # Of one step.
    W: tl.constexpr = acc.shape[0]
    EIGHTS: tl.constexpr = acc.shape[2] // 8
    words, factors = codes
    n = _numbers(words, factors, like, table, ASM, BITS, SCALING, S, U, W)
    if BITS == 4:
        rows = _rows_for_4_bits(x, U, EIGHTS, W)
    else:
        rows = _rows_for_8_bits(x, U, EIGHTS, W)
    if GROUP == 0 or SCALING > 0:
        return _dot(n, rows, acc, BITS, S, U, W)
    else:
        none = tl.zeros_like(acc)
        acc += _dot(n, rows, none, BITS, S, U, W) * _by_output(factors[0], S, EIGHTS, W)
        if HAS_SHIFTS:
            sums = _sum_of_inputs(rows, none, like, BITS)
            acc += sums * _by_output(factors[2], S, EIGHTS, W)
        return acc


@triton.jit
def multiply_codes(
    x,
    rows,
    live,
    words,
    scales,
    shifts,
    table,
    strip,
    first,
    steps,
    K,
    num_blocks,
    num_groups,
    ASM: tl.constexpr,
    BITS: tl.constexpr,
    GROUP: tl.constexpr,
    SCALING: tl.constexpr,
    HAS_SHIFTS: tl.constexpr,
    EVEN: tl.constexpr,
    UNROLL: tl.constexpr,
    DEPTH: tl.constexpr,
    WAIT: tl.constexpr,
):
    """Sums float32 [W, STRIPS * 16, EIGHTS * 8], without the scales of whole rows.

    ``rows`` [8, EIGHTS]: which rows of x [.., K], where ``live``; ``strip`` [W, STRIPS]; ``first``
    [W], each warp's first block, and ``steps`` times UNROLL blocks from there. GROUP: inputs that
    share a scale, 0 where a whole row does. EVEN: all these blocks are there, and K inputs fill
    them. DEPTH: all is loaded 1 or 2 steps before it is needed; a load takes longer than a step.
    WAIT: what is waited for once the first codes are on their way."""
    W: tl.constexpr = strip.shape[0]
    S: tl.constexpr = strip.shape[1]
    block = first[:, None] + tl.arange(0, UNROLL)[None, :]
    at, block_of = _words_at(words, strip, block, num_blocks, BITS)
    weight = (at, block_of, scales, shifts, strip, first, block, steps, num_blocks, num_groups)
    k = _inputs(block, BITS)
    x_at = x + (rows.to(tl.int64) * K)[None, :, None, None, :, None, None] + k
    live = live[None, :, None, None, :, None, None]
    acc = tl.zeros((W, S * 16, rows.shape[1] * 8), tl.float32)
    like = tl.zeros((1,), x.dtype.element_ty)
    a = _load_codes(weight, 0, BITS, GROUP, SCALING, HAS_SHIFTS, EVEN)
    b = a
    if DEPTH == 2:
        b = _load_codes(weight, 1, BITS, GROUP, SCALING, HAS_SHIFTS, EVEN)
    if WAIT:
        tl.extra.cuda.gdc_wait()
    a_x = _load_rows(x_at, k, live, 0, steps, K, UNROLL, EVEN)
    b_x = a_x
    if DEPTH == 2:
        b_x = _load_rows(x_at, k, live, 1, steps, K, UNROLL, EVEN)
    for body in range(tl.cdiv(steps, DEPTH)):
        step = body * DEPTH + DEPTH
        next_a = _load_codes(weight, step, BITS, GROUP, SCALING, HAS_SHIFTS, EVEN)
        next_a_x = _load_rows(x_at, k, live, step, steps, K, UNROLL, EVEN)
        next_b = next_a
        next_b_x = next_a_x
        if DEPTH == 2:
            next_b = _load_codes(weight, step + 1, BITS, GROUP, SCALING, HAS_SHIFTS, EVEN)
            next_b_x = _load_rows(x_at, k, live, step + 1, steps, K, UNROLL, EVEN)
        acc = _add_products(
            acc, a, a_x, like, table, ASM, BITS, GROUP, SCALING, HAS_SHIFTS, S, UNROLL
        )
        if DEPTH == 2:
            acc = _add_products(
                acc, b, b_x, like, table, ASM, BITS, GROUP, SCALING, HAS_SHIFTS, S, UNROLL
            )
            b = next_b
            b_x = next_b_x
        a = next_a
        a_x = next_a_x
    return acc
