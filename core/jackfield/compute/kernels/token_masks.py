"""Packed token masks laid over logits."""

import triton
import triton.language as tl
from torch import Tensor

from jackfield.compute.kernels.launch import cdiv, quick

_WORDS = 128


@quick
@triton.jit
def _mask_kernel(logits, slots, bits, row_stride, num_words, width, WORDS: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    slot = tl.load(slots + row).to(tl.int64)
    if slot < 0:
        return
    # Each word is read once: the masks may lie in the host's memory.
    word = tl.program_id(1) * WORDS + tl.arange(0, WORDS)
    words = tl.load(bits + slot * num_words + word, mask=word < num_words, other=0)
    bit = tl.arange(0, 32)
    ids = word[:, None] * 32 + bit[None, :]
    # Whole vectors are read and written: single numbers here and there take three times as long.
    out = logits + row * row_stride + ids
    values = tl.load(out, mask=ids < width, other=0.0)
    nothing = tl.full((WORDS, 32), float("-inf"), tl.float32).to(values.dtype)
    is_allowed = ((words[:, None] >> bit[None, :]) & 1) != 0
    tl.store(out, tl.where(is_allowed, values, nothing), mask=ids < width)


def mask_logits(logits: Tensor, slots: Tensor, bits: Tensor) -> None:
    """Writes -inf into ``logits`` [N, V], any float type, in place.

    ``slots`` int32 [N], which mask each row has, -1 for none; ``bits`` int32 [S, W], 32 W >= V,
    contiguous: bit i % 32 of word i // 32 keeps id i. Both may lie in pinned memory of the host.
    """
    num_rows, width = logits.shape
    num_words = bits.shape[1]
    grid = (num_rows, cdiv(cdiv(width, 32), _WORDS))
    _mask_kernel[grid](
        logits, slots, bits, logits.stride(0), num_words, width, WORDS=_WORDS, num_warps=8
    )
