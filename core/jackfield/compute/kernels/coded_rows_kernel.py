"""Some rows times a weight of codes as Hopper wants it: rows and codes on warps of their own.

One group of four warps brings tiles of rows to shared memory, their inputs in the order in which
codes become numbers. Each of the other groups multiplies them with 4 strips of 16 outputs, one a
warp: its codes are on their way before the rows are, each thread copies what it will multiply
itself, and turns that into the operand that the tensor cores take from registers. While they
multiply for one group the others make numbers. Written in Gluon; the interpreter does not run it,
so that it is checked on a GPU only.
"""

from __future__ import annotations

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    async_copy,
    fence_async_shared,
    mbarrier,
    warpgroup_mma,
    warpgroup_mma_wait,
)
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from jackfield.compute.kernels.coded_operands import (
    in_order,
    operand,
    places_of_codes,
    places_of_scales,
    request,
)
from jackfield.compute.kernels.launch import quick


@gluon.jit
def _pairs_in_order(rows):
    # As ``in_order`` by 4 bits, of pairs of inputs.
    # [rows, blocks, 2 (k + 32), 4 lanes, 2 (k + 16), 2 (k + 8)].
    M: gl.constexpr = rows.shape[0]
    U: gl.constexpr = rows.shape[1] // 32
    f = rows.reshape([M, U, 2, 4, 2, 2]).permute([0, 1, 2, 4, 5, 3])
    return f.reshape([M, U * 32])


@gluon.jit
def _fetch_step(
    x, m, step, num_rows, K, LINE: gl.constexpr, SHAPE: gl.constexpr, EVEN: gl.constexpr
):
    # Rows of x, the inputs of a step.
    row = m + gl.arange(0, SHAPE[0], layout=gl.SliceLayout(1, LINE))[:, None]
    k = step * SHAPE[1] + gl.arange(0, SHAPE[1], layout=gl.SliceLayout(0, LINE))[None, :]
    mask = row < num_rows
    if not EVEN:
        mask = mask & (k < K)
    return gl.load(x + row.to(gl.int64) * K + k, mask=mask, other=0)


@gluon.jit
def _bring_rows(given, buffers, FORM: gl.constexpr, U: gl.constexpr):
    # Rows of x, step by step, to where all groups take them from. The next two are on their way.
    x, m, num_rows, K, first, steps = given
    x_tiles, ready, free = buffers
    # By 4 bits the inputs of a pair stay beside each other, and pairs are moved as they are.
    PAIR: gl.constexpr = 2 if FORM[0] == 4 else 1
    ROWS: gl.constexpr = x_tiles.shape[1]
    SHAPE: gl.constexpr = (ROWS, U * 64 // PAIR)
    DEPTH: gl.constexpr = x_tiles.shape[0]
    LINE: gl.constexpr = gl.BlockedLayout([1, 8 // PAIR], [4, 8], [4, 1], [1, 0])
    if PAIR == 2:
        TILE: gl.constexpr = gl.NVMMASharedLayout.get_default_for([ROWS, U * 32], gl.int32)
        places = x_tiles._reinterpret(gl.int32, [DEPTH, ROWS, U * 32], TILE)
        x = x.to(gl.pointer_type(gl.int32))
        K = K // 2
    else:
        places = x_tiles
    gdc_wait()
    rows = _fetch_step(x, m, first, num_rows, K, LINE, SHAPE, FORM[3])
    second = first + gl.minimum(1, steps - 1)
    following = _fetch_step(x, m, second, num_rows, K, LINE, SHAPE, FORM[3])
    for s in range(steps):
        buffer = s % DEPTH
        mbarrier.wait(free.index(buffer), (s // DEPTH & 1) ^ 1)
        if PAIR == 2:
            places.index(buffer).store(_pairs_in_order(rows))
        else:
            places.index(buffer).store(in_order(rows, FORM[0]))
        rows = following
        third = first + gl.minimum(s + 2, steps - 1)
        following = _fetch_step(x, m, third, num_rows, K, LINE, SHAPE, FORM[3])
        fence_async_shared()
        mbarrier.arrive(ready.index(buffer), count=1)


@gluon.jit
def _refill(source, tiles, first, s, stop, place, sizes, FORM: gl.constexpr):
    # Requests the codes of step s, if there is one, to a place.
    num_blocks, num_groups = sizes
    if s < stop:
        block = (first + s) * tiles[0].shape[2]
        request(
            *(source, tiles, block, place, num_blocks, num_groups),
            *(FORM[0], FORM[1], FORM[3], FORM[2] == 2),
        )
    else:
        async_copy.commit_group()


@gluon.jit
def _numbers(tiles, place, like, FORM: gl.constexpr, LAYOUTS: gl.constexpr, STAGES: gl.constexpr):
    # The oldest codes that are on their way, as numbers.
    async_copy.wait_group(STAGES - 1)
    words = tiles[0].index(place).load(LAYOUTS[0])
    factors = tiles[1].index(place).load(LAYOUTS[1])
    terms = tiles[2].index(place).load(LAYOUTS[1])
    return operand(words, factors, terms, like, FORM[4], FORM[0], FORM[2], LAYOUTS[2])


@gluon.jit
def _strips_of(group, num_strips, GATED: gl.constexpr):
    # A group's 4 strips of 16 outputs; GATED: 2 of the first half and theirs of the second.
    place = gl.arange(0, 4)
    if GATED:
        half = num_strips // 2
        return gl.minimum(group * 2 + place % 2, half - 1) + place // 2 * half
    else:
        return gl.minimum(group * 4 + place, num_strips - 1)


@gluon.jit
def _factors(normed, m, num_rows, K, BLOCK_M: gl.constexpr, MAX_SQUARES: gl.constexpr):
    # 1 / rms of rows m .. of x, [BLOCK_M], from the sums of squares that programs left.
    squares, num_squares, eps = normed
    ACROSS: gl.constexpr = BLOCK_M if BLOCK_M < 32 else 32
    PARTS: gl.constexpr = gl.BlockedLayout([1, 1], [32 // ACROSS, ACROSS], [4, 1], [1, 0])
    part = gl.arange(0, MAX_SQUARES, layout=gl.SliceLayout(1, PARTS))[:, None]
    row = m + gl.arange(0, BLOCK_M, layout=gl.SliceLayout(0, PARTS))[None, :]
    mask = (part < num_squares) & (row < num_rows)
    sums = gl.load(squares + part * num_rows + row, mask=mask, other=0.0)
    return gl.rsqrt(gl.sum(sums, 0) / K + eps)


@gluon.jit
def _gated(y, OUT: gl.constexpr):
    # SiLU of the first 32 outputs times the others.
    BLOCK_M: gl.constexpr = y.shape[1]
    BOTH: gl.constexpr = gl.BlockedLayout([2, 4, 1], [1, 8, 4], [1, 1, 4], [1, 0, 2])
    gate, up = gl.convert_layout(y.reshape([2, 32, BLOCK_M]), BOTH).permute([1, 2, 0]).split()
    return gl.convert_layout(gate / (1.0 + gl.exp(-gate)) * up, OUT)


@gluon.jit
def _add_parts(acc, place, arrivals, part, part_size, SPLIT: gl.constexpr, ACC: gl.constexpr):
    # The sum of all programs' parts, in the last to arrive; and whether this is the last. A part is
    # [rows / 8 * 128 threads, 4]: what a thread has lies together.
    BLOCK_M: gl.constexpr = acc.shape[1]
    # [4 warps, 2 (output + 8), 8, rows / 8, 4 lanes, 2 (row + 1)].
    own = acc.reshape([4, 2, 8, BLOCK_M // 8, 4, 2]).permute([3, 0, 2, 4, 1, 5])
    own = own.reshape([BLOCK_M * 16, 4])
    OWN: gl.constexpr = own.type.layout
    there = gl.arange(0, BLOCK_M * 16, layout=gl.SliceLayout(1, OWN))[:, None] * 4
    place += there + gl.arange(0, 4, layout=gl.SliceLayout(0, OWN))[None, :]
    gl.store(place + part * part_size, own)
    # The barrier orders this program's stores before its one releasing increment.
    gl.thread_barrier()
    last = gl.atomic_add(arrivals, 1, sem="acq_rel") == SPLIT - 1
    if last:
        gl.thread_barrier()
        own = gl.load(place, cache_modifier=".cg")
        for s in gl.static_range(1, SPLIT):
            own += gl.load(place + s * part_size, cache_modifier=".cg")
        f = own.reshape([BLOCK_M // 8, 4, 8, 4, 2, 2]).permute([1, 4, 2, 0, 3, 5])
        acc = gl.convert_layout(f.reshape([64, BLOCK_M]), ACC, assert_trivial=True)
        gl.store(arrivals, 0)
    return acc, last


@gluon.jit
def _store_outputs(acc, m, at, results, ENDS: gl.constexpr):
    # Outputs [64, rows m ..] to where they go, after the gate or the norm.
    group, num_rows, N = at
    out, residual, norm_weight, squares = results
    BLOCK_M: gl.constexpr = acc.shape[1]
    GATED: gl.constexpr = ENDS[2]
    OUTPUTS: gl.constexpr = 32 if GATED else 64
    OUT: gl.constexpr = gl.BlockedLayout([OUTPUTS // 8, 1], [8, 4], [1, 4], [0, 1])
    width = N // 2 if GATED else N
    y = _gated(acc, OUT) if GATED else gl.convert_layout(acc, OUT)
    n = group * OUTPUTS + gl.arange(0, OUTPUTS, layout=gl.SliceLayout(1, OUT))[:, None]
    row = m + gl.arange(0, BLOCK_M, layout=gl.SliceLayout(0, OUT))[None, :]
    mask = (n < width) & (row < num_rows)
    place = row * width + n
    if ENDS[3]:
        gamma = gl.load(norm_weight + n, mask=n < N, other=0.0)
        before = gl.load(residual + place, mask=mask, other=0.0)
        # The sum is rounded before the norm, so that the norm sees what the next layer sees.
        rounded = (y + before.to(gl.float32)).to(before.dtype)
        gl.store(residual + place, rounded, mask=mask)
        y = gl.where(mask, rounded.to(gl.float32), 0.0)
        total = gl.expand_dims(gl.sum(y * y, 0), 0)
        there = (row < num_rows) & (group * OUTPUTS < N)
        gl.store(squares + group * num_rows + row, total, mask=there)
        y *= gamma.to(gl.float32)
    gl.store(out + place, y.to(out.dtype.element_ty), mask=mask)


@gluon.jit
def _finish(acc, at, results, normed, factors, ENDS: gl.constexpr, ACC: gl.constexpr):
    # What is made of sums [64, rows], and where it goes.
    group, m, num_rows, K = at
    out, row_scales, bias, parts, arrivals, N, part, residual, norm_weight, squares = results
    BLOCK_M: gl.constexpr = acc.shape[1]
    SPLIT: gl.constexpr = ENDS[0]
    OUTPUTS: gl.constexpr = 32 if ENDS[2] else 64
    width = N // 2 if ENDS[2] else N
    last = True
    if SPLIT > 1:
        tile = group * gl.num_programs(0) + gl.program_id(0)
        size = gl.num_programs(1) * ENDS[5] * gl.num_programs(0) * (64 * BLOCK_M)
        there = parts + tile.to(gl.int64) * (64 * BLOCK_M)
        acc, last = _add_parts(acc, there, arrivals + tile, part, size, SPLIT, ACC)
    if last:
        line = gl.arange(0, 64, layout=gl.SliceLayout(1, ACC))[:, None]
        n = group * OUTPUTS + line % OUTPUTS + line // OUTPUTS * width
        mask = group * OUTPUTS + line % OUTPUTS < width
        acc *= gl.load(row_scales + n, mask=mask, other=0.0)
        if ENDS[4] > 0:
            if BLOCK_M > 32:
                late = _factors(normed, m, num_rows, K, BLOCK_M, ENDS[4])
                acc *= gl.convert_layout(late, gl.SliceLayout(0, ACC))[None, :]
            else:
                acc *= gl.convert_layout(factors, gl.SliceLayout(0, ACC))[None, :]
        if ENDS[1]:
            acc += gl.load(bias + n, mask=mask, other=0.0).to(gl.float32)
        places = (out, residual, norm_weight, squares)
        if BLOCK_M == 128:
            # One half after the other: they take registers and shared memory.
            HALF: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, 64, 16])
            first, second = acc.reshape([64, 2, 64]).permute([0, 2, 1]).split()
            first = gl.convert_layout(first, HALF, assert_trivial=True)
            _store_outputs(first, m, (group, num_rows, N), places, ENDS)
            second = gl.convert_layout(second, HALF, assert_trivial=True)
            _store_outputs(second, m + 64, (group, num_rows, N), places, ENDS)
        else:
            _store_outputs(acc, m, (group, num_rows, N), places, ENDS)


@gluon.jit
def _multiply_rows(
    work, FORM: gl.constexpr, SHAPE: gl.constexpr, ENDS: gl.constexpr, OWN: gl.constexpr
):
    # One group's 64 outputs.
    given, buffers, weight, tiles, results, normed = work
    x, m, num_rows, K, first, steps = given
    x_tiles, ready, free = buffers
    words, scales, shifts, num_strips, num_blocks, num_groups, tile = weight
    STAGES: gl.constexpr = SHAPE[1]
    BITS: gl.constexpr = FORM[0]
    GROUP: gl.constexpr = FORM[1]
    U: gl.constexpr = tiles[0].shape[2]
    BLOCK_M: gl.constexpr = x_tiles.shape[1]
    DEPTH: gl.constexpr = x_tiles.shape[0]
    P: gl.constexpr = 1 if BITS == 4 else 2
    H: gl.constexpr = 2 if GROUP == 16 or GROUP == 32 else 1
    ACC: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, BLOCK_M, 16])
    CODES: gl.constexpr = gl.BlockedLayout(
        [1, U, P, 1, 8], [1, 1, 1, 32, 1], [4, 1, 1, 1, 1], [4, 3, 2, 1, 0]
    )
    # The quarters of a block are two lanes, the 2 lanes (or 4) beside each other have the same.
    SCALES: gl.constexpr = gl.BlockedLayout(
        [1, U, H, 1, 1, 2], [1, 1, 1, 2, 8, 2], [4, 1, 1, 1, 1, 1], [5, 3, 4, 2, 1, 0]
    )
    LAYOUTS: gl.constexpr = (CODES, SCALES, ACC)
    group = tile * SHAPE[0] + OWN
    # Each has its strips in a layout of its own.
    source = (
        places_of_codes(words, _strips_of(group, num_strips, ENDS[2]), num_blocks, BITS, CODES),
        places_of_scales(scales, _strips_of(group, num_strips, ENDS[2]), num_groups, SCALES),
        places_of_scales(shifts, _strips_of(group, num_strips, ENDS[2]), num_groups, SCALES),
    )
    sizes = (num_blocks, num_groups)
    # The weight is nobody's output: as much of it as there is room for comes before x is there.
    for s in gl.static_range(STAGES):
        _refill(source, tiles, first, s, steps, OWN * STAGES + s, sizes, FORM)
    like = gl.zeros((1,), x.dtype.element_ty, gl.BlockedLayout([1], [32], [4], [0]))
    acc = gl.zeros((64, BLOCK_M), gl.float32, ACC)
    # What is written to is in use until the launch before this one has ended.
    gdc_wait()
    # Of few rows now, of many when the sums need no more registers.
    factors = acc
    if ENDS[4] > 0:
        if BLOCK_M <= 32:
            factors = _factors(normed, m, num_rows, K, BLOCK_M, ENDS[4])
    if SHAPE[2]:
        a = _numbers(tiles, OWN * STAGES, like, FORM, LAYOUTS, STAGES)
        _refill(source, tiles, first, STAGES, steps, OWN * STAGES, sizes, FORM)
        for s in range(steps):
            buffer = s % DEPTH
            mbarrier.wait(ready.index(buffer), s // DEPTH & 1)
            acc = warpgroup_mma(a, x_tiles.index(buffer).permute((1, 0)), acc, is_async=True)
            # Behind the last step there is nothing; it is not multiplied.
            place = OWN * STAGES + (s + 1) % STAGES
            b = _numbers(tiles, place, like, FORM, LAYOUTS, STAGES)
            _refill(source, tiles, first, s + 1 + STAGES, steps, place, sizes, FORM)
            # Both are waited for: numbers are made before, not behind the wait.
            acc, b = warpgroup_mma_wait(0, deps=[acc, b])
            mbarrier.arrive(free.index(buffer), count=1)
            a = b
    else:
        for s in range(steps):
            place = OWN * STAGES + s % STAGES
            a = _numbers(tiles, place, like, FORM, LAYOUTS, STAGES)
            _refill(source, tiles, first, s + STAGES, steps, place, sizes, FORM)
            buffer = s % DEPTH
            mbarrier.wait(ready.index(buffer), s // DEPTH & 1)
            acc = warpgroup_mma(a, x_tiles.index(buffer).permute((1, 0)), acc, is_async=True)
            acc, a = warpgroup_mma_wait(0, deps=[acc, a])
            mbarrier.arrive(free.index(buffer), count=1)
    _finish(acc, (group, m, num_rows, K), results, normed, factors, ENDS, ACC)


@quick
@gluon.jit(do_not_specialize=["num_rows", "share", "num_squares"])
def coded_rows_kernel(
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
    parts,
    arrivals,
    num_rows,
    N,
    K,
    num_strips,
    num_blocks,
    num_groups,
    num_squares,
    share,
    eps,
    ASM: gl.constexpr,
    BITS: gl.constexpr,
    GROUP: gl.constexpr,
    SCALING: gl.constexpr,
    HAS_BIAS: gl.constexpr,
    GATED: gl.constexpr,
    ADDS: gl.constexpr,
    MAX_SQUARES: gl.constexpr,
    EVEN: gl.constexpr,
    BLOCK_M: gl.constexpr,
    U: gl.constexpr,
    STAGES: gl.constexpr,
    DEPTH: gl.constexpr,
    SPLIT: gl.constexpr,
    GROUPS: gl.constexpr,
    OVERLAPS: gl.constexpr,
    REGISTERS: gl.constexpr,
    LOADER: gl.constexpr,
):
    """What ``coded_rows`` launches: a step is U blocks of 64 inputs, ``share`` of them a part.

    MAX_SQUARES, if not 0: x is divided by its rows' rms, which num_squares sums say. GATED: SiLU of
    the first half of the outputs times the second. ADDS: the residual, which keeps the sum; out is
    that times the norm's weight.
    """
    P: gl.constexpr = 1 if BITS == 4 else 2
    H: gl.constexpr = 2 if GROUP == 16 or GROUP == 32 else 1
    Q: gl.constexpr = 2 if GROUP == 16 else 1
    gdc_launch_dependents()
    code_tiles = gl.allocate_shared_memory(
        gl.int16,
        [GROUPS * STAGES, 4, U, P, 32, 8],
        gl.SwizzledSharedLayout(1, 1, 1, [4, 3, 2, 1, 0]),
    )
    FACTOR_TILE: gl.constexpr = gl.SwizzledSharedLayout(1, 1, 1, [5, 4, 3, 2, 1, 0])
    factor_tiles = gl.allocate_shared_memory(
        gl.float16, [GROUPS * STAGES, 4, U, H, Q, 8, 2], FACTOR_TILE
    )
    term_tiles = factor_tiles
    if SCALING == 2:
        term_tiles = gl.allocate_shared_memory(
            gl.float16, [GROUPS * STAGES, 4, U, H, Q, 8, 2], FACTOR_TILE
        )
    ROWS: gl.constexpr = gl.NVMMASharedLayout.get_default_for([BLOCK_M, U * 64], x.dtype.element_ty)
    x_tiles = gl.allocate_shared_memory(x.dtype.element_ty, [DEPTH, BLOCK_M, U * 64], ROWS)
    ready = gl.allocate_shared_memory(gl.int64, [DEPTH, 1], mbarrier.MBarrierLayout())
    free = gl.allocate_shared_memory(gl.int64, [DEPTH, 1], mbarrier.MBarrierLayout())
    for i in gl.static_range(DEPTH):
        mbarrier.init(ready.index(i), count=1)
        mbarrier.init(free.index(i), count=GROUPS)
    part = gl.program_id(2)
    first = part * share
    steps = gl.minimum(share, (num_blocks + U - 1) // U - first)
    FORM: gl.constexpr = (BITS, GROUP, SCALING, EVEN, ASM)
    SHAPE: gl.constexpr = (GROUPS, STAGES, OVERLAPS)
    ENDS: gl.constexpr = (SPLIT, HAS_BIAS, GATED, ADDS, MAX_SQUARES, GROUPS)
    given = (x, gl.program_id(0) * BLOCK_M, num_rows, K, first, steps)
    buffers = (x_tiles, ready, free)
    weight = (words, scales, shifts, num_strips, num_blocks, num_groups, gl.program_id(1))
    tiles = (code_tiles, factor_tiles, term_tiles)
    own = (residual, norm_weight, squares_out)
    results = (out, row_scales, bias, parts, arrivals, N, part) + own  # noqa: RUF005
    normed = (squares, num_squares, eps)
    work = (given, buffers, weight, tiles, results, normed)
    if GROUPS == 1:
        gl.warp_specialize(
            [
                (_multiply_rows, (work, FORM, SHAPE, ENDS, 0)),
                (_bring_rows, (given, buffers, FORM, U)),
            ],
            [4],
            [LOADER],
        )
    elif GROUPS == 2:
        gl.warp_specialize(
            [
                (_multiply_rows, (work, FORM, SHAPE, ENDS, 0)),
                (_multiply_rows, (work, FORM, SHAPE, ENDS, 1)),
                (_bring_rows, (given, buffers, FORM, U)),
            ],
            [4, 4],
            [REGISTERS, LOADER],
        )
    elif GROUPS == 3:
        gl.warp_specialize(
            [
                (_multiply_rows, (work, FORM, SHAPE, ENDS, 0)),
                (_multiply_rows, (work, FORM, SHAPE, ENDS, 1)),
                (_multiply_rows, (work, FORM, SHAPE, ENDS, 2)),
                (_bring_rows, (given, buffers, FORM, U)),
            ],
            [4, 4, 4],
            [REGISTERS, REGISTERS, LOADER],
        )
    else:
        gl.warp_specialize(
            [
                (_multiply_rows, (work, FORM, SHAPE, ENDS, 0)),
                (_multiply_rows, (work, FORM, SHAPE, ENDS, 1)),
                (_multiply_rows, (work, FORM, SHAPE, ENDS, 2)),
                (_multiply_rows, (work, FORM, SHAPE, ENDS, 3)),
                (_bring_rows, (given, buffers, FORM, U)),
            ],
            [4, 4, 4, 4],
            [REGISTERS, REGISTERS, REGISTERS, LOADER],
        )
