"""Products whose inner dimension is split among programs: the last to arrive adds the parts."""

from __future__ import annotations

from functools import cache

import torch
import triton
import triton.language as tl
from torch import Tensor


@cache
def split_workspace(device: torch.device, num_parts: int, num_tiles: int) -> tuple[Tensor, Tensor]:
    """Room for the parts, float32 [num_parts], and counts of arrivals, int32 [num_tiles]. All that
    ask for the same have the same: a launch waits for the one before, and leaves the counts 0."""
    capturing = device.type == "cuda" and torch.cuda.is_current_stream_capturing()
    assert not capturing, "multiply once before capturing it"
    counts = torch.zeros(num_tiles, dtype=torch.int32, device=device)
    return torch.empty(num_parts, device=device), counts


@triton.jit
def sum_of_parts(y, parts, arrival, part, m, n, num_rows, N, mask, SPLIT: tl.constexpr):
    """The sum of what SPLIT programs have, and True, in the last one to arrive."""
    there = parts + m * N + n
    tl.store(there + part * num_rows * N, y, mask=mask)
    # The barrier orders this program's stores before its one releasing increment.
    tl.debug_barrier()
    last = tl.atomic_add(arrival, 1, sem="acq_rel") == SPLIT - 1
    if last:
        tl.debug_barrier()
        y = tl.zeros_like(y)
        for s in range(SPLIT):
            y += tl.load(there + s * num_rows * N, mask=mask, other=0.0, cache_modifier=".cg")
        tl.store(arrival, 0)
    return y, last
