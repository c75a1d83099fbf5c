"""The oracle looks at every prefix of the text."""

from __future__ import annotations

import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jackfield.text.stop import StopStrings

SHORT = st.text(alphabet="ab<", min_size=1, max_size=4)


def expected(text: str, stops: list[str]) -> tuple[int, str | None]:
    """End of the first match and the longest stop string that ends there."""
    for end in range(1, len(text) + 1):
        matches = [stop for stop in stops if text[:end].endswith(stop)]
        if matches:
            return end, max(matches, key=len)
    return len(text), None


def longest_partial(text: str, stops: list[str]) -> int:
    return max(
        (n for stop in stops for n in range(1, len(stop)) if text.endswith(stop[:n])), default=0
    )


@given(st.lists(st.text(alphabet="ab<", max_size=5), max_size=8), st.lists(SHORT, max_size=4),
       st.booleans())  # fmt: skip
def test_first_match_wins_whatever_the_split(
    pieces: list[str], stops: list[str], include: bool
) -> None:
    text = "".join(pieces)
    end, match = expected(text, stops)
    scanner = StopStrings(stops, include)
    said, fed = "", ""
    for piece in pieces:
        passed, found = scanner.feed(piece)
        said, fed = said + passed, fed + piece
        if found is not None:
            assert found == match
            assert said == text[: end if include else end - len(found)]
            return
        held = 0 if include else longest_partial(fed, stops)
        assert said == fed[: len(fed) - held]
    assert match is None
    assert said + scanner.finish() == text


@pytest.mark.parametrize(
    "stops", [["a" * 256 + "b"], ["ab", "b" * 100], ["a" * n for n in (40, 99)]]
)
def test_cost_per_character_does_not_grow(stops: list[str]) -> None:
    rng = random.Random(3)
    text = "".join(rng.choice("aaaaab") for _ in range(20_000)).replace(stops[0], "-")

    def seconds(size: int) -> float:
        best = float("inf")
        for _ in range(3):
            scanner = StopStrings(stops)
            begin = time.thread_time()
            for at in range(0, size, 2):
                scanner.feed(text[at : at + 2])
            best = min(best, time.thread_time() - begin)
        return best

    assert seconds(20_000) < 12 * seconds(5_000)
