"""The most likely token of each row, written to where the next step reads it."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from jackfield.compute.kernels.launch import cdiv, power_of_2, quick

_PART = 8192


@triton.jit
def _larger(a, b):
    # A NaN is larger than any number.
    return tl.maximum(a, b, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def _part_of(logits, row, part, stride, V: tl.constexpr, PART: tl.constexpr):
    cols = part * PART + tl.arange(0, PART)
    x = tl.load(logits + row * stride + cols, mask=cols < V, other=float("-inf"))
    return cols, x.to(tl.float32)


@quick
@triton.jit
def _part_kernel(logits, peaks, stride, V: tl.constexpr, PARTS: tl.constexpr, PART: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    part = tl.program_id(1)
    _, x = _part_of(logits, row, part, stride, V, PART)
    tl.store(peaks + row * PARTS + part, tl.reduce(x, 0, _larger))


@quick
@triton.jit(do_not_specialize_on_alignment=["rows", "positions"])
def _whole_kernel(
    logits,
    peaks,
    rows,
    positions,
    token_ids,
    chosen,
    stride,
    ids_stride,
    V: tl.constexpr,
    PARTS: tl.constexpr,
    PART: tl.constexpr,
    P2: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    target = tl.load(rows + row) * ids_stride + tl.load(positions + row)
    parts = tl.arange(0, P2)
    some = tl.load(peaks + row * PARTS + parts, mask=parts < PARTS, other=float("-inf"))
    peak = tl.reduce(some, 0, _larger)
    # The part is read once more, for where in it the peak is.
    part = tl.min(tl.where(some == peak, parts, PARTS - 1), 0)
    cols, x = _part_of(logits, row, part, stride, V, PART)
    token = tl.minimum(tl.min(tl.where(x == peak, cols, V), 0), V - 1)
    tl.store(token_ids + target, token)
    possible = (peak < float("inf")) & (peak > float("-inf"))
    tl.store(chosen + row, tl.where(possible, token, -1))


def choose_greedily(logits: Tensor, rows: Tensor, positions: Tensor, token_ids: Tensor) -> Tensor:
    """The first of the largest of each row of logits [N, V], int32 [N]; -1 where that is no finite
    number or the row has a NaN. Written (some token then) to ``token_ids`` int32 [R, M] at
    ``rows``, ``positions``, int64 [N] both."""
    num_rows, width = logits.shape
    assert logits.stride(1) == 1
    parts = cdiv(width, _PART)
    device = logits.device
    peaks = torch.empty((num_rows, parts), dtype=torch.float32, device=device)
    chosen = torch.empty(num_rows, dtype=torch.int32, device=device)
    stride = logits.stride(0)
    sizes = {"V": width, "PARTS": parts, "PART": _PART}
    _part_kernel[(num_rows, parts)](logits, peaks, stride, **sizes, num_warps=8)
    _whole_kernel[(num_rows,)](
        logits,
        peaks,
        rows,
        positions,
        token_ids,
        chosen,
        stride,
        token_ids.stride(0),
        **sizes,
        P2=power_of_2(parts),
        num_warps=8,
    )
    return chosen
