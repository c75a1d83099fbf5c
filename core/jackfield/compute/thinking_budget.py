"""Ending a thought that has used its budget: the ids of its end are forced, one a step.

A row's budget can run out at a few positions only, and the host knows them: at these, and no
others, the device looks at the row's ids to see where the thought began and whether it has ended.
Nothing is remembered between steps, so that a preemption or a step ahead puts nothing out of step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from jackfield.compute.transfer import Uploads
from jackfield.contracts.sampling import REASONING_STARTS_WITHIN, ThinkingBudget, TokenSampling
from jackfield.contracts.work import Int32Array

if TYPE_CHECKING:
    from jackfield.compute.row_state import RowState

_NOWHERE = 2**31 - 1
_PADDING = -1
_UNKNOWN = -2
"""Stands for ids that a row does not have yet."""


def forced_positions(sampling: TokenSampling, num_prompt_tokens: int) -> tuple[int, int]:
    """The positions, from and to, at which an id may be forced; to is below from for none."""
    thinking = sampling.thinking
    if thinking is None:
        return _NOWHERE, 0
    first = num_prompt_tokens + thinking.max_tokens
    last = first + len(thinking.close_ids)
    if sampling.reasoning_start_ids:
        last += REASONING_STARTS_WITHIN + len(sampling.reasoning_start_ids)
    return min(first, _NOWHERE), min(last, _NOWHERE)


def force_ends(
    logits: Tensor,
    state: RowState,
    uploads: Uploads,
    places: Sequence[int],
    host_rows: Int32Array,
    targets: Tensor,
) -> None:
    """Leaves rows whose budget is used up one possible id, in place.

    ``logits`` [N, V]; ``places``: the K of the N rows that may be at their end; ``host_rows``
    int32 [N] and ``targets`` int64 [2, N]: rows and positions that the sampled ids go to.
    Enqueues some 40 small operations on [K, longest budget]; waits for nothing.
    """
    samplings = [state.sampling[row] for row in host_rows[list(places)]]
    budgets = [sampling.thinking for sampling in samplings if sampling.thinking is not None]
    starts, ends, closes = _tables(samplings, budgets)
    prompts = state.num_prompt_tokens[host_rows[list(places)]]
    numbers = np.array(
        [
            places,
            prompts,
            [budget.max_tokens for budget in budgets],
            [sampling.starts_in_reasoning for sampling in samplings],
        ],
        dtype=np.int32,
    )
    tables = [numbers, starts, closes, *ends]
    flat = uploads.upload(np.concatenate([table.reshape(-1) for table in tables])).long()
    parts = torch.split(flat, [table.size for table in tables])
    start, close, *end = (
        part.view(table.shape) for part, table in zip(parts[1:], tables[1:], strict=True)
    )
    index, prompt, budget, opened = parts[0].view(4, -1)
    rows, positions = targets[:, index]
    longest = max(budget.max_tokens for budget in budgets)
    length = longest + REASONING_STARTS_WITHIN + starts.shape[1] + max(e.shape[1] for e in ends)
    ids = _output_ids(state, rows, prompt, positions, length)
    begin, ended = _thought(ids, start, end, budget, opened.bool())
    step = positions - prompt - begin - budget
    forced = (begin >= 0) & (step >= 0) & (step < _lengths(close)) & ~ended
    chosen = close.gather(1, step.clamp(0, close.shape[1] - 1).unsqueeze(1)).clamp_min(0)
    picked = logits.index_select(0, index)
    kept = picked.gather(1, chosen)
    picked.masked_fill_(forced.unsqueeze(1), -torch.inf)
    picked.scatter_(1, chosen, torch.where(forced.unsqueeze(1), 0.0, kept).to(picked.dtype))
    logits.index_copy_(0, index, picked)


def _tables(
    samplings: Sequence[TokenSampling], budgets: Sequence[ThinkingBudget]
) -> tuple[Int32Array, list[Int32Array], Int32Array]:
    """Start ids [K, k], the ids of each way to end [K, e], closing ids [K, m]."""
    ways = max(len(budget.ends) for budget in budgets)
    return (
        _padded([sampling.reasoning_start_ids for sampling in samplings]),
        [
            _padded([budget.ends[way] if way < len(budget.ends) else () for budget in budgets])
            for way in range(ways)
        ],
        _padded([budget.close_ids for budget in budgets]),
    )


def _padded(lists: Sequence[Sequence[int]]) -> Int32Array:
    table: Int32Array = np.full(
        (len(lists), max(1, *(len(ids) for ids in lists))), _PADDING, dtype=np.int32
    )
    for row, ids in zip(table, lists, strict=True):
        row[: len(ids)] = ids
    return table


def _output_ids(
    state: RowState, rows: Tensor, prompt: Tensor, positions: Tensor, length: int
) -> Tensor:
    """The first ids of the outputs, int64 [K, length]."""
    at = prompt.unsqueeze(1) + torch.arange(length, device=rows.device)
    known = at < positions.unsqueeze(1)
    ids = state.gather_ids(rows.unsqueeze(1).expand_as(at), torch.where(known, at, 0))
    return torch.where(known, ids, _UNKNOWN)


def _thought(
    ids: Tensor, start: Tensor, ends: Sequence[Tensor], budget: Tensor, opened: Tensor
) -> tuple[Tensor, Tensor]:
    """Where the thought begins in the output, int64 [K], -1 if it does not; whether it ended by
    itself within the budget, bool [K]."""
    end_places = [_found(ids, end) for end in ends]
    first_end = torch.stack([_first(found) for found in end_places]).amin(0)
    start_place = _first(_found(ids, start)[:, : REASONING_STARTS_WITHIN + 1])
    has_start = (start_place < _NOWHERE) & ~(opened & (first_end < start_place))
    begin = torch.where(has_start, start_place + _lengths(start), torch.where(opened, 0, -1))
    ended = torch.zeros_like(opened)
    for end, found in zip(ends, end_places, strict=True):
        at = torch.arange(found.shape[1], device=ids.device)
        last = (begin + budget - _lengths(end)).unsqueeze(1)
        ended |= (found & (at >= begin.unsqueeze(1)) & (at <= last)).any(1)
    return begin, ended


def _found(ids: Tensor, marker: Tensor) -> Tensor:
    """bool [K, L']: where each row's marker stands in its ids. Padding matches anything; a row
    without a marker finds none."""
    count = max(0, ids.shape[1] - marker.shape[1] + 1)
    found = (marker[:, :1] != _PADDING).expand(-1, count).clone()
    for at in range(marker.shape[1]):
        wanted = marker[:, at : at + 1]
        found &= (ids[:, at : at + count] == wanted) | (wanted == _PADDING)
    return found


def _first(found: Tensor) -> Tensor:
    """int64 [K]: the first place that is true."""
    places = torch.arange(found.shape[1], device=found.device).expand_as(found)
    return torch.where(found, places, _NOWHERE).amin(1)


def _lengths(table: Tensor) -> Tensor:
    return (table != _PADDING).sum(1)
