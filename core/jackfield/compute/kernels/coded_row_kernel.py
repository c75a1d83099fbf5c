"""One row times a weight of codes as Hopper wants it: the codes are on their way before the row is.

A program multiplies STRIPS strips of 16 outputs. It requests its codes, all of them or as many as
its share of shared memory holds, while the kernel before it still runs, and waits for the row then:
that hides most of what a kernel of a few microseconds waits for. Each thread copies the 16 bytes
that it will multiply itself, in the order of ``coded_layout``; warps share out the inputs. Codes of
8 bits, which are sooner float16 than bfloat16, are multiplied so, and the row is scaled to fit.
Written in Gluon; the interpreter does not run it, so that it is checked on a GPU only.
"""

from __future__ import annotations

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import async_copy, mma_v2
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait
from triton.runtime.jit import constexpr_function

from jackfield.compute.kernels.code_numbers import numbers_of
from jackfield.compute.kernels.launch import quick


@constexpr_function
def _inputs_layout(bits: int, blocks: int, warps: int) -> gl.DistributedLinearLayout:
    """Which inputs of a step [blocks, 64] a thread multiplies its codes with."""
    registers, lanes = ([1, 2, 4, 32], [8, 16]) if bits == 4 else ([1, 2, 4, 8], [16, 32])
    return gl.DistributedLinearLayout(
        reg_bases=[[0, k] for k in registers] + [[b, 0] for b in (warps, 2 * warps) if b < blocks],
        lane_bases=[[0, k] for k in lanes] + [[0, 0]] * 3,
        warp_bases=[[b, 0] for b in (1, 2, 4, 8) if b < warps],
        block_bases=[],
        shape=[blocks, 64],
    )


@constexpr_function
def _parts_layout(outputs: int, warps: int) -> gl.DistributedLinearLayout:
    """Who adds [warps, outputs, 4]: a lane what one output of each strip has."""
    strips = [[0, n, 0] for n in (16, 32) if n < outputs]
    return gl.DistributedLinearLayout(
        reg_bases=[[0, 0, 1], [0, 0, 2], *strips, *([w, 0, 0] for w in (1, 2, 4, 8) if w < warps)],
        lane_bases=[[0, 1, 0], [0, 2, 0], [0, 4, 0], [0, 8, 0], [0, 0, 0]],
        warp_bases=[[0, 0, 0] for w in (1, 2, 4, 8) if w < warps],
        block_bases=[],
        shape=[warps, outputs, 4],
    )


@constexpr_function
def _outputs_layout(outputs: int, warps: int) -> gl.DistributedLinearLayout:
    """Who has the sums [outputs] then: every warp."""
    return gl.DistributedLinearLayout(
        reg_bases=[[n] for n in (16, 32) if n < outputs],
        lane_bases=[[1], [2], [4], [8], [0]],
        warp_bases=[[0] for w in (1, 2, 4, 8) if w < warps],
        block_bases=[],
        shape=[outputs],
    )


@gluon.jit
def _operand(numbers, BITS: gl.constexpr, A: gl.constexpr):
    # Numbers as they were loaded to the weight's side of a product.
    B: gl.constexpr = numbers.shape[0]
    S: gl.constexpr = numbers.shape[1]
    if BITS == 4:
        # [blocks, strips, 1, 8, 4, 2 (k + 2), 2 (row + 8), 2 (k + 1)].
        f = numbers.reshape([B, S, 8, 4, 2, 2, 2]).permute([0, 1, 5, 2, 4, 3, 6])
        return gl.convert_layout(f.reshape([B, S * 16, 16]), A, assert_trivial=True)
    else:
        # [blocks, strips, 2 (row + 8), 8, 4, 2 (k + 8), 2 (k + 4), 2 (k + 2)].
        f = numbers.reshape([B, S, 2, 8, 4, 2, 2, 2]).permute([0, 1, 2, 3, 5, 6, 4, 7])
        return gl.convert_layout(f.reshape([B, S * 16, 32]), A, assert_trivial=True)


@gluon.jit
def _column(inputs, X: gl.constexpr):
    # [blocks, k] to the other side: the same in all of 8 columns.
    B: gl.constexpr = inputs.shape[0]
    K: gl.constexpr = inputs.shape[1]
    column = gl.convert_layout(inputs, gl.SliceLayout(2, X), assert_trivial=True)
    return gl.expand_dims(column, 2).broadcast_to([B, K, 8])


@gluon.jit
def _columns(inputs, BITS: gl.constexpr, PAIRS: gl.constexpr, X: gl.constexpr):
    # A step's inputs [blocks, 64] as what codes of the same places are multiplied with.
    B: gl.constexpr = inputs.shape[0]
    if BITS == 4:
        # [blocks, 2 (k + 32), 4, 2 (k + 4), 2 (k + 2), 2 (k + 1)].
        f = inputs.reshape([B, 2, 4, 2, 2, 2]).permute([0, 4, 2, 5, 3, 1])
        first, second = f.reshape([B, 16, 2, 2]).split()
        a, b = first.split()
        c, d = second.split()
        return _column(a, X), _column(b, X), _column(c, X), _column(d, X)
    else:
        # [blocks, 4, 2 (k + 8), 2 (k + 4), 2 (k + 2), 2 (k + 1)]; PAIRS: words' codes lie together.
        f = inputs.reshape([B, 4, 2, 2, 2, 2])
        f = f.permute([0, 2, 3, 1, 5, 4]) if PAIRS else f.permute([0, 2, 3, 1, 4, 5])
        a, b = f.reshape([B, 32, 2]).split()
        return _column(a, X), _column(b, X)


@gluon.jit
def _add_products(operands, columns, acc, first: gl.constexpr, stop: gl.constexpr):
    for i in gl.static_range(first, stop):
        acc = mma_v2(operands[i], columns[i], acc)
    return acc


@gluon.jit
def _operands(words, like, ASM: gl.constexpr, BITS: gl.constexpr, A: gl.constexpr):
    # Codes [blocks, strips, parts, 32 lanes, 8] as numbers.
    n = numbers_of(words, (), (), like, None, ASM, BITS, 0)
    if BITS == 4:
        return (
            _operand(n[0], BITS, A),
            _operand(n[1], BITS, A),
            _operand(n[2], BITS, A),
            _operand(n[3], BITS, A),
        )
    else:
        return _operand(n[0], BITS, A), _operand(n[1], BITS, A)


@gluon.jit
def _add_scaled(acc, operands, columns, factors, terms, HAS_SHIFTS: gl.constexpr):
    # Products of each group times its scale, and its inputs' sum times its shift.
    # factors, terms: [blocks, strips, 2 halves of a block or 1, 8, 2 (row + 8)].
    ACC: gl.constexpr = acc.type.layout
    H: gl.constexpr = factors.shape[2]
    COUNT: gl.constexpr = len(columns)
    HALF: gl.constexpr = COUNT // H
    none = gl.zeros(acc.shape, gl.float32, ACC)
    own = _by_half(factors)
    for h in gl.static_range(H):
        some = _add_products(operands, columns, none, h * HALF, h * HALF + HALF)
        acc += _scaled(some, own[h], ACC)
    if HAS_SHIFTS:
        shifts = _by_half(terms)
        one = gl.full(operands[0].shape, 1.0, operands[0].dtype, operands[0].type.layout)
        for h in gl.static_range(H):
            sums = none
            for i in gl.static_range(h * HALF, h * HALF + HALF):
                sums = mma_v2(one, columns[i], sums)
            acc += _scaled(sums, shifts[h], ACC)
    return acc


@gluon.jit
def _by_half(values):
    B: gl.constexpr = values.shape[0]
    S: gl.constexpr = values.shape[1]
    if values.shape[2] == 2:
        return values.permute([0, 1, 3, 4, 2]).split()
    else:
        return (values.reshape([B, S, 8, 2]),)


@gluon.jit
def _scaled(acc, values, ACC: gl.constexpr):
    # Accumulators times scales [blocks, strips, 8, 2 (row + 8)].
    B: gl.constexpr = values.shape[0]
    S: gl.constexpr = values.shape[1]
    f = values.to(gl.float32).permute([0, 1, 3, 2]).reshape([B, S * 16])
    f = gl.convert_layout(f, gl.SliceLayout(2, ACC), assert_trivial=True)
    return acc * gl.expand_dims(f, 2)


@gluon.jit
def _strips(tile, num_strips, STRIPS: gl.constexpr, GATED: gl.constexpr):
    # A program's strips; GATED: of the first half and the second.
    place = gl.arange(0, STRIPS)
    if GATED:
        return tile + place * (num_strips // 2)
    else:
        return gl.minimum(tile * STRIPS + place, num_strips - 1)


@gluon.jit
def _codes_at(words, strip, num_blocks, BITS: gl.constexpr, CODES: gl.constexpr, B: gl.constexpr):
    # Where a step's codes are [blocks, strips, parts, 32 lanes, 8 words of 2 bytes].
    P: gl.constexpr = CODES.size_per_thread[2]
    block = gl.arange(0, B)[:, None, None, None, None]
    part = gl.arange(0, P)[None, None, :, None, None]
    lane = gl.arange(0, 32)[None, None, None, :, None]
    word = gl.arange(0, 8)[None, None, None, None, :]
    strip = strip.to(gl.int64)[None, :, None, None, None]
    if BITS == 4:
        place = strip * num_blocks * 256 + (block * 256 + part * 0 + lane * 8 + word)
    else:
        row = strip * 16 + part * 8 + lane // 4
        place = row * (num_blocks * 32) + (block * 32 + lane % 4 * 8 + word)
    return gl.set_auto_layout(words + place, CODES)


@gluon.jit
def _scales_at(scales, strip, num_groups, FACTORS: gl.constexpr):
    # Where the first groups' scales are [1, strips, 1, 8, 2 (row + 8)].
    pair = gl.arange(0, 8)[None, None, None, :, None] * 2
    pair += gl.arange(0, 2)[None, None, None, None, :]
    place = (strip * num_groups)[None, :, None, None, None] * 16 + pair
    return gl.set_auto_layout(scales + place, FACTORS)


@gluon.jit
def _request(source, tiles, step, stage, num_blocks, num_groups, shape: gl.constexpr):
    # Copies a step's codes, scales and shifts; codes behind the last block become 0.
    codes, factors, terms = source
    code_tiles, factor_tiles, term_tiles = tiles
    BITS: gl.constexpr = shape[0]
    GROUP: gl.constexpr = shape[1]
    HAS_SHIFTS: gl.constexpr = shape[2]
    EVEN: gl.constexpr = shape[3]
    CODES: gl.constexpr = codes.type.layout
    FACTORS: gl.constexpr = factors.type.layout
    B: gl.constexpr = code_tiles.shape[1]
    at = codes + step * (B * (256 if BITS == 4 else 32))
    if EVEN:
        async_copy.async_copy_global_to_shared(code_tiles.index(stage), at)
    else:
        block = gl.set_auto_layout(gl.arange(0, B)[:, None, None, None, None], CODES)
        inside = step * B + block < num_blocks
        async_copy.async_copy_global_to_shared(code_tiles.index(stage), at, mask=inside)
    if GROUP > 0:
        k = (step * B + gl.arange(0, B)[:, None, None, None, None]) * 64
        k += gl.arange(0, factor_tiles.shape[3])[None, None, :, None, None] * 32
        group = gl.set_auto_layout(gl.minimum(k // GROUP, num_groups - 1) * 16, FACTORS)
        async_copy.async_copy_global_to_shared(factor_tiles.index(stage), factors + group)
        if HAS_SHIFTS:
            async_copy.async_copy_global_to_shared(term_tiles.index(stage), terms + group)
    async_copy.commit_group()


@gluon.jit
def _fetch_row(x, x_tiles, K, LINE: gl.constexpr, EVEN: gl.constexpr):
    # The row to shared memory: all of it is on the way before the first part is stored. Parts are
    # as large as they can be: each store waits for all warps. Returns what undoes the row's scale.
    STEPS: gl.constexpr = x_tiles.shape[0]
    PART: gl.constexpr = STEPS & -STEPS
    BLOCKS: gl.constexpr = PART * x_tiles.shape[1]
    places = x_tiles._reinterpret(x_tiles.dtype, [STEPS // PART, BLOCKS, 64], x_tiles.layout)
    k = gl.arange(0, BLOCKS, layout=gl.SliceLayout(1, LINE))[:, None] * 64
    k += gl.arange(0, 64, layout=gl.SliceLayout(0, LINE))[None, :]
    row = ()
    for part in gl.static_range(STEPS // PART):
        first = part * BLOCKS * 64
        if EVEN:
            inputs = gl.load(x + (first + k))
        else:
            inputs = gl.load(x + (first + k), mask=first + k < K, other=0.0)
        row += (inputs,)  # type: ignore[assignment]
    if x_tiles.dtype == x.dtype.element_ty:
        for part in gl.static_range(STEPS // PART):
            places.index(part).store(row[part])
        return 1.0
    else:
        factor, unit = _room_in_float16(row)
        for part in gl.static_range(STEPS // PART):
            places.index(part).store((row[part].to(gl.float32) * factor).to(gl.float16))
        return unit


@gluon.jit
def _room_in_float16(row):
    # A power of two that makes a row of bfloat16 fit, exactly but for numbers 2 ** 28 times smaller
    # than the largest, and what undoes it.
    largest = gl.abs(row[0].to(gl.float32))
    for part in gl.static_range(1, len(row)):
        largest = gl.maximum(largest, gl.abs(row[part].to(gl.float32)))
    bits = gl.max(gl.max(largest, 1), 0).to(gl.int32, bitcast=True)
    exponent = gl.minimum(127 + 14 - ((bits >> 23) - 127), 127 + 100)
    factor, unit = exponent << 23, (254 - exponent) << 23
    return factor.to(gl.float32, bitcast=True), unit.to(gl.float32, bitcast=True)


@gluon.jit
def _multiply(
    source,
    tiles,
    x_tiles,
    num_blocks,
    num_groups,
    shape: gl.constexpr,
    ASM: gl.constexpr,
    PAIRS: gl.constexpr,
    ACC: gl.constexpr,
):
    # Sums [outputs], in every warp.
    code_tiles, factor_tiles, term_tiles = tiles
    BITS: gl.constexpr = shape[0]
    GROUP: gl.constexpr = shape[1]
    HAS_SHIFTS: gl.constexpr = shape[2]
    STAGES: gl.constexpr = code_tiles.shape[0]
    B: gl.constexpr = code_tiles.shape[1]
    STEPS: gl.constexpr = x_tiles.shape[0]
    INPUTS: gl.constexpr = _inputs_layout(BITS, B, gl.num_warps())
    A: gl.constexpr = gl.DotOperandLayout(0, ACC, 2)
    X: gl.constexpr = gl.DotOperandLayout(1, ACC, 2)
    acc = gl.zeros((B, code_tiles.shape[2] * 16, 8), gl.float32, ACC)
    if STAGES == STEPS:
        async_copy.wait_group(0)
    for s in range(STEPS):
        if STAGES < STEPS:
            async_copy.wait_group(STAGES - 1)
        stage = s % STAGES
        codes = code_tiles.index(stage).load(source[0].type.layout)
        inputs = x_tiles.index(s).load(INPUTS)
        operands = _operands(codes, inputs, ASM, BITS, A)
        columns = _columns(inputs, BITS, PAIRS, X)
        if GROUP > 0:
            factors = factor_tiles.index(stage).load(source[1].type.layout)
            terms = term_tiles.index(stage).load(source[1].type.layout)
            acc = _add_scaled(acc, operands, columns, factors, terms, HAS_SHIFTS)
        else:
            acc = _add_products(operands, columns, acc, 0, len(columns))
        if STAGES < STEPS:
            if s + STAGES < STEPS:
                _request(source, tiles, s + STAGES, stage, num_blocks, num_groups, shape)
            else:
                async_copy.commit_group()
    return _sum_of_warps(acc)


@gluon.jit
def _sum_of_warps(acc):
    # [blocks of a step, outputs, 8 columns, all the same] to [outputs]: every warp has it then.
    W: gl.constexpr = gl.num_warps()
    U: gl.constexpr = acc.shape[0] // W
    N: gl.constexpr = acc.shape[1]
    acc = gl.sum(acc.reshape([U, W, N, 8]), 0)
    own, _ = acc.reshape([W, N, 4, 2]).split()
    LINE: gl.constexpr = gl.SwizzledSharedLayout(1, 1, 1, [2, 1, 0])
    sums = gl.allocate_shared_memory(gl.float32, [W, N, 4], LINE)
    sums.store(own)
    parts = gl.sum(sums.load(_parts_layout(N, W)), 0)
    first, _ = parts.reshape([N, 2, 2]).split()
    first, _ = first.split()
    return gl.convert_layout(first, _outputs_layout(N, W), assert_trivial=True)


@gluon.jit
def _store_gated(out, tile, y):
    # SiLU of the first 16 outputs times the other 16.
    gate, up = y.reshape([2, 16]).permute([1, 0]).split()
    y = gate / (1.0 + gl.exp(-gate)) * up
    n = tile * 16 + gl.arange(0, 16, layout=y.type.layout)
    gl.store(out + n, y.to(out.dtype.element_ty))


@quick
@gluon.jit(do_not_specialize=["num_squares"])
def coded_row_kernel(
    x,
    words,
    scales,
    shifts,
    row_scales,
    bias,
    squares,
    residual,
    norm_weight,
    out,
    squares_out,
    N,
    K,
    num_strips,
    num_blocks,
    num_groups,
    num_squares,
    eps,
    ASM: gl.constexpr,
    PAIRS: gl.constexpr,
    BITS: gl.constexpr,
    GROUP: gl.constexpr,
    HAS_SHIFTS: gl.constexpr,
    HAS_BIAS: gl.constexpr,
    GATED: gl.constexpr,
    ADDS: gl.constexpr,
    MAX_SQUARES: gl.constexpr,
    EVEN: gl.constexpr,
    STRIPS: gl.constexpr,
    UNROLL: gl.constexpr,
    STEPS: gl.constexpr,
    STAGES: gl.constexpr,
    W: gl.constexpr,
):
    """What ``coded_row`` launches; a program makes STRIPS strips of outputs.

    A step is UNROLL blocks of 64 inputs for each of W warps; STAGES steps are there at once.
    ASM makes float16 of 8 bits, of 4 what x is. PAIRS: it is ``PAIRS_OF_E4M3``. MAX_SQUARES, if not
    0: x is divided by its rms, which num_squares sums say. GATED: SiLU of the first half of the
    outputs times the second. ADDS: the residual, which keeps the sum; out is that times the norm's
    weight.
    """
    B: gl.constexpr = UNROLL * W
    P: gl.constexpr = 1 if BITS == 4 else 2
    ACC: gl.constexpr = gl.NVMMADistributedLayout([2, 0], [W, 1, 1], [1, 16, 8])
    CODES: gl.constexpr = gl.BlockedLayout(
        [1, STRIPS, P, 1, 8], [1, 1, 1, 32, 1], [W, 1, 1, 1, 1], [4, 3, 2, 1, 0]
    )
    H: gl.constexpr = 2 if GROUP == 32 else 1
    FACTORS: gl.constexpr = gl.BlockedLayout(
        [1, STRIPS, H, 1, 2], [1, 1, 1, 8, 4], [W, 1, 1, 1, 1], [4, 3, 2, 1, 0]
    )
    LINE: gl.constexpr = gl.BlockedLayout([1, 8], [4, 8], [W, 1], [1, 0])
    gdc_launch_dependents()
    code_tiles = gl.allocate_shared_memory(
        gl.int16,
        [STAGES, B, STRIPS, P, 32, 8],
        gl.SwizzledSharedLayout(1, 1, 1, [4, 3, 2, 1, 0]),
    )
    FACTOR_TILE: gl.constexpr = gl.SwizzledSharedLayout(1, 1, 1, [4, 3, 2, 1, 0])
    factor_tiles = gl.allocate_shared_memory(gl.float16, [STAGES, B, STRIPS, H, 8, 2], FACTOR_TILE)
    term_tiles = factor_tiles
    if HAS_SHIFTS:
        term_tiles = gl.allocate_shared_memory(
            gl.float16, [STAGES, B, STRIPS, H, 8, 2], FACTOR_TILE
        )
    x_tiles = gl.allocate_shared_memory(
        gl.float16 if BITS == 8 else x.dtype.element_ty,
        [STEPS, B, 64],
        gl.SwizzledSharedLayout(1, 1, 1, [1, 0]),
    )
    tile = gl.program_id(0)
    source = (
        _codes_at(words, _strips(tile, num_strips, STRIPS, GATED), num_blocks, BITS, CODES, B),
        _scales_at(scales, _strips(tile, num_strips, STRIPS, GATED), num_groups, FACTORS),
        _scales_at(shifts, _strips(tile, num_strips, STRIPS, GATED), num_groups, FACTORS),
    )
    tiles = (code_tiles, factor_tiles, term_tiles)
    shape: gl.constexpr = (BITS, GROUP, HAS_SHIFTS, EVEN)
    # The weight is nobody's output: as much of it as there is room for comes before x is there.
    for s in gl.static_range(STAGES):
        _request(source, tiles, s, s, num_blocks, num_groups, shape)
    row = gl.arange(0, STRIPS * 16, layout=_outputs_layout(STRIPS * 16, W))
    n = tile * 16 + row % 16 + row // 16 * (N // 2) if GATED else tile * (STRIPS * 16) + row
    factor = gl.load(row_scales + n, mask=n < N, other=0.0)
    if ADDS:
        gamma = gl.load(norm_weight + n, mask=n < N, other=0.0).to(gl.float32)
    gdc_wait()
    if ADDS:
        before = gl.load(residual + n, mask=n < N, other=0.0).to(gl.float32)
    if MAX_SQUARES > 0:
        p = gl.arange(0, MAX_SQUARES, layout=gl.BlockedLayout([1], [32], [W], [0]))
        sums = gl.load(squares + p, mask=p < num_squares, other=0.0)
    factor *= _fetch_row(x, x_tiles, K, LINE, EVEN)
    y = _multiply(source, tiles, x_tiles, num_blocks, num_groups, shape, ASM, PAIRS, ACC) * factor
    if MAX_SQUARES > 0:
        y *= gl.rsqrt(gl.sum(sums, 0) / K + eps)
    if HAS_BIAS:
        y += gl.load(bias + n, mask=n < N, other=0.0).to(gl.float32)
    if GATED:
        _store_gated(out, tile, y)
    elif ADDS:
        # The sum is rounded before the norm, so that the norm sees what the next layer sees.
        rounded = (y + before).to(residual.dtype.element_ty)
        gl.store(residual + n, rounded, mask=n < N)
        y = gl.where(n < N, rounded.to(gl.float32), 0.0)
        gl.store(squares_out + tile, gl.sum(y * y, 0))
        gl.store(out + n, (y * gamma).to(out.dtype.element_ty), mask=n < N)
    else:
        gl.store(out + n, y.to(out.dtype.element_ty), mask=n < N)
