"""Packed token masks laid over logits."""

import triton
import triton.language as tl
from torch import Tensor

from jackfield.compute.kernels.launch import quick

_WORDS = 64


@quick
@triton.jit
def _mask_kernel(logits, places, bits, row_stride, num_words, width, WORDS: tl.constexpr):
    mask_row = tl.program_id(0).to(tl.int64)
    row = tl.load(places + mask_row).to(tl.int64)
    if row < 0:
        return
    words = tl.program_id(1) * WORDS + tl.arange(0, WORDS)
    packed = tl.load(bits + mask_row * num_words + words, mask=words < num_words, other=0)
    bit = tl.arange(0, 32)
    forbidden = ((packed[:, None] >> bit[None, :]) & 1) == 0
    ids = words[:, None] * 32 + bit[None, :]
    out = logits + row * row_stride + ids
    nothing = tl.full((WORDS, 32), float("-inf"), tl.float32).to(logits.dtype.element_ty)
    tl.store(out, nothing, mask=forbidden & (ids < width))


def mask_logits(logits: Tensor, places: Tensor, bits: Tensor) -> None:
    """Writes -inf into ``logits`` [N, V], any float type, in place.

    ``places`` int32 [M], rows of the logits, -1 for none; ``bits`` int32 [M, W], 32 W >= V,
    contiguous: bit i % 32 of word i // 32 keeps id i.
    """
    num_masks, num_words = bits.shape
    width = logits.shape[1]
    grid = (num_masks, triton.cdiv(triton.cdiv(width, 32), _WORDS))
    _mask_kernel[grid](
        logits, places, bits, logits.stride(0), num_words, width, WORDS=_WORDS, num_warps=4
    )
