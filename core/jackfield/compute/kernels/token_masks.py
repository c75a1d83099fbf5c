"""Packed token masks laid over logits."""

import triton
import triton.language as tl
from torch import Tensor

from jackfield.compute.kernels.launch import cdiv, quick

_BLOCK = 4096


@quick
@triton.jit
def _mask_kernel(logits, places, bits, row_stride, num_words, width, BLOCK: tl.constexpr):
    mask_row = tl.program_id(0).to(tl.int64)
    row = tl.load(places + mask_row).to(tl.int64)
    if row < 0:
        return
    ids = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = ids < width
    words = tl.load(bits + mask_row * num_words + (ids >> 5), mask=inside, other=0)
    # Whole vectors are read and written: single numbers here and there take three times as long.
    out = logits + row * row_stride + ids
    values = tl.load(out, mask=inside, other=0.0)
    nothing = tl.full((BLOCK,), float("-inf"), tl.float32).to(values.dtype)
    tl.store(out, tl.where(((words >> (ids & 31)) & 1) != 0, values, nothing), mask=inside)


def mask_logits(logits: Tensor, places: Tensor, bits: Tensor) -> None:
    """Writes -inf into ``logits`` [N, V], any float type, in place.

    ``places`` int32 [M], rows of the logits, -1 for none; ``bits`` int32 [M, W], 32 W >= V,
    contiguous: bit i % 32 of word i // 32 keeps id i.
    """
    num_masks, num_words = bits.shape
    width = logits.shape[1]
    grid = (num_masks, cdiv(width, _BLOCK))
    _mask_kernel[grid](
        logits, places, bits, logits.stride(0), num_words, width, BLOCK=_BLOCK, num_warps=8
    )
