"""The most likely token of each row, written to where the next step reads it."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from jackfield.compute.kernels.launch import cdiv, power_of_2, quick

_PART = 8192


@quick
@triton.jit
def _part_kernel(
    logits, peaks, places, stride, V: tl.constexpr, PARTS: tl.constexpr, PART: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64)
    part = tl.program_id(1)
    cols = part * PART + tl.arange(0, PART)
    x = tl.load(logits + row * stride + cols, mask=cols < V, other=float("-inf")).to(tl.float32)
    is_nan = x != x
    peak = tl.max(tl.where(is_nan, float("inf"), x), 0)
    place = tl.min(tl.where((x == peak) | is_nan, cols, V), 0)
    tl.store(peaks + row * PARTS + part, peak)
    tl.store(places + row * PARTS + part, place)


@quick
@triton.jit
def _whole_kernel(
    peaks,
    places,
    rows,
    positions,
    token_ids,
    chosen,
    ids_stride,
    V: tl.constexpr,
    PARTS: tl.constexpr,
    P2: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    parts = tl.arange(0, P2)
    inside = parts < PARTS
    some = tl.load(peaks + row * PARTS + parts, mask=inside, other=float("-inf"))
    where = tl.load(places + row * PARTS + parts, mask=inside, other=V)
    peak = tl.max(some, 0)
    token = tl.min(tl.where(some == peak, where, V), 0)
    token = tl.minimum(token, V - 1)
    target = tl.load(rows + row) * ids_stride + tl.load(positions + row)
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
    places = torch.empty((num_rows, parts), dtype=torch.int32, device=device)
    chosen = torch.empty(num_rows, dtype=torch.int32, device=device)
    _part_kernel[(num_rows, parts)](
        logits, peaks, places, logits.stride(0), V=width, PARTS=parts, PART=_PART, num_warps=8
    )
    _whole_kernel[(num_rows,)](
        peaks,
        places,
        rows,
        positions,
        token_ids,
        chosen,
        token_ids.stride(0),
        V=width,
        PARTS=parts,
        P2=power_of_2(parts),
        num_warps=1,
    )
    return chosen
