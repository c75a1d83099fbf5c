from __future__ import annotations

import pytest
import torch
from tests.core.compute.rows import new_state
from torch import Tensor

from jackfield.compute import ops, step_sampler
from jackfield.compute.row_state import RowState
from jackfield.compute.sampler import SamplingMode, Way
from jackfield.compute.step_sampler import StepSampler
from jackfield.compute.token_masks import MaskRoom
from jackfield.compute.transfer import Uploads


def test_a_start_launches_what_samples_with_rules_and_under_masks_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    launched: set[tuple[str, torch.dtype]] = set()

    def greedily(logits: Tensor, rows: Tensor, positions: Tensor, token_ids: Tensor) -> Tensor:
        launched.add(("greedy", logits.dtype))
        return rows.int()

    def by_kernels(
        logits: Tensor, state: RowState, rows: Tensor, positions: Tensor, mode: SamplingMode
    ) -> Tensor:
        launched.add(("whole" if mode.way is Way.WHOLE else "nucleus", logits.dtype))
        return rows.int()

    monkeypatch.setattr(torch.Tensor, "is_cuda", True)
    monkeypatch.setattr(ops, "choose_greedily", greedily)
    monkeypatch.setattr(step_sampler, "choose_by_kernels", by_kernels)
    monkeypatch.setattr(
        MaskRoom, "apply", lambda room, logits: launched.add(("masks", logits.dtype))
    )
    sampler = StepSampler(new_state(2), Uploads(torch.device("cpu")), torch.bfloat16)
    sampler.warm_up(100)
    kinds, dtypes = ("masks", "greedy", "whole", "nucleus"), (torch.bfloat16, torch.float32)
    assert launched == {(kind, dtype) for kind in kinds for dtype in dtypes}
