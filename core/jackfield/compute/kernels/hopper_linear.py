"""A weight times 2 to 64 rows as Hopper wants it: the weight is on its way before the rows are.

A program multiplies 64 rows of the weight with all rows of x. It starts copying its weight while
the kernel before it still runs, as many tiles as its shared memory holds, and waits for x then:
that hides most of what a kernel of a few microseconds waits for. Where the weight has few rows its
inner dimension is split, and the last program to arrive adds the parts. Written in Gluon; the
interpreter does not run it, so that it is checked on a GPU only.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
from torch import Tensor
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    mbarrier,
    tma,
    warpgroup_mma,
    warpgroup_mma_wait,
)
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from jackfield.compute.kernels.hopper_tiles import described
from jackfield.compute.kernels.launch import power_of_2, quick
from jackfield.compute.kernels.split_inputs import split_workspace

MAX_ROWS = 64
MAX_FLOAT8_ROWS = 128
_BLOCK_N = 64
_MAX_SPLIT_OUTPUTS = 8192
"""Outputs times parts, where the inner dimension is split."""
_MAX_PARTS, _MAX_TILES = _MAX_SPLIT_OUTPUTS * MAX_FLOAT8_ROWS, _MAX_SPLIT_OUTPUTS // _BLOCK_N


@gluon.jit
def _multiply(x, weight, first, steps, row, STAGES: gl.constexpr, ACC: gl.constexpr):
    # Rows row .. of the weight times all of x, over ``steps`` tiles of the inner dimension.
    BLOCK_M: gl.constexpr = x.block_type.shape[0]
    BLOCK_N: gl.constexpr = weight.block_type.shape[0]
    BLOCK_K: gl.constexpr = weight.block_type.shape[1]
    BYTES: gl.constexpr = (BLOCK_M + BLOCK_N) * BLOCK_K * (x.dtype.primitive_bitwidth // 8)
    w_tiles = gl.allocate_shared_memory(x.dtype, [STAGES, BLOCK_N, BLOCK_K], weight.layout)
    x_tiles = gl.allocate_shared_memory(x.dtype, [STAGES, BLOCK_M, BLOCK_K], x.layout)
    ready = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    for i in gl.static_range(STAGES):
        mbarrier.init(ready.index(i), count=1)
    # The weight is nobody's output: as much of it as there is room for comes before x is there.
    for i in gl.static_range(STAGES):
        if i < steps:
            k = first + i * BLOCK_K
            mbarrier.expect(ready.index(i), BYTES)
            tma.async_copy_global_to_shared(weight, [row, k], ready.index(i), w_tiles.index(i))
    gdc_wait()
    for i in gl.static_range(STAGES):
        if i < steps:
            k = first + i * BLOCK_K
            tma.async_copy_global_to_shared(x, [0, k], ready.index(i), x_tiles.index(i))
    acc = gl.zeros((BLOCK_N, BLOCK_M), gl.float32, ACC)
    for i in range(steps):
        stage = i % STAGES
        tile_ready = ready.index(stage)
        mbarrier.wait(tile_ready, (i // STAGES) & 1)
        rows = x_tiles.index(stage).permute((1, 0))
        acc = warpgroup_mma(w_tiles.index(stage), rows, acc, is_async=True)
        acc = warpgroup_mma_wait(0, deps=[acc])
        if i + STAGES < steps:
            k = first + (i + STAGES) * BLOCK_K
            # Every warp is done with the stage before the next tiles go there.
            gl.thread_barrier()
            mbarrier.expect(tile_ready, BYTES)
            tma.async_copy_global_to_shared(weight, [row, k], tile_ready, w_tiles.index(stage))
            tma.async_copy_global_to_shared(x, [0, k], tile_ready, x_tiles.index(stage))
    return acc


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
        for s in gl.static_range(SPLIT):
            acc += gl.load(place + s * part_size, mask=mask, other=0.0, cache_modifier=".cg")
        gl.store(arrivals, 0)
    return acc, last


@quick
@gluon.jit(do_not_specialize=["num_rows", "k_per_part"])
def _linear_kernel(
    x,
    weight,
    x_scales,
    weight_scales,
    bias,
    out,
    parts,
    arrivals,
    num_rows,
    N,
    K,
    k_per_part,
    SPLIT: gl.constexpr,
    STAGES: gl.constexpr,
    SCALED: gl.constexpr,
    HAS_BIAS: gl.constexpr,
):
    # x [M, K] and weight [N, K] are tensor descriptors; what lies outside of them reads as 0.
    # SCALED: each of their rows has a factor.
    BLOCK_M: gl.constexpr = x.block_type.shape[0]
    BLOCK_N: gl.constexpr = weight.block_type.shape[0]
    BLOCK_K: gl.constexpr = weight.block_type.shape[1]
    ACC: gl.constexpr = gl.NVMMADistributedLayout(
        [3, 0], [4, 1], [16, BLOCK_M, 256 // x.dtype.primitive_bitwidth]
    )
    tile = gl.program_id(0)
    part = gl.program_id(1)
    gdc_launch_dependents()
    row = tile * BLOCK_N
    first = part * k_per_part
    steps = (gl.minimum(k_per_part, K - first) + BLOCK_K - 1) // BLOCK_K
    acc = _multiply(x, weight, first, steps, row, STAGES, ACC)
    n = row + gl.arange(0, BLOCK_N, layout=gl.SliceLayout(1, ACC))[:, None]
    m = gl.arange(0, BLOCK_M, layout=gl.SliceLayout(0, ACC))[None, :]
    mask = (n < N) & (m < num_rows)
    last = True
    if SPLIT > 1:
        place = parts + m * N + n
        parts_size = num_rows * N
        acc, last = _add_parts(acc, place, mask, arrivals + tile, part, parts_size, SPLIT, ACC)
    if last:
        if SCALED:
            acc *= gl.load(weight_scales + n, mask=n < N, other=0.0)
            acc *= gl.load(x_scales + m, mask=m < num_rows, other=0.0)
        if HAS_BIAS:
            acc += gl.load(bias + n, mask=n < N, other=0.0).to(gl.float32)
        gl.store(out + m * N + n, acc.to(out.dtype.element_ty), mask=mask)


@dataclass(frozen=True, slots=True)
class LinearConfig:
    """Inner elements of a tile, tiles in shared memory, parts of the inner dimension."""

    block_k: int
    stages: int
    split: int


def _block_rows(m: int) -> int:
    return max(16, power_of_2(m))


def linear_config(m: int, n: int, k: int, itemsize: int = 2) -> LinearConfig:
    """What measured best on an H200: as many bytes on their way to a processor as it can hold."""
    tiles = triton.cdiv(n, _BLOCK_N)
    split = 4 if tiles <= 16 and k >= 1024 else 2 if tiles <= 64 and k >= 8192 and m > 32 else 1
    many = tiles * split > 264
    if many:
        block_k, room = (256 if m <= 16 else 64 if m <= 32 else 128), 80 << 10
    else:
        block_k, room = (128 if m > 32 or (m > 16 and k <= 1024) else 256), 200 << 10
    steps = triton.cdiv(k, split * block_k)
    stage_bytes = (_BLOCK_N + _block_rows(m)) * block_k * itemsize
    return LinearConfig(block_k, max(1, min(room // stage_bytes, steps)), split)


def supports(m: int, n: int, k: int, dtype: torch.dtype) -> bool:
    """Whether ``hopper_linear`` takes x [m, k] and w [n, k], and is meant to: it beats cuBLAS."""
    if k % 8 or dtype not in (torch.bfloat16, torch.float16):
        return False
    # From 33 rows on cuBLAS is as fast where the weight has few rows and little to read in each.
    return 2 <= m <= MAX_ROWS and (m <= 32 or n > k or k >= 8192)


def hopper_linear(
    x: Tensor, w: Tensor, bias: Tensor | None, config: LinearConfig | None = None
) -> Tensor:
    """x [M, K] times w [N, K] transposed, plus bias [N] -> [M, N]; for what ``supports`` says yes
    to. x and w are contiguous.

    The weight is read before the launch before this one has ended: nothing that is still running
    may write it.
    """
    out = torch.empty((len(x), len(w)), dtype=x.dtype, device=x.device)
    n, k = w.shape
    _launch(x, w, None, bias, out, config or linear_config(len(x), n, k))
    return out


def hopper_linear_float8(
    x: Tensor,
    x_scales: Tensor,
    w: Tensor,
    w_scales: Tensor,
    bias: Tensor | None,
    dtype: torch.dtype,
    config: LinearConfig | None = None,
) -> Tensor:
    """As ``hopper_linear``, x and w in E4M3, up to ``MAX_FLOAT8_ROWS`` rows; ``x_scales`` [M] and
    ``w_scales`` [N], float32, multiply their rows; the result is in ``dtype``."""
    out = torch.empty((len(x), len(w)), dtype=dtype, device=x.device)
    n, k = w.shape
    _launch(x, w, (x_scales, w_scales), bias, out, config or linear_config(len(x), n, k, 1))
    return out


def _launch(
    x: Tensor,
    w: Tensor,
    scales: tuple[Tensor, Tensor] | None,
    bias: Tensor | None,
    out: Tensor,
    config: LinearConfig,
) -> None:
    (m, k), n = x.shape, w.shape[0]
    x_scales, w_scales = scales or (out, out)
    parts, arrivals = (
        split_workspace(x.device, _MAX_PARTS, _MAX_TILES) if config.split > 1 else (out, out)
    )
    k_per_part = triton.cdiv(triton.cdiv(k, config.split), config.block_k) * config.block_k
    _linear_kernel[(triton.cdiv(n, _BLOCK_N), config.split)](
        described(x, _block_rows(m), config.block_k),
        described(w, _BLOCK_N, config.block_k),
        x_scales,
        w_scales,
        bias if bias is not None else out,
        out,
        parts,
        arrivals,
        m,
        n,
        k,
        k_per_part,
        SPLIT=config.split,
        STAGES=config.stages,
        SCALED=scales is not None,
        HAS_BIAS=bias is not None,
        num_warps=4,
        launch_pdl=True,
    )
