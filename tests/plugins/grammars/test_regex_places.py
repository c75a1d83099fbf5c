"""Known states of regexes and choices, against xgrammar told every token at once."""

from __future__ import annotations

import json
import random
import re
from typing import Any

import numpy as np
import pytest
from tests.plugins.grammars.known_state_walks import Mask
from tests.plugins.grammars.known_state_walks import walk as walk_beside

from jackfield.contracts.grammar import GrammarMatcher, GrammarSpec, Vocabulary
from jackfield_grammars.known_states import KnownStatesMatcher
from jackfield_grammars.regex_places import RegexPlaces
from jackfield_grammars.xgrammar import XGrammarBackend, XGrammarMatcher
from jackfield_grammars.xgrammar_texts import rewritten_regex

PIECES = [
    "ab",
    "abc",
    "bc",
    " a",
    "12",
    "é",
    "日本",
    "no",
    "yes",
    "\n\n",
    "a1",
    "-",
    "x" * 20,
    "_é",
]
VOCABULARY = Vocabulary(
    (*(bytes((byte,)) for byte in range(256)), *(each.encode() for each in PIECES), b""), {}
)
BACKEND = XGrammarBackend(VOCABULARY)
REGEXES = [
    r"(.|\n)*",
    r".*",
    r"[ab]{2,4}x?",
    r"(ab|a|abc)*c",
    r"(?:a|b)+(12|no)?",
    r"\d{3}-\d{2,}",
    r"\w+( \w+){0,3}",
    r"[^ab]*a[^\n]*",
    r"\D*\d\W?",
    r"((a|bc)?1){2}",
    r"(yes|no|é+|日本)?",
    r"a(|b|(c|d)*)\.",
    r"x{0,50}",
    r"[\d_a-c]*[-]",
]


def masks_of(matcher: GrammarMatcher) -> Mask:
    masks = np.zeros((1, VOCABULARY.mask_words), dtype=np.int32)
    BACKEND.fill_bitmasks([matcher], masks, [0])
    found: Mask = masks[0]
    return found


def walk(compiled: Any, chance: random.Random) -> tuple[int, int]:
    """How many masks stayed, and how many were known."""
    return walk_beside(
        compiled.matcher(),
        XGrammarMatcher(compiled._make_matcher(compiled._compiled), compiled._forced),
        masks_of,
        VOCABULARY.size,
        chance,
        num_steps=60,
        is_wanted=lambda each: each >= 256,
        share=0.5,
    )


@pytest.mark.parametrize("regex", REGEXES)
def test_masks_and_verdicts_are_those_of_a_library_told_every_token(regex: str) -> None:
    compiled = BACKEND.compile(GrammarSpec(kind="regex", text=regex))
    walks = [walk(compiled, random.Random(seed)) for seed in range(20)]
    assert sum(num_known for _, num_known in walks) > 5


def test_a_text_of_any_kind_keeps_its_mask() -> None:
    compiled = BACKEND.compile(GrammarSpec(kind="regex", text=r"(.|\n)*"))
    assert sum(num_kept for num_kept, _ in (walk(compiled, random.Random(0)),)) > 5
    matcher = compiled.matcher()
    assert isinstance(matcher, KnownStatesMatcher) and matcher.accept(ord("a"))
    masks_of(matcher)
    for _ in range(1000):
        assert matcher.accept(256) and matcher.keeps_mask
    assert not matcher._pending


def test_choices_share_what_is_known() -> None:
    texts = ["yes", "no", "yesterday", "né", "abc"]
    compiled = BACKEND.compile(GrammarSpec(kind="choice", text=json.dumps(texts)))
    walks = [walk(compiled, random.Random(seed)) for seed in range(20)]
    assert sum(num_known for _, num_known in walks) > 5


def tagged(triggers: list[str], **others: object) -> GrammarSpec:
    content = {"type": "json_schema", "json_schema": {"type": "integer"}}
    tags = [{"begin": f"{each}a", "content": content, "end": "-"} for each in triggers]
    form = {"type": "triggered_tags", "triggers": triggers, "tags": tags, **others}
    text = json.dumps({"type": "structural_tag", "format": form})
    return GrammarSpec(kind="structural_tag", text=text)


@pytest.mark.parametrize("others", [{}, {"stop_after_first": True}])
@pytest.mark.parametrize("triggers", [["ab-"], ["b1", "ab12"], ["aab"], ["\né", "x"]])
def test_free_text_is_known_up_to_a_trigger(triggers: list[str], others: Any) -> None:
    compiled = BACKEND.compile(tagged(triggers, **others))
    walks = [walk(compiled, random.Random(seed)) for seed in range(8)]
    assert sum(num_known + num_kept for num_kept, num_known in walks) > 5
    matcher = compiled.matcher()
    assert isinstance(matcher, KnownStatesMatcher)
    for _ in range(3):
        masks_of(matcher)
        assert matcher.accept(ord("c"))
    assert matcher.keeps_mask
    assert all(map(matcher.accept, f"{triggers[0]}a12-".encode()))
    assert matcher._trail[-1].place is None


@pytest.mark.parametrize("others", [{"excludes": ["c"]}, {"at_least_one": True}])
def test_other_tags_are_not_known(others: Any) -> None:
    compiled = BACKEND.compile(tagged(["ab"], **others))
    assert isinstance(compiled.matcher(), XGrammarMatcher)


@pytest.mark.parametrize("regex", REGEXES)
def test_parts_are_left_where_the_text_matches(regex: str) -> None:
    """The places are those of the regex: a text leads nowhere if no match begins so."""
    places = RegexPlaces(rewritten_regex(regex))
    compiled = BACKEND.compile(GrammarSpec(kind="regex", text=regex))
    chance = random.Random(regex)
    for _ in range(200):
        text = "".join(chance.choices("aabbc1-2xé _\nyesno.", k=chance.randrange(8)))
        place = places.first
        matcher = compiled.matcher()
        for character in text:
            following = places.after(place, character.encode())
            assert (following is not None) == all(map(matcher.accept, character.encode()))
            if following is None:
                break
            place = following


@pytest.mark.parametrize(
    "regex",
    [r"\s+", r"a*?b", r"(?i)a", r"[\s]", r"(?=a)b", r"a{1,2000}", "[[a]", r"\ba", "(" * 300],
)
def test_what_is_not_sure_to_mean_the_same_has_no_places(regex: str) -> None:
    with pytest.raises(ValueError, match="without places"):
        RegexPlaces(regex)


def test_a_regex_without_places_is_held_all_the_same() -> None:
    matcher = BACKEND.compile(GrammarSpec(kind="regex", text=r"a\s+b")).matcher()
    assert isinstance(matcher, XGrammarMatcher)
    assert re.fullmatch(r"a\s+b", "a  b") and all(map(matcher.accept, b"a  b"))
