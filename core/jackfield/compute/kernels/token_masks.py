"""Packed token masks laid over logits."""

import triton
import triton.language as tl
from torch import Tensor

from jackfield.compute.kernels.launch import cdiv, quick

_WORDS = 128


@quick
@triton.jit
def _mask_kernel(logits, codes, bits, kept, row_stride, num_words, width, WORDS: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    code = tl.load(codes + row).to(tl.int64)
    if code < 0:
        return
    word = tl.program_id(1) * WORDS + tl.arange(0, WORDS)
    place = (code >> 1) * num_words + word
    inside = word < num_words
    # Each word is read once: the masks may lie in the host's memory.
    if code & 1:
        words = tl.load(bits + place, mask=inside, other=0)
        tl.store(kept + place, words, mask=inside)
    else:
        words = tl.load(kept + place, mask=inside, other=0)
    bit = tl.arange(0, 32)
    ids = word[:, None] * 32 + bit[None, :]
    # Whole vectors are read and written: single numbers here and there take three times as long.
    out = logits + row * row_stride + ids
    values = tl.load(out, mask=ids < width, other=0.0)
    nothing = tl.full((WORDS, 32), float("-inf"), tl.float32).to(values.dtype)
    is_allowed = ((words[:, None] >> bit[None, :]) & 1) != 0
    tl.store(out, tl.where(is_allowed, values, nothing), mask=ids < width)


def mask_logits(logits: Tensor, codes: Tensor, bits: Tensor, kept: Tensor) -> None:
    """Writes -inf into ``logits`` [N, V], any float type, in place.

    ``codes`` int32 [N]: -1 for a row without a mask, else twice the slot of its mask, and 1 more
    where the mask is new. ``bits`` int32 [S, W], 32 W >= V, contiguous: bit i % 32 of word i // 32
    keeps id i. Both may lie in pinned memory of the host. ``kept``, like ``bits``, has the masks on
    the device: new ones are written to it, the others read from it.
    """
    num_rows, width = logits.shape
    num_words = bits.shape[1]
    grid = (num_rows, cdiv(cdiv(width, 32), _WORDS))
    _mask_kernel[grid](
        logits, codes, bits, kept, logits.stride(0), num_words, width, WORDS=_WORDS, num_warps=8
    )
