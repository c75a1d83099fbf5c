"""SiLU or GELU of the gate times the up projection (SwiGLU and GEGLU, arXiv 2002.05202)."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from jackfield.compute.kernels.launch import cdiv, overlaps, quick

_BLOCK = 1024


@triton.jit
def gated(gate, up, ALPHA: tl.constexpr, LIMIT: tl.constexpr):
    """SwiGLU in float32, or with a LIMIT what ``ops.clamped_swiglu`` says."""
    if LIMIT > 0:
        gate = tl.minimum(gate, LIMIT)
        up = tl.minimum(tl.maximum(up, -LIMIT), LIMIT) + 1.0
    return gate * tl.sigmoid(gate * ALPHA) * up


@triton.jit
def _gelu(x):
    # Its approximation by tanh; tanh(y) + 1 is 2 sigmoid(2 y). Below -10 it is nothing.
    c = tl.maximum(x, -10.0)
    return x * tl.sigmoid(1.5957691216057308 * (c + 0.044715 * c * c * c))


@quick
@triton.jit
def _gate_and_mul_kernel(
    x, out, x_stride, N: tl.constexpr, BLOCK: tl.constexpr, GELU: tl.constexpr, PDL: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64)
    cols = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mask = cols < N
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()
        tl.extra.cuda.gdc_wait()
    gate = tl.load(x + row * x_stride + cols, mask=mask, other=0.0).to(tl.float32)
    up = tl.load(x + row * x_stride + N + cols, mask=mask, other=0.0).to(tl.float32)
    value = _gelu(gate) * up if GELU else gated(gate, up, 1.0, 0.0)
    tl.store(out + row * N + cols, value.to(out.dtype.element_ty), mask=mask)


def silu_and_mul(x: Tensor) -> Tensor:
    """x [T, 2I], the gate first -> silu(gate) * up [T, I]."""
    return _gate_and_mul(x, gelu=False)


def gelu_and_mul(x: Tensor) -> Tensor:
    """x [T, 2I], the gate first -> gelu(gate) * up [T, I], the GELU approximated by tanh."""
    return _gate_and_mul(x, gelu=True)


def _gate_and_mul(x: Tensor, *, gelu: bool) -> Tensor:
    num_rows, width = x.shape
    n = width // 2
    out = torch.empty((num_rows, n), dtype=x.dtype, device=x.device)
    if not num_rows:
        return out
    pdl = overlaps(x)
    _gate_and_mul_kernel[(num_rows, cdiv(n, _BLOCK))](
        x, out, x.stride(0), N=n, BLOCK=_BLOCK, GELU=gelu, PDL=pdl, num_warps=4, launch_pdl=pdl
    )
    return out
