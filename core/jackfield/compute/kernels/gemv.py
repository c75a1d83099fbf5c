"""A weight times very few rows: bound by reading the weight, which cuBLAS does at 10 to 80 %.

One row is a sum of products on the CUDA cores, no tile wasted. Two to sixteen rows go through the
tensor cores with the weight on their wide side; where the weight has few rows the inner dimension
is split, and the last program to arrive adds the parts.
"""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from jackfield.compute.kernels.launch import cdiv, overlaps, quick
from jackfield.compute.kernels.split_inputs import split_workspace, sum_of_parts

MAX_ROWS = 16
_MAX_SPLIT_OUTPUTS = 4096
_MAX_SPLIT = 4
_MAX_PARTS, _MAX_TILES = _MAX_SPLIT_OUTPUTS * _MAX_SPLIT * MAX_ROWS, _MAX_SPLIT_OUTPUTS // 16


@triton.jit
def _finished(y, up, bias, n, N, live, HAS_BIAS: tl.constexpr, GATED: tl.constexpr):
    if HAS_BIAS:
        y += tl.load(bias + n, mask=live, other=0.0).to(tl.float32)
        if GATED:
            up += tl.load(bias + N + n, mask=live, other=0.0).to(tl.float32)
    if GATED:
        y = y * tl.sigmoid(y) * up
    return y


@quick
@triton.jit
def _gemv_kernel(
    x,
    weight,
    bias,
    out,
    N,
    K: tl.constexpr,
    ROWS: tl.constexpr,
    STEP: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    GATED: tl.constexpr,
    PDL: tl.constexpr,
):
    # GATED: rows N .. 2N - 1 of the weight are multiplied too; SiLU of the first times the second.
    n = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    live = n < N
    step = tl.arange(0, STEP)
    rows = weight + n[:, None].to(tl.int64) * K + step[None, :]
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()
    # The weight is nobody's output: its first part is on the way before x is there.
    part = tl.load(rows, mask=live[:, None] & (step < K)[None, :], other=0.0)
    if GATED:
        up_rows = rows + N.to(tl.int64) * K
        up_part = tl.load(up_rows, mask=live[:, None] & (step < K)[None, :], other=0.0)
    if PDL:
        tl.extra.cuda.gdc_wait()
    row = tl.load(x + step, mask=step < K, other=0.0).to(tl.float32)
    acc = part.to(tl.float32) * row[None, :]
    if GATED:
        up_acc = up_part.to(tl.float32) * row[None, :]
    for k in tl.static_range(STEP, K, STEP):
        inside = k + step < K
        row = tl.load(x + k + step, mask=inside, other=0.0).to(tl.float32)
        part = tl.load(rows + k, mask=live[:, None] & inside[None, :], other=0.0)
        acc += part.to(tl.float32) * row[None, :]
        if GATED:
            up_part = tl.load(up_rows + k, mask=live[:, None] & inside[None, :], other=0.0)
            up_acc += up_part.to(tl.float32) * row[None, :]
    y = tl.sum(acc, 1)
    up = tl.sum(up_acc, 1) if GATED else y
    y = _finished(y, up, bias, n, N, live, HAS_BIAS, GATED)
    tl.store(out + n, y.to(out.dtype.element_ty), mask=live)


@quick
@triton.jit(do_not_specialize=["num_rows", "k_per_part"])
def _wide_kernel(
    x,
    weight,
    bias,
    out,
    parts,
    arrivals,
    num_rows,
    N,
    K,
    k_per_part,
    SPLIT: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    STAGES: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    PDL: tl.constexpr,
):
    # x [M, K] and weight [N, K] are tensor descriptors; what lies outside of them reads as 0.
    tile = tl.program_id(0)
    part = tl.program_id(1)
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()
        tl.extra.cuda.gdc_wait()
    acc = tl.zeros((BLOCK_N, BLOCK_M), tl.float32)
    first = part * k_per_part
    for k in tl.range(first, tl.minimum(first + k_per_part, K), BLOCK_K, num_stages=STAGES):
        w = weight.load([tile * BLOCK_N, k])
        rows = x.load([0, k])
        acc = tl.dot(w, rows.T, acc)
    n = tile * BLOCK_N + tl.arange(0, BLOCK_N)[:, None]
    m = tl.arange(0, BLOCK_M)[None, :]
    mask = (n < N) & (m < num_rows)
    last = True
    if SPLIT > 1:
        acc, last = sum_of_parts(acc, parts, arrivals + tile, part, m, n, num_rows, N, mask, SPLIT)
    if last:
        acc = _finished(acc, acc, bias, n, N, n < N, HAS_BIAS, False)
        tl.store(out + m * N + n, acc.to(out.dtype.element_ty), mask=mask)


@dataclass(frozen=True, slots=True)
class GemvConfig:
    """Weight rows a program, inner elements a step, warps a program."""

    rows: int
    step: int
    warps: int


# [N, K] of the layers of Qwen3 0.6B and 8B; measured in a chain of dependent launches.
_GEMV_CONFIGS = {
    (4096, 1024): GemvConfig(2, 1024, 1),
    (1024, 2048): GemvConfig(2, 2048, 4),
    (6144, 1024): GemvConfig(4, 1024, 2),
    (1024, 3072): GemvConfig(1, 1024, 1),
    (151936, 1024): GemvConfig(4, 1024, 2),
    (6144, 4096): GemvConfig(2, 1024, 2),
    (4096, 4096): GemvConfig(4, 1024, 2),
    (24576, 4096): GemvConfig(1, 1024, 1),
    (4096, 12288): GemvConfig(4, 4096, 8),
    (151936, 4096): GemvConfig(1, 1024, 1),
}


def gemv_config(n: int, k: int) -> GemvConfig:
    """The measured configuration, or what did well on shapes of that size."""
    known = _GEMV_CONFIGS.get((n, k))
    if known is not None:
        return known
    if k <= 1024:
        return GemvConfig(4, 1024, 2)
    if k > 8192:
        return GemvConfig(2, 2048, 4)
    return GemvConfig(1, 1024, 1) if n * k >= 64 << 20 else GemvConfig(2, 1024, 2)


@dataclass(frozen=True, slots=True)
class WideConfig:
    """Weight rows and inner elements of a tile, pipeline stages, parts of the inner dimension."""

    block_n: int
    block_k: int
    stages: int
    split: int


def wide_config(n: int, k: int) -> WideConfig:
    """What measured best on an H200: few weight rows are split, so that more programs read."""
    if n >= 100_000:
        return WideConfig(128, 128, 4, 1)
    if k <= 1024:
        return WideConfig(64, 256, 3, 1)
    if (n <= 1024 and k % 256 == 0) or (n <= _MAX_SPLIT_OUTPUTS and k >= 8192 and k % 256 == 0):
        return WideConfig(64, 128, 5, 2)
    return WideConfig(64, 128, 5, 1)


def supports(m: int, n: int, k: int, dtype: torch.dtype) -> bool:
    """Whether ``linear_small`` takes x [m, k] and w [n, k], and is meant to: it beats cuBLAS."""
    if k % 8 or k > 32768:
        return False
    if m == 1:
        return dtype in (torch.bfloat16, torch.float16, torch.float32)
    # cuBLAS reads large weights with more outputs than inputs as fast, the head's excepted.
    pays = n <= k or n * k <= 8 << 20 or n >= 100_000
    return 2 <= m <= MAX_ROWS and pays and dtype in (torch.bfloat16, torch.float16)


def _gemv(
    x: Tensor, w: Tensor, bias: Tensor | None, out: Tensor, config: GemvConfig, gated: bool
) -> None:
    n, k = out.shape[1], w.shape[1]
    pdl = overlaps(x)
    _gemv_kernel[(cdiv(n, config.rows),)](
        x,
        w,
        bias if bias is not None else w,
        out,
        n,
        K=k,
        ROWS=config.rows,
        STEP=config.step,
        HAS_BIAS=bias is not None,
        GATED=gated,
        PDL=pdl,
        num_warps=config.warps,
        launch_pdl=pdl,
    )


def _wide(x: Tensor, w: Tensor, bias: Tensor | None, out: Tensor, config: WideConfig) -> None:
    (m, k), n = x.shape, out.shape[1]
    parts, arrivals = (
        split_workspace(x.device, _MAX_PARTS, _MAX_TILES) if config.split > 1 else (out, out)
    )
    pdl = overlaps(x)
    _wide_kernel[(cdiv(n, config.block_n), config.split)](
        TensorDescriptor.from_tensor(x, [MAX_ROWS, config.block_k]),
        TensorDescriptor.from_tensor(w, [config.block_n, config.block_k]),
        bias if bias is not None else out,
        out,
        parts,
        arrivals,
        m,
        n,
        k,
        k // config.split,
        SPLIT=config.split,
        BLOCK_M=MAX_ROWS,
        BLOCK_N=config.block_n,
        BLOCK_K=config.block_k,
        STAGES=config.stages,
        HAS_BIAS=bias is not None,
        PDL=pdl,
        num_warps=4,
        launch_pdl=pdl,
    )


def linear_small(
    x: Tensor,
    w: Tensor,
    bias: Tensor | None,
    config: GemvConfig | WideConfig | None = None,
) -> Tensor:
    """x [M, K] times w [N, K] transposed, plus bias [N] -> [M, N]; for what ``supports`` says yes
    to. x and w are contiguous.

    The weight is read before the launch before this one has ended: nothing that is still running
    may write it.
    """
    (m, k), n = x.shape, w.shape[0]
    out = torch.empty((m, n), dtype=x.dtype, device=x.device)
    if m == 1:
        chosen = config if isinstance(config, GemvConfig) else gemv_config(n, k)
        _gemv(x, w, bias, out, chosen, gated=False)
    else:
        wide = config if isinstance(config, WideConfig) else wide_config(n, k)
        _wide(x, w, bias, out, wide)
    return out


def gemv_gated(x: Tensor, w: Tensor, bias: Tensor | None) -> Tensor:
    """x [1, K] times w [2N, K] transposed, plus bias [2N]; SiLU of the first N outputs times the
    others -> [1, N]; one kernel. For what ``supports`` says yes to, of one row."""
    n, k = w.shape[0] // 2, x.shape[1]
    out = torch.empty((1, n), dtype=x.dtype, device=x.device)
    config = GemvConfig(2, 1024, 2) if k <= 1024 else GemvConfig(4, 512, 2)
    _gemv(x, w, bias, out, config, gated=True)
    return out
