"""A thinking budget, against a plain loop over the ids that a model would have written."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from tests.core.compute.rows import CPU, admitted, new_state

from jackfield.compute.row_state import RowFlag
from jackfield.compute.thinking_budget import force_ends
from jackfield.compute.transfer import Uploads
from jackfield.contracts.sampling import ThinkingBudget, TokenSampling

WIDTH = 20
PROMPT = [1, 2, 3]
START, END, OTHER_END, CLOSE = (10,), (11,), (12, 13), (14, 11)


def sampling_of(budget: int, start: tuple[int, ...], opened: bool) -> TokenSampling:
    thinking = ThinkingBudget(budget, (END, OTHER_END), CLOSE)
    return TokenSampling(
        reasoning_start_ids=start,
        reasoning_end_ids=END,
        starts_in_reasoning=opened,
        thinking=thinking,
    )


def expected(output: list[int], budget: int, start: tuple[int, ...], opened: bool) -> int | None:
    """The id that must come next, if there is one: a loop that reads from left to right."""
    begin = 0 if opened else None
    ends: list[int] = []
    for at in range(len(output) + 1):
        done = output[:at]
        if start and at <= 4 + len(start) and tuple(done[-len(start) :]) == start:
            if not (opened and ends):
                begin = at
                break
        if any(tuple(done[-len(end) :]) == end for end in (END, OTHER_END)):
            ends.append(at)
    if begin is None:
        return None
    thought = output[begin : begin + budget]
    for at in range(len(thought) + 1):
        if any(tuple(thought[:at][-len(end) :]) == end for end in (END, OTHER_END)):
            return None
    step = len(output) - begin - budget
    return CLOSE[step] if 0 <= step < len(CLOSE) else None


def forced(outputs: list[list[int]], samplings: list[TokenSampling]) -> list[int | None]:
    """What the device forces, for all rows in one step, in reverse order."""
    state = new_state(len(outputs) + 1)
    rows = list(range(len(outputs)))[::-1]
    state.admit(
        [
            admitted(row, PROMPT + output, sampling, len(PROMPT))
            for row, output, sampling in zip(rows, outputs, samplings, strict=True)
        ]
    )
    for row, output in zip(rows, outputs, strict=True):
        state.token_ids[row, len(PROMPT) + len(output) :] = END[0]  # what an earlier one left
    host_rows = np.array(rows, dtype=np.int32)
    positions = np.array([len(PROMPT) + len(output) for output in outputs], dtype=np.int32)
    state.flags_of_rows(host_rows, positions)
    near = np.flatnonzero(state.flags[host_rows] & int(RowFlag.THINKING)).tolist()
    before = torch.randn(len(outputs), WIDTH, generator=torch.Generator().manual_seed(0))
    after = before.clone()
    if near:
        targets = torch.from_numpy(np.stack([host_rows, positions])).long()
        force_ends(after, state, Uploads(CPU), near, host_rows, targets)
    result: list[int | None] = []
    for old, new in zip(before, after, strict=True):
        finite = torch.isfinite(new).nonzero().flatten().tolist()
        result.append(finite[0] if len(finite) == 1 else None)
        assert len(finite) == 1 or torch.equal(old, new)
    return result


@pytest.mark.parametrize("seed", range(40))
def test_what_is_forced_is_what_a_loop_says(seed: int) -> None:
    dice = random.Random(seed)
    outputs, samplings, wanted = [], [], []
    for _ in range(24):
        budget = dice.randrange(8)
        start = dice.choice([(), START, (10, 15)])
        opened = dice.random() < 0.5 or not start
        near = budget + len(start) + dice.randrange(-1, 4)
        output = [dice.choice([4, 5, 6, 7, 8, 9, 5, 6, 7]) for _ in range(max(0, near))]
        if start and dice.random() < 0.7:
            at = min(len(output), dice.randrange(6))
            output[at : at + len(start)] = start
        if dice.random() < 0.4 and output:
            at = dice.randrange(len(output))
            end = dice.choice([END, OTHER_END, OTHER_END[:1]])
            output[at : at + len(end)] = end
        outputs.append(output)
        samplings.append(sampling_of(budget, start, opened))
        wanted.append(expected(output, budget, start, opened))
    assert forced(outputs, samplings) == wanted
    assert any(each is not None for each in wanted)


def test_a_budget_of_0_ends_the_thought_at_once() -> None:
    opened, written = sampling_of(0, START, True), sampling_of(0, START, False)
    assert forced([[], [14], [14, 11]], [opened] * 3) == [14, 11, None]
    assert forced([[], [10], [10, 14], [5]], [written] * 4) == [None, 14, 11, None]


def test_steps_far_from_the_budget_cost_nothing() -> None:
    state = new_state(2)
    state.admit([admitted(0, PROMPT, sampling_of(5, START, True))])
    near = []
    for position in range(3, 20):
        flags = state.flags_of_rows(np.array([0], np.int32), np.array([position], np.int32))
        if flags & RowFlag.THINKING:
            near.append(position - len(PROMPT))
    assert near == list(range(5, 5 + len(CLOSE) + 4 + len(START)))
