"""The most likely tokens of each row, found fast on the device at hand.

On the CPU argmax and topk cost 3 to 8 times the reading of their input, the maximum of a run
does not: both are therefore taken over the runs of a row that can hold the answer.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_RUNS = 64
_SHORTEST_RUN = 512
_LINES = 128
_LOGITS_AT_ONCE = 1 << 20
"""So that what is made of them on the way stays in the cache."""


def most_likely(logits: Tensor) -> Tensor:
    """int64 [N]: the first of the largest logits, [N, V] of any float type; a NaN is largest."""
    if logits.is_cuda:
        return logits.argmax(-1)
    num_rows, width = logits.shape
    runs = math.gcd(width, _RUNS)
    while runs > 1 and width // runs < _SHORTEST_RUN:
        runs //= 2
    parts = logits.contiguous().view(num_rows * runs, width // runs)
    # Float32, because argmax of bfloat16 is four times as slow.
    run = parts.amax(-1).view(num_rows, runs).float().argmax(-1)
    place = torch.arange(0, num_rows * runs, runs, device=logits.device) + run
    return run * parts.shape[1] + parts.index_select(0, place).float().argmax(-1)


def shortlist(logits: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """The most likely tokens, best first: (float32 [N, C], ids int64 [N, C]); C is ``length`` or
    the width. Which of equal logits stand at the end is open."""
    length = min(length, logits.shape[1])
    if logits.is_cuda:
        values, ids = logits.topk(length, dim=-1)
        return values.float(), ids
    width = logits.shape[1]
    height = math.gcd(width, _LINES)
    while height > 1 and width // height < 4 * length:
        height //= 2
    rows = max(1, _LOGITS_AT_ONCE // width)
    groups = [_in_columns(part, length, height) for part in torch.split(logits, rows)]
    if len(groups) == 1:
        return groups[0]
    return torch.cat([values for values, _ in groups]), torch.cat([ids for _, ids in groups])


def _in_columns(logits: Tensor, length: int, height: int) -> tuple[Tensor, Tensor]:
    """Each row written in ``height`` lines: its largest values are in the ``length`` columns
    with the largest maxima."""
    num_rows, width = logits.shape
    if height == 1:
        return torch.topk(logits.float(), length, dim=-1)
    lines = logits.contiguous().view(num_rows, height, width // height)
    columns = lines.amax(1).float().topk(length, dim=-1, sorted=False).indices
    wide = columns.unsqueeze(1).expand(-1, height, -1)
    values, place = lines.gather(2, wide).view(num_rows, -1).float().topk(length, dim=-1)
    line = place.div(length, rounding_mode="floor")
    column = columns.gather(1, place - line * length)
    return values, line * (width // height) + column
