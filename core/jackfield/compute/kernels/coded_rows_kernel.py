"""Some rows times a weight of codes as Hopper wants it: numbers go from registers to wgmma.

A program multiplies W strips of 16 outputs, one a warp, with BLOCK_M rows. Its codes are on their
way before the rows are, each thread copies what it will multiply itself, and turns that into the
operand that the tensor cores take from registers. They take the other one from shared memory; rows
are stored there with their inputs in the order of the codes' ones. Written in Gluon; the
interpreter does not run it, so that it is checked on a GPU only.
"""

from __future__ import annotations

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    async_copy,
    fence_async_shared,
    warpgroup_mma,
    warpgroup_mma_wait,
)
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from jackfield.compute.kernels.code_numbers import numbers_of
from jackfield.compute.kernels.hopper_linear import _add_parts
from jackfield.compute.kernels.launch import quick


@gluon.jit
def _codes_at(words, first_strip, num_strips, num_blocks, BITS: gl.constexpr, CODES: gl.constexpr):
    # Where codes are [strips, blocks, parts, 32 lanes, 8 words of 2 bytes], of the first blocks.
    W: gl.constexpr = CODES.warps_per_cta[0]
    U: gl.constexpr = CODES.size_per_thread[1]
    P: gl.constexpr = CODES.size_per_thread[2]
    strip = gl.minimum(first_strip + gl.arange(0, W), num_strips - 1)
    strip = strip.to(gl.int64)[:, None, None, None, None]
    block = gl.arange(0, U)[None, :, None, None, None]
    part = gl.arange(0, P)[None, None, :, None, None]
    lane = gl.arange(0, 32)[None, None, None, :, None]
    word = gl.arange(0, 8)[None, None, None, None, :]
    if BITS == 4:
        place = strip * num_blocks * 256 + (block * 256 + part * 0 + lane * 8 + word)
    else:
        row = strip * 16 + part * 8 + lane // 4
        place = row * (num_blocks * 32) + (block * 32 + lane % 4 * 8 + word)
    return gl.set_auto_layout(words + place, CODES)


@gluon.jit
def _scales_at(scales, first_strip, num_strips, num_groups, FACTORS: gl.constexpr):
    # Where the first groups' scales are [strips, 1, 1, 1, 8, 2 (row + 8)].
    W: gl.constexpr = FACTORS.warps_per_cta[0]
    strip = gl.minimum(first_strip + gl.arange(0, W), num_strips - 1)
    own = (strip * num_groups)[:, None, None, None, None, None] * 16
    pair = gl.arange(0, 8)[None, None, None, None, :, None] * 2
    place = own + pair + gl.arange(0, 2)[None, None, None, None, None, :]
    return gl.set_auto_layout(scales + place, FACTORS)


@gluon.jit
def _request(
    source,
    tiles,
    block,
    stage,
    num_blocks,
    num_groups,
    BITS: gl.constexpr,
    GROUP: gl.constexpr,
    EVEN: gl.constexpr,
    HAS_SHIFTS: gl.constexpr,
):
    # Copies codes, scales and shifts of U blocks; codes behind the last block become 0.
    codes, factors, terms = source
    code_tiles, factor_tiles, term_tiles = tiles
    CODES: gl.constexpr = codes.type.layout
    FACTORS: gl.constexpr = factors.type.layout
    U: gl.constexpr = code_tiles.shape[2]
    at = codes + block * (256 if BITS == 4 else 32)
    if EVEN:
        async_copy.async_copy_global_to_shared(code_tiles.index(stage), at)
    else:
        own = gl.set_auto_layout(gl.arange(0, U)[None, :, None, None, None], CODES)
        async_copy.async_copy_global_to_shared(
            code_tiles.index(stage), at, mask=block + own < num_blocks
        )
    if GROUP > 0:
        H: gl.constexpr = factor_tiles.shape[3]
        Q: gl.constexpr = factor_tiles.shape[4]
        k = (block + gl.arange(0, U)[None, :, None, None, None, None]) * 64
        k += gl.arange(0, H)[None, None, :, None, None, None] * 32
        k += gl.arange(0, Q)[None, None, None, :, None, None] * 16
        group = gl.set_auto_layout(gl.minimum(k // GROUP, num_groups - 1) * 16, FACTORS)
        async_copy.async_copy_global_to_shared(factor_tiles.index(stage), factors + group)
        if HAS_SHIFTS:
            async_copy.async_copy_global_to_shared(term_tiles.index(stage), terms + group)
    async_copy.commit_group()


@gluon.jit
def _spread(values, like, FULL: gl.constexpr, BITS: gl.constexpr):
    # Scales [strips, blocks, 2 halves or 1, 2 quarters or 1, 8, 2 (row + 8)] to where numbers lie:
    # of the first half of a block and (of 4 bits) the second.
    S: gl.constexpr = values.shape[0]
    U: gl.constexpr = values.shape[1]
    values = values.to(like.dtype)
    if BITS == 4:
        SOME: gl.constexpr = gl.SliceLayout(4, gl.SliceLayout(5, gl.SliceLayout(7, FULL)))
        Q: gl.constexpr = values.shape[3]
        values = values.permute([0, 1, 4, 3, 5, 2])
        if values.shape[5] == 2:
            first, second = values.split()
        else:
            first = values.reshape([S, U, 8, Q, 2])
            second = first
        first = gl.convert_layout(first, SOME, assert_trivial=True)
        second = gl.convert_layout(second, SOME, assert_trivial=True)
        first = gl.expand_dims(gl.expand_dims(gl.expand_dims(first, 4), 5), 7)
        second = gl.expand_dims(gl.expand_dims(gl.expand_dims(second, 4), 5), 7)
        return (
            first.broadcast_to([S, U, 8, 2, 2, 2, 2, 2]),
            second.broadcast_to([S, U, 8, 2, 2, 2, 2, 2]),
        )
    else:
        ROWS: gl.constexpr = gl.SliceLayout(
            4, gl.SliceLayout(5, gl.SliceLayout(6, gl.SliceLayout(7, FULL)))
        )
        first = values.reshape([S, U, 8, 2]).permute([0, 1, 3, 2])
        first = gl.convert_layout(first, ROWS, assert_trivial=True)
        first = gl.expand_dims(gl.expand_dims(first, 4), 5)
        first = gl.expand_dims(gl.expand_dims(first, 6), 7)
        first = first.broadcast_to([S, U, 2, 8, 4, 2, 2, 2])
        return first, first


@gluon.jit
def _operand(
    words,
    factors,
    terms,
    like,
    ASM: gl.constexpr,
    BITS: gl.constexpr,
    SCALING: gl.constexpr,
    ACC: gl.constexpr,
):
    # Codes as they were loaded to numbers [outputs, inputs] as wgmma takes them from registers.
    S: gl.constexpr = words.shape[0]
    U: gl.constexpr = words.shape[1]
    A: gl.constexpr = gl.DotOperandLayout(0, ACC, 2)
    # Of 4 bits [strips, blocks, 8, 2, 2 (4 lanes), 2 (k + 8), 2 (row + 8), 2 (k + 1)], of 8
    # [strips, blocks, 2 (row + 8), 8, 4 lanes, 2 (k + 32), 2 (k + 8), 2 (k + 1)].
    SHAPE: gl.constexpr = [S, U, 8, 2, 2, 2, 2, 2] if BITS == 4 else [S, U, 2, 8, 4, 2, 2, 2]
    FULL: gl.constexpr = gl.BlockedLayout(
        [1, U, 1, 1, 1, 2, 2, 2] if BITS == 4 else [1, U, 2, 1, 1, 2, 2, 2],
        [1, 1, 8, 2, 2, 1, 1, 1] if BITS == 4 else [1, 1, 1, 8, 4, 1, 1, 1],
        [S, 1, 1, 1, 1, 1, 1, 1],
        [7, 6, 5, 4, 3, 2, 1, 0],
    )
    words = gl.convert_layout(words.reshape(SHAPE), FULL, assert_trivial=True)
    if SCALING > 0:
        factors = _spread(factors, like, FULL, BITS)
    if SCALING == 2:
        terms = _spread(terms, like, FULL, BITS)
    n = numbers_of(words, factors, terms, like, None, ASM, BITS, SCALING)
    if BITS == 4:
        # And 2 (k + 32), 2 (k + 16).
        f = gl.join(gl.join(n[0], n[2]), gl.join(n[1], n[3]))
        f = f.reshape([S, U, 8, 4, 2, 2, 2, 2, 2]).permute([0, 5, 2, 1, 7, 8, 4, 3, 6])
    else:
        # And 2 (k + 16).
        f = gl.join(n[0], n[1]).permute([0, 2, 3, 1, 5, 8, 6, 4, 7])
    return gl.convert_layout(f.reshape([S * 16, U * 64]), A, assert_trivial=True)


@gluon.jit
def _fetch(x, m, block, num_rows, K, LINE: gl.constexpr, shape: gl.constexpr, EVEN: gl.constexpr):
    # Rows of x, the inputs of some blocks.
    row = m + gl.arange(0, shape[0], layout=gl.SliceLayout(1, LINE))[:, None]
    k = block * 64 + gl.arange(0, shape[1], layout=gl.SliceLayout(0, LINE))[None, :]
    mask = row < num_rows
    if not EVEN:
        mask = mask & (k < K)
    return gl.load(x + row.to(gl.int64) * K + k, mask=mask, other=0.0)


@gluon.jit
def _in_order(rows, BITS: gl.constexpr):
    # Inputs in the order in which codes become numbers: k + 32, 16, 8, then the 4 lanes, k + 1.
    M: gl.constexpr = rows.shape[0]
    U: gl.constexpr = rows.shape[1] // 64
    if BITS == 4:
        # [rows, blocks, 2 (k + 32), 4 lanes, 2 (k + 16), 2 (k + 8), 2 (k + 1)].
        f = rows.reshape([M, U, 2, 4, 2, 2, 2]).permute([0, 1, 2, 4, 5, 3, 6])
    else:
        # [rows, blocks, 4 lanes, 2 (k + 32), 2 (k + 8), 2 (k + 1), 2 (k + 16)].
        f = rows.reshape([M, U, 4, 2, 2, 2, 2]).permute([0, 1, 3, 6, 4, 2, 5])
    return f.reshape([M, U * 64])


@gluon.jit
def _multiply(
    given,
    x_tiles,
    source,
    tiles,
    first,
    steps,
    sizes,
    FORM: gl.constexpr,
    LINE: gl.constexpr,
    ACC: gl.constexpr,
):
    # Sums [outputs, rows] over ``steps`` steps from the first; the first codes are on their way.
    x, m, num_rows, K = given
    num_blocks, num_groups = sizes
    BITS: gl.constexpr = FORM[0]
    GROUP: gl.constexpr = FORM[1]
    SCALING: gl.constexpr = FORM[2]
    EVEN: gl.constexpr = FORM[3]
    ASM: gl.constexpr = FORM[4]
    code_tiles, factor_tiles, term_tiles = tiles
    CODES: gl.constexpr = source[0].type.layout
    FACTORS: gl.constexpr = source[1].type.layout
    STAGES: gl.constexpr = code_tiles.shape[0]
    U: gl.constexpr = code_tiles.shape[2]
    BLOCK_M: gl.constexpr = x_tiles.shape[1]
    SHAPE: gl.constexpr = (BLOCK_M, U * 64)
    like = gl.zeros((1,), x.dtype.element_ty, gl.BlockedLayout([1], [32], [gl.num_warps()], [0]))
    rows = _fetch(x, m, first * U, num_rows, K, LINE, SHAPE, EVEN)
    acc = gl.zeros((code_tiles.shape[1] * 16, BLOCK_M), gl.float32, ACC)
    for s in range(steps):
        stage = s % STAGES
        x_tiles.index(s % 2).store(_in_order(rows, BITS))
        fence_async_shared()
        following = (first + gl.minimum(s + 1, steps - 1)) * U
        rows = _fetch(x, m, following, num_rows, K, LINE, SHAPE, EVEN)
        async_copy.wait_group(STAGES - 1)
        words = code_tiles.index(stage).load(CODES)
        factors = factor_tiles.index(stage).load(FACTORS)
        terms = term_tiles.index(stage).load(FACTORS)
        a = _operand(words, factors, terms, like, ASM, BITS, SCALING, ACC)
        acc = warpgroup_mma(a, x_tiles.index(s % 2).permute((1, 0)), acc)
        if s + STAGES < steps:
            block = (first + s + STAGES) * U
            _request(
                source, tiles, block, stage, num_blocks, num_groups, BITS, GROUP, EVEN, SCALING == 2
            )
        else:
            async_copy.commit_group()
    return acc


@gluon.jit
def _begin_step(
    rows,
    s,
    buffer,
    given,
    x_tiles,
    tiles,
    first,
    steps,
    like,
    FORM: gl.constexpr,
    LAYOUTS: gl.constexpr,
):
    # Stores a step's rows, requests the next ones, and turns its codes into numbers.
    x, m, num_rows, K = given
    code_tiles, factor_tiles, term_tiles = tiles
    STAGES: gl.constexpr = code_tiles.shape[0]
    U: gl.constexpr = code_tiles.shape[2]
    # All warps are done with the product that read this buffer.
    gl.thread_barrier()
    x_tiles.index(buffer).store(_in_order(rows, FORM[0]))
    fence_async_shared()
    following = (first + gl.minimum(s + 1, steps - 1)) * U
    SHAPE: gl.constexpr = (x_tiles.shape[1], U * 64)
    rows = _fetch(x, m, following, num_rows, K, LAYOUTS[2], SHAPE, FORM[3])
    async_copy.wait_group(STAGES - 1)
    words = code_tiles.index(s % STAGES).load(LAYOUTS[0])
    factors = factor_tiles.index(s % STAGES).load(LAYOUTS[1])
    terms = term_tiles.index(s % STAGES).load(LAYOUTS[1])
    a = _operand(words, factors, terms, like, FORM[4], FORM[0], FORM[2], LAYOUTS[3])
    return rows, a


@gluon.jit
def _refill(source, tiles, first, s, steps, sizes, FORM: gl.constexpr):
    # Requests the codes of the step for which this one's room is.
    STAGES: gl.constexpr = tiles[0].shape[0]
    if s + STAGES < steps:
        block = (first + s + STAGES) * tiles[0].shape[2]
        stage = s % STAGES
        _request(
            source,
            tiles,
            block,
            stage,
            sizes[0],
            sizes[1],
            FORM[0],
            FORM[1],
            FORM[3],
            FORM[2] == 2,
        )
    else:
        async_copy.commit_group()


@gluon.jit
def _multiply_overlapping(
    given,
    x_tiles,
    source,
    tiles,
    first,
    steps,
    sizes,
    FORM: gl.constexpr,
    LINE: gl.constexpr,
    ACC: gl.constexpr,
):
    # As ``_multiply``, an even number of steps: codes become numbers while the tensor cores
    # multiply those before. Two a turn, since a product's registers are in use until it is done.
    x, m, num_rows, K = given
    U: gl.constexpr = tiles[0].shape[2]
    BLOCK_M: gl.constexpr = x_tiles.shape[1]
    LAYOUTS: gl.constexpr = (source[0].type.layout, source[1].type.layout, LINE, ACC)
    like = gl.zeros((1,), x.dtype.element_ty, gl.BlockedLayout([1], [32], [gl.num_warps()], [0]))
    rows = _fetch(x, m, first * U, num_rows, K, LINE, (BLOCK_M, U * 64), FORM[3])
    OUTPUTS: gl.constexpr = tiles[0].shape[1] * 16
    acc = gl.zeros((OUTPUTS, BLOCK_M), gl.float32, ACC)
    rows, a = _begin_step(rows, 0, 0, given, x_tiles, tiles, first, steps, like, FORM, LAYOUTS)
    for turn in range(steps // 2):
        s = turn * 2
        acc = warpgroup_mma(a, x_tiles.index(0).permute((1, 0)), acc, is_async=True)
        _refill(source, tiles, first, s, steps, sizes, FORM)
        rows, b = _begin_step(
            rows, s + 1, 1, given, x_tiles, tiles, first, steps, like, FORM, LAYOUTS
        )
        # Both are waited for: numbers are made before, not behind the wait.
        acc, b = warpgroup_mma_wait(0, deps=[acc, b])
        acc = warpgroup_mma(b, x_tiles.index(1).permute((1, 0)), acc, is_async=True)
        _refill(source, tiles, first, s + 1, steps, sizes, FORM)
        # Behind the last step there is nothing; it is not multiplied.
        rows, a = _begin_step(
            rows, s + 2, 0, given, x_tiles, tiles, first, steps, like, FORM, LAYOUTS
        )
        acc, a = warpgroup_mma_wait(0, deps=[acc, a])
    return acc


@quick
@gluon.jit(do_not_specialize=["num_rows", "share"])
def coded_rows_kernel(
    x,
    words,
    scales,
    shifts,
    row_scales,
    bias,
    out,
    parts,
    arrivals,
    num_rows,
    N,
    K,
    num_strips,
    num_blocks,
    num_groups,
    share,
    ASM: gl.constexpr,
    BITS: gl.constexpr,
    GROUP: gl.constexpr,
    SCALING: gl.constexpr,
    HAS_BIAS: gl.constexpr,
    EVEN: gl.constexpr,
    BLOCK_M: gl.constexpr,
    U: gl.constexpr,
    STAGES: gl.constexpr,
    SPLIT: gl.constexpr,
    OVERLAPS: gl.constexpr,
    W: gl.constexpr,
):
    """What ``coded_rows`` launches: a step is U blocks of 64 inputs, ``share`` of them a part."""
    P: gl.constexpr = 1 if BITS == 4 else 2
    H: gl.constexpr = 2 if GROUP == 16 or GROUP == 32 else 1
    Q: gl.constexpr = 2 if GROUP == 16 else 1
    ACC: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [W, 1], [16, BLOCK_M, 16])
    CODES: gl.constexpr = gl.BlockedLayout(
        [1, U, P, 1, 8], [1, 1, 1, 32, 1], [W, 1, 1, 1, 1], [4, 3, 2, 1, 0]
    )
    # The quarters of a block are two lanes, the 2 lanes (or 4) beside each other have the same.
    FACTORS: gl.constexpr = gl.BlockedLayout(
        [1, U, H, 1, 1, 2], [1, 1, 1, 2, 8, 2], [W, 1, 1, 1, 1, 1], [5, 3, 4, 2, 1, 0]
    )
    LINE: gl.constexpr = gl.BlockedLayout([1, 8], [4, 8], [W, 1], [1, 0])
    gdc_launch_dependents()
    code_tiles = gl.allocate_shared_memory(
        gl.int16, [STAGES, W, U, P, 32, 8], gl.SwizzledSharedLayout(1, 1, 1, [4, 3, 2, 1, 0])
    )
    FACTOR_TILE: gl.constexpr = gl.SwizzledSharedLayout(1, 1, 1, [5, 4, 3, 2, 1, 0])
    factor_tiles = gl.allocate_shared_memory(gl.float16, [STAGES, W, U, H, Q, 8, 2], FACTOR_TILE)
    term_tiles = factor_tiles
    if SCALING == 2:
        term_tiles = gl.allocate_shared_memory(gl.float16, [STAGES, W, U, H, Q, 8, 2], FACTOR_TILE)
    ROWS: gl.constexpr = gl.NVMMASharedLayout.get_default_for([BLOCK_M, U * 64], x.dtype.element_ty)
    x_tiles = gl.allocate_shared_memory(x.dtype.element_ty, [2, BLOCK_M, U * 64], ROWS)
    m = gl.program_id(0) * BLOCK_M
    tile = gl.program_id(1)
    part = gl.program_id(2)
    first = part * share
    steps = gl.minimum(share, (num_blocks + U - 1) // U - first)
    source = (
        _codes_at(words, tile * W, num_strips, num_blocks, BITS, CODES),
        _scales_at(scales, tile * W, num_strips, num_groups, FACTORS),
        _scales_at(shifts, tile * W, num_strips, num_groups, FACTORS),
    )
    tiles = (code_tiles, factor_tiles, term_tiles)
    # The weight is nobody's output: as much of it as there is room for comes before x is there.
    for s in gl.static_range(STAGES):
        if s < steps:
            block = (first + s) * U
            _request(
                source, tiles, block, s, num_blocks, num_groups, BITS, GROUP, EVEN, SCALING == 2
            )
        else:
            async_copy.commit_group()
    gdc_wait()
    rows = (x, m, num_rows, K)
    FORM: gl.constexpr = (BITS, GROUP, SCALING, EVEN, ASM)
    sizes = (num_blocks, num_groups)
    if OVERLAPS:
        acc = _multiply_overlapping(
            rows, x_tiles, source, tiles, first, steps, sizes, FORM, LINE, ACC
        )
    else:
        acc = _multiply(rows, x_tiles, source, tiles, first, steps, sizes, FORM, LINE, ACC)
    n = tile * (W * 16) + gl.arange(0, W * 16, layout=gl.SliceLayout(1, ACC))[:, None]
    row = m + gl.arange(0, BLOCK_M, layout=gl.SliceLayout(0, ACC))[None, :]
    mask = (n < N) & (row < num_rows)
    last = True
    if SPLIT > 1:
        arrival = arrivals + tile * gl.num_programs(0) + gl.program_id(0)
        acc, last = _add_parts(
            acc, parts + row * N + n, mask, arrival, part, num_rows * N, SPLIT, ACC
        )
    if last:
        acc *= gl.load(row_scales + n, mask=n < N, other=0.0)
        if HAS_BIAS:
            acc += gl.load(bias + n, mask=n < N, other=0.0).to(gl.float32)
        gl.store(out + row.to(gl.int64) * N + n, acc.to(out.dtype.element_ty), mask=mask)
