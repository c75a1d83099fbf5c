"""The kernel of a weight times few rows on Hopper."""

from __future__ import annotations

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    mbarrier,
    tma,
    warpgroup_mma,
    warpgroup_mma_wait,
)
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from jackfield.compute.kernels.launch import quick


@gluon.jit
def _copy_weight(weight, row, k, ready, tile, GATED: gl.constexpr):
    if GATED:
        tma.async_copy_global_to_shared(weight, [row // 16, 0, 0, k], ready, tile)
    else:
        tma.async_copy_global_to_shared(weight, [row, k], ready, tile)


@gluon.jit
def _begin(x, weight, row, first, steps, STAGES: gl.constexpr, GATED: gl.constexpr):
    # Room for tiles of the weight and of x. The weight is nobody's output: as much of it as there
    # is room for comes before x is there.
    W_TILE: gl.constexpr = weight.block_type.shape
    X_TILE: gl.constexpr = x.block_type.shape
    BYTES: gl.constexpr = (weight.block_type.numel + x.block_type.numel) * (
        x.dtype.primitive_bitwidth // 8
    )
    # (Gluon knows no star in a list.)
    w_tiles = gl.allocate_shared_memory(x.dtype, [STAGES] + W_TILE, weight.layout)  # noqa: RUF005
    x_tiles = gl.allocate_shared_memory(x.dtype, [STAGES] + X_TILE, x.layout)  # noqa: RUF005
    ready = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    for i in gl.static_range(STAGES):
        mbarrier.init(ready.index(i), count=1)
    for i in gl.static_range(STAGES):
        if i < steps:
            mbarrier.expect(ready.index(i), BYTES)
            k = first + i * X_TILE[1]
            _copy_weight(weight, row, k, ready.index(i), w_tiles.index(i), GATED)
    return w_tiles, x_tiles, ready


@gluon.jit
def _copy_rows(x, x_tiles, ready, m, first, steps):
    # The first tiles of rows m .. of x, to where their part of the weight is on its way to.
    STAGES: gl.constexpr = x_tiles.shape[0]
    for i in gl.static_range(STAGES):
        if i < steps:
            k = first + i * x.block_type.shape[1]
            tma.async_copy_global_to_shared(x, [m, k], ready.index(i), x_tiles.index(i))


@gluon.jit
def _multiply(
    x,
    weight,
    w_tiles,
    x_tiles,
    ready,
    row,
    m,
    first,
    steps,
    BLOCK_N: gl.constexpr,
    PENDING: gl.constexpr,
    GATED: gl.constexpr,
    ACC: gl.constexpr,
):
    # Rows row .. of the weight times rows m .. of x, over ``steps`` tiles of the inner dimension,
    # the first of which are on their way. A stage is filled again when PENDING products follow the
    # one that read it.
    BLOCK_M: gl.constexpr = x.block_type.shape[0]
    BLOCK_K: gl.constexpr = x.block_type.shape[1]
    STAGES: gl.constexpr = x_tiles.shape[0]
    BYTES: gl.constexpr = (BLOCK_M + BLOCK_N) * BLOCK_K * (x.dtype.primitive_bitwidth // 8)
    acc = gl.zeros((BLOCK_N, BLOCK_M), gl.float32, ACC)
    for i in range(steps):
        stage = i % STAGES
        mbarrier.wait(ready.index(stage), (i // STAGES) & 1)
        rows = x_tiles.index(stage).permute((1, 0))
        weights = w_tiles.index(stage).reshape([BLOCK_N, BLOCK_K])
        acc = warpgroup_mma(weights, rows, acc, is_async=True)
        acc = warpgroup_mma_wait(PENDING, deps=[acc])
        done = i - PENDING
        if (done >= 0) & (done + STAGES < steps):
            k = first + (done + STAGES) * BLOCK_K
            free = done % STAGES
            # Every warp is done with the stage before the next tiles go there.
            gl.thread_barrier()
            mbarrier.expect(ready.index(free), BYTES)
            _copy_weight(weight, row, k, ready.index(free), w_tiles.index(free), GATED)
            tma.async_copy_global_to_shared(x, [m, k], ready.index(free), x_tiles.index(free))
    return warpgroup_mma_wait(0, deps=[acc])


@gluon.jit
def _factors(
    squares, num_parts, m, num_rows, K, eps, BLOCK_M: gl.constexpr, MAX_PARTS: gl.constexpr
):
    # 1 / rms of rows m .. of x, [BLOCK_M], from the sums of squares that num_parts programs left.
    LAYOUT: gl.constexpr = gl.BlockedLayout([1, 1], [1, 32], [1, gl.num_warps()], [1, 0])
    p = gl.arange(0, MAX_PARTS, layout=gl.SliceLayout(1, LAYOUT))[:, None]
    rows = m + gl.arange(0, BLOCK_M, layout=gl.SliceLayout(0, LAYOUT))[None, :]
    mask = (p < num_parts) & (rows < num_rows)
    parts = gl.load(squares + p * num_rows + rows, mask=mask, other=0.0)
    return gl.rsqrt(gl.sum(parts, 0) / K + eps)


@gluon.jit
def _add_parts(acc, place, mask, arrivals, part, part_size, SPLIT: gl.constexpr, ACC: gl.constexpr):
    # The sum of all programs' parts, in the last to arrive; and whether this is the last.
    gl.store(place + part * part_size, acc, mask=mask)
    # The barrier orders this program's stores before its one releasing increment.
    gl.thread_barrier()
    last = gl.atomic_add(arrivals, 1, sem="acq_rel") == SPLIT - 1
    if last:
        gl.thread_barrier()
        acc = gl.zeros(acc.shape, gl.float32, ACC)
        for s in range(SPLIT):
            acc += gl.load(place + s * part_size, mask=mask, other=0.0, cache_modifier=".cg")
        gl.store(arrivals, 0)
    return acc, last


@gluon.jit
def _outputs(
    acc,
    n,
    m,
    N,
    num_rows,
    factors,
    x_scales,
    weight_scales,
    bias,
    NORMED: gl.constexpr,
    SCALED: gl.constexpr,
    HAS_BIAS: gl.constexpr,
    GATED: gl.constexpr,
    ACC: gl.constexpr,
):
    # What is made of sums [N, M] of rows n [N, 1] of the weight and m [1, M] of x.
    if SCALED:
        acc *= gl.load(weight_scales + n, mask=n < N, other=0.0)
        acc *= gl.load(x_scales + m, mask=m < num_rows, other=0.0)
    if NORMED:
        acc *= gl.convert_layout(factors, gl.SliceLayout(0, ACC))[None, :]
    if HAS_BIAS:
        place = n
        if GATED:
            place = n // 16 * 8 + n % 8 + n // 8 % 2 * (N // 2)
        acc += gl.load(bias + place, mask=n < N, other=0.0).to(gl.float32)
    if GATED:
        # 8 rows of the gate, 8 of the other half, and so on: a thread has both of each output.
        ROWS: gl.constexpr = acc.shape[0]
        COLUMNS: gl.constexpr = acc.shape[1]
        pairs = acc.reshape([ROWS // 16, 2, 8, COLUMNS]).permute((0, 2, 3, 1))
        gate, up = pairs.split()
        return (gate / (1.0 + gl.exp(-gate)) * up).reshape([ROWS // 2, COLUMNS])
    else:
        return acc


@gluon.jit
def _add_residual(y, sums, gamma, residual, squares, mask, part, m, num_rows):
    # The rounded sum goes back to the residual; the sum of its squares to ``squares``. The sum is
    # rounded before the norm, so that the norm sees what the next layer sees.
    rounded = (y + sums.to(gl.float32)).to(sums.dtype)
    gl.store(residual, rounded, mask=mask)
    y = gl.where(mask, rounded.to(gl.float32), 0.0)
    total = gl.expand_dims(gl.sum(y * y, 0), 0)
    gl.store(squares + part * num_rows + m, total, mask=m < num_rows)
    return y * gamma.to(gl.float32)


@quick
@gluon.jit(do_not_specialize=["num_rows", "k_per_part", "num_squares"])
def linear_kernel(
    x,
    weight,
    x_scales,
    weight_scales,
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
    k_per_part,
    num_squares,
    eps,
    BLOCK_N: gl.constexpr,
    SPLIT: gl.constexpr,
    STAGES: gl.constexpr,
    PENDING: gl.constexpr,
    MAX_SQUARES: gl.constexpr,
    SCALED: gl.constexpr,
    HAS_BIAS: gl.constexpr,
    GATED: gl.constexpr,
    ADDS: gl.constexpr,
):
    """A tile of the product; arguments as ``hopper_linear`` gives them."""
    # x [M, K] and weight [N, K] are tensor descriptors; what lies outside of them reads as 0.
    # SCALED: each of their rows has a factor. MAX_SQUARES, if not 0: x is divided by its rows' rms,
    # which num_squares sums say. GATED: SiLU of the first half of the outputs times the second.
    # ADDS: the residual, which keeps the sum; out is that times the norm's weight.
    BLOCK_M: gl.constexpr = x.block_type.shape[0]
    BLOCK_K: gl.constexpr = x.block_type.shape[1]
    ACC: gl.constexpr = gl.NVMMADistributedLayout(
        [3, 0], [gl.num_warps(), 1], [16, BLOCK_M, 256 // x.dtype.primitive_bitwidth]
    )
    OUTPUTS: gl.constexpr = BLOCK_N // 2 if GATED else BLOCK_N
    VECTOR: gl.constexpr = min(8, OUTPUTS // 8)
    ACROSS: gl.constexpr = OUTPUTS // VECTOR
    OUT: gl.constexpr = gl.BlockedLayout(
        [VECTOR, 1], [ACROSS, 32 // ACROSS], [1, gl.num_warps()], [0, 1]
    )
    first_m, tile, part = gl.program_id(0) * BLOCK_M, gl.program_id(1), gl.program_id(2)
    row, first_k = tile * BLOCK_N, part * k_per_part
    steps = (gl.minimum(k_per_part, K - first_k) + BLOCK_K - 1) // BLOCK_K
    gdc_launch_dependents()
    w_tiles, x_tiles, ready = _begin(x, weight, row, first_k, steps, STAGES, GATED)
    width = N // 2 if GATED else N
    n = tile * OUTPUTS + gl.arange(0, OUTPUTS, layout=gl.SliceLayout(1, OUT))[:, None]
    m = first_m + gl.arange(0, BLOCK_M, layout=gl.SliceLayout(0, OUT))[None, :]
    place, mask = m * width + n, (n < width) & (m < num_rows)
    gamma = gl.load(norm_weight + n, mask=n < N, other=0.0) if ADDS else n
    gdc_wait()
    _copy_rows(x, x_tiles, ready, first_m, first_k, steps)
    factors = n
    if MAX_SQUARES > 0:
        factors = _factors(squares, num_squares, first_m, num_rows, K, eps, BLOCK_M, MAX_SQUARES)
    sums = gl.load(residual + place, mask=mask, other=0.0) if ADDS else n
    acc = _multiply(
        *(x, weight, w_tiles, x_tiles, ready, row, first_m, first_k, steps),
        *(BLOCK_N, PENDING, GATED, ACC),
    )
    acc_n = row + gl.arange(0, BLOCK_N, layout=gl.SliceLayout(1, ACC))[:, None]
    acc_m = first_m + gl.arange(0, BLOCK_M, layout=gl.SliceLayout(0, ACC))[None, :]
    last = True
    if SPLIT > 1:
        arrival = arrivals + tile * gl.num_programs(0) + gl.program_id(0)
        there, inside = parts + acc_m * N + acc_n, (acc_n < N) & (acc_m < num_rows)
        acc, last = _add_parts(acc, there, inside, arrival, part, num_rows * N, SPLIT, ACC)
    if last:
        y = _outputs(
            *(acc, acc_n, acc_m, N, num_rows, factors, x_scales, weight_scales, bias),
            *(MAX_SQUARES > 0, SCALED, HAS_BIAS, GATED, ACC),
        )
        y = gl.convert_layout(y, OUT)
        if ADDS:
            y = _add_residual(
                y, sums, gamma, residual + place, squares_out, mask, tile, m, num_rows
            )
        gl.store(out + place, y.to(out.dtype.element_ty), mask=mask)
