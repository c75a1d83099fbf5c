"""Logprobs of prompt tokens, from the hidden states of the step that computes their positions."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from torch import Tensor

from jackfield.compute.logprobs import prompt_logprobs
from jackfield.compute.pending import PromptLogprobs
from jackfield.compute.row_state import RowFlag, RowState
from jackfield.compute.transfer import Uploads
from jackfield.contracts.work import ScheduledBatch


def asks_prompt_logprobs(batch: ScheduledBatch, state: RowState) -> bool:
    """Whether some row of the step wants them."""
    return bool((state.flags[batch.rows] & int(RowFlag.PROMPT_LOGPROBS)).any())


def step_prompt_logprobs(
    batch: ScheduledBatch,
    hidden: Tensor,
    state: RowState,
    uploads: Uploads,
    compute_logits: Callable[[Tensor], Tensor],
    positions_at_once: int,
) -> PromptLogprobs | None:
    """Logprobs of the prompt tokens that follow the prompt positions of this step; ``hidden``
    [T, hidden] is the whole step's. Logits are made of ``positions_at_once`` of them."""
    asked = np.flatnonzero(state.flags[batch.rows] & int(RowFlag.PROMPT_LOGPROBS))
    first = batch.first_positions
    counts = np.minimum(batch.num_tokens, state.num_prompt_tokens[batch.rows] - 1 - first)
    asked = asked[counts[asked] > 0]
    if len(asked) == 0:
        return None
    starts = np.cumsum(batch.num_tokens) - batch.num_tokens
    places = [np.arange(starts[i], starts[i] + counts[i]) for i in asked]
    positions = [np.arange(first[i] + 1, first[i] + 1 + counts[i]) for i in asked]
    rows = np.repeat(batch.rows[asked], counts[asked])
    packed = np.concatenate([*places, *positions, rows]).astype(np.int32)
    place, position, row = uploads.upload(packed).long().view(3, -1)
    asked_rows = batch.rows[asked].tolist()
    num_tops = [state.sampling[i].prompt_logprobs or 0 for i in asked_rows]
    tensors = prompt_logprobs(
        hidden.index_select(0, place),
        state.gather_ids(row, position),
        compute_logits,
        max(num_tops),
        positions_at_once,
    )
    begins = (first[asked] + 1).tolist()
    return PromptLogprobs(tensors, asked_rows, counts[asked].tolist(), begins, num_tops)
