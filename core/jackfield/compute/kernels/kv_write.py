"""Storing new keys and values into the pages."""

import triton
import triton.language as tl
from torch import Tensor

from jackfield.compute.kernels.launch import overlaps, power_of_2, quick


@triton.jit
def finite(x):
    """x, infinities and NaN as the largest number instead.

    Kernels multiply what a page holds behind a sequence by zero, which only a number survives;
    whoever computed the infinity still gets numbers too large to go on with.
    """
    LARGEST: tl.constexpr = 65504.0 if x.dtype == tl.float16 else 3.3895313892515355e38
    wide = x.to(tl.float32)
    return tl.where((wide >= -LARGEST) & (wide <= LARGEST), wide, LARGEST).to(x.dtype)


@triton.jit
def as_stored(x, unit, pages):
    """x as the pages hold it: finite, and times ``unit``, of ``load_unit``, where they are 8-bit
    floats."""
    STORED: tl.constexpr = pages.dtype.element_ty
    if STORED.is_fp8():
        LARGEST: tl.constexpr = 448.0 if STORED == tl.float8e4nv else 57344.0
        wide = x.to(tl.float32) * unit
        wide = tl.where(wide <= LARGEST, wide, LARGEST)
        return tl.where(wide >= -LARGEST, wide, -LARGEST).to(STORED)
    else:
        return finite(x)


@triton.jit
def load_scale(scales, pages):
    """Of a layer's keys, or of its values (``scales`` + 1); 1 for pages with all their bits."""
    return tl.load(scales) if pages.dtype.element_ty.is_fp8() else 1.0


@triton.jit
def load_unit(scales, pages):
    """1 / ``load_scale``, by which a product is what a quotient is for the powers of 2 that are
    measured, and within one float32 of it for others. Dividing each number took as long as all the
    rest of a kernel that writes a row."""
    return tl.div_rn(1.0, tl.load(scales)) if pages.dtype.element_ty.is_fp8() else 1.0


@quick
@triton.jit(do_not_specialize_on_alignment=["slots", "scales"])
def _kv_write_kernel(
    k,
    v,
    key_pages,
    value_pages,
    scales,
    slots,
    k_stride,
    v_stride,
    NUM_KV_HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    BLOCK_H: tl.constexpr,
    BLOCK_D: tl.constexpr,
    PDL: tl.constexpr,
):
    token = tl.program_id(0).to(tl.int64)
    heads = tl.arange(0, BLOCK_H)[:, None]
    dims = tl.arange(0, BLOCK_D)[None, :]
    mask = (heads < NUM_KV_HEADS) & (dims < HEAD_DIM)
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()
        tl.extra.cuda.gdc_wait()
    slot = tl.load(slots + token)
    page = slot // BLOCK_SIZE
    place = (page * NUM_KV_HEADS + heads) * BLOCK_SIZE + slot % BLOCK_SIZE
    source = heads * HEAD_DIM + dims
    new_k = tl.load(k + token * k_stride + source, mask=mask, other=0.0)
    new_v = tl.load(v + token * v_stride + source, mask=mask, other=0.0)
    k_unit, v_unit = load_unit(scales, key_pages), load_unit(scales + 1, value_pages)
    place = place * HEAD_DIM + dims
    tl.store(key_pages + place, as_stored(new_k, k_unit, key_pages), mask=mask)
    tl.store(value_pages + place, as_stored(new_v, v_unit, value_pages), mask=mask)


def kv_write(
    k: Tensor,
    v: Tensor,
    key_pages: Tensor,
    value_pages: Tensor,
    slots: Tensor,
    scales: Tensor | None = None,
) -> None:
    """Stores k and v [T, K, D] (rows may be strided) in pages [N, K, block_size, D] at ``slots``
    int64 [T], block * block_size + offset. ``scales`` float32 [2]: of 8-bit pages."""
    num_tokens, num_kv_heads, head_dim = k.shape
    if not num_tokens:
        return
    pdl = overlaps(k)
    _kv_write_kernel[(num_tokens,)](
        k,
        v,
        key_pages,
        value_pages,
        k if scales is None else scales,
        slots,
        k.stride(0),
        v.stride(0),
        NUM_KV_HEADS=num_kv_heads,
        HEAD_DIM=head_dim,
        BLOCK_SIZE=key_pages.shape[2],
        BLOCK_H=power_of_2(num_kv_heads),
        BLOCK_D=power_of_2(head_dim),
        PDL=pdl,
        num_warps=4,
        launch_pdl=pdl,
    )
