"""Patterns with look-aheads: what comes out of them matches nothing that they do not."""

from __future__ import annotations

import json
import random
import re

import pytest

from jackfield.contracts.grammar import GrammarSpec
from jackfield.errors import RequestError
from jackfield.testing.grammars import VOCABULARY, generate
from jackfield_grammars.guidance import GuidanceBackend
from jackfield_grammars.look_ahead import without_look_aheads

BACKEND = GuidanceBackend(VOCABULARY)

TURNED = [
    r"^(?!aws:)[a-z:]+$",
    r"^(?!aws:.*)",
    r"^(?!aws\.)[a-z.]{0,9}$",
    r"^(?!ab$)[abc]*$",
    r"^(?!.*--)[a-b-]*$",
    r"^(?!.* {2})[ ab]+$",
    r"^(?!.*[-]$)(?![-])[a-b-]*$",
    r"^(?!\s*$)[ ab\t]*$",
    r"^(?!^[0-9]+$)([a-c0-9]+)$",
    r"(?=^.{3,5}$)(?!^b)(^[a-c]+$)",
    r"^(?=.{1,4}$).*",
    r"^(?=ab)[a-c]*$",
    r"^a[b-c]*(?![\s\S])",
    r"^[a-c.]*(?<!\.)$",
    r"^(?!ab)[a-c-]+(?<![-])$",
    r"[a-c]-?(?<!-)$",
    r"^(?!a)b|c",
    r"a|b(?<!c)$",
    r"^(?!ab)[a-c]{3}$|^(?!c)[cb]+$|1",
    r"^(?!a+)[a-c]",
    r"^(?![0-9b])[a-c\d]+$",
    r"^(?!\d)[a-c\d]+$|^-\d*$",
    r"^(?![aA][wW][sS]:)[a-z:]+$",
    r"(?=^.{2,5}$)(?!.*\s)[abc \t]*$",
    r"^[ac:](?!.*--)[a-c-]*$",
    r"^(?!.*b)[a-c]+",
]
PLAIN = [r"^a+$", "a|b", r"^(a|b)$", r"[\u0020-\uD7FF]", ""]
LEFT = [
    r"^(?!(a|b)c)x",
    r"^a(?!b)",
    r"(?!a)b",
    r"^(?<!a)b",
    r"^(?!a+b)b",
    r"^(?!.*ab)b",
    r"^(a(?!.*--)b)*",
    r"^(?!a)?b",
    r"^a(?!.*--)*b",
]


def texts(count: int) -> list[str]:
    chance = random.Random(4)
    found = ["".join(chance.choices("aabbc-: 1.\t", k=chance.randrange(8))) for _ in range(count)]
    begun = [f"{start}{each}" for start in ("aws:", "aws.", "ab") for each in found[:80]]
    return [*found, *begun, "aw", "a", "ab", "aws", "abab"]


@pytest.mark.parametrize("pattern", TURNED)
def test_a_look_ahead_is_turned_into_patterns_that_mean_the_same(pattern: str) -> None:
    made = without_look_aheads(pattern)
    assert not any("(?=" in each or "(?!" in each for each in made)
    wanted = [re.search(pattern, text) is not None for text in texts(3000)]
    found = [all(re.search(each, text) for each in made) for text in texts(3000)]
    assert found == wanted
    assert True in wanted and False in wanted


@pytest.mark.parametrize("pattern", PLAIN)
def test_other_patterns_stay_as_they_are(pattern: str) -> None:
    assert without_look_aheads(pattern) == [pattern]


@pytest.mark.parametrize("pattern", LEFT)
def test_what_cannot_be_turned_round_is_refused(pattern: str) -> None:
    assert without_look_aheads(pattern) == [pattern]
    text = json.dumps({"type": "string", "pattern": pattern})
    with pytest.raises(RequestError):
        BACKEND.compile(GrammarSpec(kind="json_schema", text=text))


@pytest.mark.parametrize("pattern", TURNED)
def test_what_guidance_writes_matches(pattern: str) -> None:
    schema = json.dumps({"type": "string", "pattern": pattern, "maxLength": 12})
    compiled = BACKEND.compile(GrammarSpec(kind="json_schema", text=schema))
    chance = random.Random(pattern)
    for _ in range(12):
        written = generate(compiled.matcher(), chance)
        assert written is None or re.search(pattern, json.loads(written)), written


def test_halves_of_surrogate_pairs_are_left_out_of_classes() -> None:
    (made,) = without_look_aheads(r"^[\u0020-\uD7FF\uE000-\uFFFD\uD800\uDBFF-\uDC00\uDFFF\t]*$")
    assert made == r"^[\u0020-\uD7FF\uE000-\uFFFD\t]*$"
