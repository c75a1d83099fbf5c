"""Outputs that go by known states, beside a library that is told every token at once."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from jackfield.contracts.grammar import GrammarMatcher
from jackfield_grammars.known_states import KnownStatesMatcher

Mask = npt.NDArray[np.int32]


def allowed(mask: Mask, size: int) -> list[int]:
    """The ids of a mask over a vocabulary of ``size``."""
    bits = np.unpackbits(mask.view(np.uint8), bitorder="little", count=size)
    return np.flatnonzero(bits).tolist()


def walk(
    matcher: GrammarMatcher,
    other: GrammarMatcher,
    mask_of: Callable[[GrammarMatcher], Mask],
    size: int,
    chance: random.Random,
    *,
    num_steps: int,
    is_wanted: Callable[[int], bool],
    share: float,
) -> tuple[int, int]:
    """Ids, allowed and not, to both matchers, and some back; an allowed one is of those wanted with
    the chance ``share``. How many masks stayed, and how many were known."""
    assert isinstance(matcher, KnownStatesMatcher)
    last = mask_of(matcher)
    num_kept = num_known = num_told = 0
    for _ in range(num_steps):
        if not matcher.keeps_mask or chance.random() < 0.2:
            num_known += matcher._trail[-1].mask is not None
            last = mask_of(matcher)
        else:
            num_kept += 1
        expected = mask_of(other)
        assert np.array_equal(last, expected)
        ids = allowed(expected, size)
        if not ids:
            break
        if num_told and chance.random() < 0.1:
            back = chance.randint(1, min(num_told, chance.choice((6, 100))))
            matcher.rollback(back)
            other.rollback(back)
            num_told -= back
            last = mask_of(matcher)
            continue
        wanted = [each for each in ids if is_wanted(each)]
        chosen = chance.choice(wanted if wanted and chance.random() < share else ids)
        if chance.random() < 0.2:
            chosen = chance.randrange(size)
        is_taken = matcher.accept(chosen)
        assert is_taken == other.accept(chosen) == (chosen in ids)
        num_told += is_taken
        assert matcher.jump() == other.jump()
    return num_kept, num_known
