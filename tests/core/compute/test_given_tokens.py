"""Tokens that no step samples, written to their row before a step computes them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tests.core.compute.steps import Driver, ReplayedFunction

from jackfield.contracts.work import Int32Array, PendingStep, ScheduledBatch

PROMPTS = [[5, 17, 40], list(range(20))]
GIVEN = [61, 2, 33, 90]


class GivingDriver(Driver):
    """Hands ``given`` to the worker with the next step."""

    given: Int32Array | None = None

    def execute(self, batch: ScheduledBatch) -> PendingStep:
        given, self.given = self.given, None
        return self.runner.execute(replace(batch, given=given))


@pytest.mark.parametrize("graphs", [False, True])
@pytest.mark.parametrize("budget", [3, 100])
def test_what_is_given_is_computed_as_if_it_had_been_in_the_prompt(
    graphs: bool, budget: int
) -> None:
    driver = GivingDriver(recorder=ReplayedFunction() if graphs else None)
    requests = [driver.request(row, prompt) for row, prompt in enumerate(PROMPTS)]
    driver.run(requests, 4)
    position = requests[0].num_prompt + len(requests[0].output)
    driver.given = np.array(
        [[0, position + i, token] for i, token in enumerate(GIVEN)], dtype=np.int32
    )
    requests[0].output += GIVEN
    driver.run(requests, 14, budget)
    fresh = Driver()
    whole = fresh.request(0, PROMPTS[0] + requests[0].output[: 4 + len(GIVEN)])
    other = fresh.request(1, PROMPTS[1])
    fresh.run([whole], 14 - 4 - len(GIVEN))
    fresh.run([other], 14)
    assert requests[0].output[4 + len(GIVEN) :] == whole.output
    assert requests[1].output == other.output
