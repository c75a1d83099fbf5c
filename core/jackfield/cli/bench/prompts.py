"""Random prompts for the offline benchmarks."""

from __future__ import annotations

import random

LOW_ID, HIGH_ID = 300, 4000
"""Ordinary token ids in every vocabulary of this field: above the bytes, below any special."""


def random_prompts(count: int, low: int, high: int, seed: int) -> list[list[int]]:
    """``count`` prompts of ids, each of a length drawn uniformly from low..high."""
    rng = random.Random(seed)
    return [
        [rng.randrange(LOW_ID, HIGH_ID) for _ in range(rng.randint(low, high))]
        for _ in range(count)
    ]
