"""Random words and values, in two worlds: what training draws from, and what evaluation does.

A word is held apart by its checksum. Training says it, but never as the name or the value of a
tool's or a schema's field: these are new in the evaluation.
"""

from __future__ import annotations

import random
import string
import zlib
from collections.abc import Callable, Sequence
from copy import copy
from functools import cache
from typing import TypeVar

from tools.mini import words

T = TypeVar("T")
_ONE_IN = 8
"""This share of the words and phrasings is held apart for the evaluation."""


def is_held_apart(word: str) -> bool:
    """Whether a word belongs to the evaluation."""
    return zlib.crc32(word.lower().encode()) % _ONE_IN == 0


@cache
def pool(name: str, held_apart: bool | None) -> list[str]:
    """Words that are held apart, or are not; all of them for None."""
    found = [word for word in getattr(words, name) if held_apart in (None, is_held_apart(word))]
    return [word for word in found if not (held_apart and word in words.FAMILIAR)]


class Source:
    """Everything random in the data. The same seed gives the same values.

    The evaluation has words that are ``held_apart``, and where it says ``new_phrasing`` also
    phrasings that are.
    """

    def __init__(
        self, seed: int | str, held_apart: bool = False, new_phrasing: bool = False
    ) -> None:
        self.rng = random.Random(seed)
        self.held_apart = held_apart
        self.new_phrasing = new_phrasing
        self._words: bool | None = True if held_apart else None

    def strict(self) -> Source:
        """The same source, which in training leaves out the words that are held apart."""
        other = copy(self)
        other._words = self.held_apart
        return other

    def chance(self, probability: float) -> bool:
        return self.rng.random() < probability

    def pick(self, choices: Sequence[T]) -> T:
        return choices[int(self.rng.random() * len(choices))]

    def between(self, low: int, high: int) -> int:
        """A whole number; both ends included."""
        return low + int(self.rng.random() * (high - low + 1))

    def some(self, choices: Sequence[T], count: int) -> list[T]:
        """``count`` different ones."""
        return self.rng.sample(choices, count)

    def phrasing(self, phrasings: Sequence[T]) -> T:
        """One of several ways to say a thing; each eighth is kept for the evaluation."""
        if len(phrasings) < _ONE_IN:
            return self.pick(phrasings)
        kept = [each for place, each in enumerate(phrasings) if place % _ONE_IN == _ONE_IN - 1]
        return self.pick(kept if self.new_phrasing else [p for p in phrasings if p not in kept])

    # --- words ---------------------------------------------------------------------------

    def noun(self) -> str:
        return self.pick(pool("NOUNS", self._words))

    def adjective(self) -> str:
        return self.pick(pool("ADJECTIVES", self._words))

    def first_name(self) -> str:
        return self.pick(pool("NAMES", self._words))

    def city(self) -> str:
        return self.pick(pool("CITIES", self._words)) if self.chance(0.85) else self.coined()

    def person(self) -> str:
        """A first name, a full name, or one that nobody has."""
        kind = self.rng.random()
        if kind < 0.45:
            return self.first_name()
        if kind < 0.75:
            return f"{self.first_name()} {self.pick(pool('SURNAMES', self._words))}"
        return self.coined() if kind < 0.9 else f"{self.coined()} {self.coined()}"

    def invented(self) -> str:
        """A word that does not exist, in small letters."""
        while True:
            word = "".join(
                self.pick(words.SYLLABLE_STARTS)
                + self.pick(words.SYLLABLE_MIDDLES)
                + (self.pick(words.SYLLABLE_ENDS) if self.chance(0.6) else "")
                for _ in range(self.pick((1, 2, 2, 2, 3)))
            )
            if self._words in (None, is_held_apart(word)):
                return word

    def coined(self) -> str:
        return self.invented().capitalize()

    def word(self) -> str:
        """Mostly real words."""
        kind = self.rng.random()
        if kind < 0.5:
            return self.noun()
        return self.adjective() if kind < 0.65 else self.invented()

    def letters(self) -> str:
        return "".join(self.rng.choices(string.ascii_lowercase, k=self.between(3, 8)))

    def identifier(self) -> str:
        """A name as programs have them: ``lamp``, ``blue_lamp``, ``lampSize``, ``lamp-size``."""
        count = self.pick((1, 1, 2, 2, 2, 3))
        parts = [self.word() for _ in range(count)]
        return join_identifier(parts, self.pick(("_", "_", "_", "camel", "-")))

    # --- values --------------------------------------------------------------------------

    def code(self) -> str:
        """``KX-4821``, ``a7f3c2``, ``0042``."""
        kind = self.between(0, 4)
        digits = "".join(self.rng.choices(string.digits, k=self.between(2, 6)))
        if kind == 0:
            return "".join(self.rng.choices(string.ascii_uppercase, k=self.between(1, 3))) + digits
        if kind == 1:
            letters = "".join(self.rng.choices(string.ascii_uppercase, k=self.between(1, 4)))
            return f"{letters}-{digits}"
        if kind == 2:
            return "".join(self.rng.choices("0123456789abcdef", k=self.between(4, 10)))
        return digits if kind == 3 else f"{self.word()}-{digits}"

    def integer(self) -> int:
        size = self.between(1, 5)
        if size <= 2:
            return self.between(0, 20)
        return self.between(0, 10**size) * (-1 if self.chance(0.04) else 1)

    def decimal(self) -> float:
        size = float(10 ** self.between(0, 4))
        return round(self.rng.random() * size, self.pick((1, 1, 2, 2, 3)))

    def date(self) -> str:
        year, month, day = self.between(1990, 2035), self.between(1, 12), self.between(1, 28)
        kind = self.between(0, 3)
        if kind == 0:
            return f"{self.pick(words.CATEGORIES['months'])} {day}"
        if kind == 1:
            return self.pick(("today", "tomorrow", *words.CATEGORIES["days"]))
        return f"{year}-{month:02}-{day:02}"

    def time(self) -> str:
        return f"{self.between(0, 23):02}:{self.pick((0, 5, 10, 15, 20, 30, 40, 45, 50)):02}"

    def email(self) -> str:
        name = self.pick((self.first_name().lower(), self.invented(), self.noun()))
        ending = self.pick(("com", "org", "net", "io", "de"))
        return f"{name}@{self.pick((self.invented(), self.noun(), 'example'))}.{ending}"

    def address(self) -> str:
        """Of a page on the web or of a file."""
        if self.chance(0.5):
            return f"https://{self.word()}.{self.pick(('com', 'org', 'io'))}/{self.word()}"
        return f"/{self.word()}/{self.word()}.{self.pick(('txt', 'csv', 'json', 'pdf', 'py'))}"

    def phrase(self) -> str:
        """A few words: ``blue lamp``, ``The wise owl``, ``lunch with Ada``."""
        kind = self.between(0, 5)
        if kind == 0:
            return f"{self.adjective()} {self.noun()}"
        if kind == 1:
            joint = self.pick(("with", "for", "of", "and"))
            return f"{self.noun().capitalize()} {joint} {self.person()}"
        if kind == 2:
            return f"The {self.adjective().capitalize()} {self.noun().capitalize()}"
        if kind == 3:
            return " ".join(self.word() for _ in range(self.between(2, 5)))
        return self.noun() if kind == 4 else f"{self.invented()} {self.noun()}"

    def text(self) -> str:
        """Any string value."""
        makers: tuple[Callable[[], str], ...] = (
            self.person, self.city, self.word, self.invented, self.coined, self.phrase,
            self.phrase, self.code, self.date, self.time, self.email, self.address, self.noun,
            self.letters,
        )  # fmt: skip
        return self.pick(makers)()


def join_identifier(parts: Sequence[str], style: str) -> str:
    """Words as one name; ``style`` is the separator, or ``camel``."""
    if style == "camel":
        return parts[0] + "".join(part.capitalize() for part in parts[1:])
    return style.join(parts)
