"""Batch state for tests: rows with given sampling parameters and tokens, on the CPU."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from jackfield.compute.row_state import RowSampling, RowState
from jackfield.compute.transfer import Uploads
from jackfield.contracts.sampling import TokenSampling
from jackfield.contracts.work import AdmittedRow

CPU = torch.device("cpu")


def new_state(max_num_seqs: int, max_model_len: int = 64, block_size: int = 8) -> RowState:
    return RowState(
        max_num_seqs=max_num_seqs,
        max_model_len=max_model_len,
        block_size=block_size,
        device=CPU,
        uploads=Uploads(CPU),
    )


def admitted(
    row: int, token_ids: Sequence[int], sampling: TokenSampling, num_prompt_tokens: int = -1
) -> AdmittedRow:
    count = num_prompt_tokens if num_prompt_tokens >= 0 else len(token_ids)
    return AdmittedRow(row, np.array(token_ids, dtype=np.int32), count, sampling)


def gathered(samplings: Sequence[TokenSampling]) -> RowSampling:
    """What the device knows of rows with these parameters."""
    state = new_state(len(samplings))
    state.admit([admitted(row, [1], sampling) for row, sampling in enumerate(samplings)])
    return state.gather_sampling(torch.arange(len(samplings)))
