from __future__ import annotations

import itertools
import json
import random
import re

import pytest
from jsonschema import (  # type: ignore[import-untyped]
    Draft202012Validator,
    FormatChecker,
)

from jackfield.contracts.grammar import GrammarSpec
from jackfield.errors import RequestError
from jackfield.testing.grammars import VOCABULARY, generate
from jackfield_grammars.formats import FORMATS
from jackfield_grammars.json_regex import json_text_regex
from jackfield_grammars.xgrammar import XGrammarBackend

TEXTS = ["".join(text) for n in range(5) for text in itertools.product('a"\\b', repeat=n)]


def refuse(what: str) -> RequestError:
    return RequestError(what)


def random_regex(chance: random.Random, depth: int) -> str:
    kind = chance.random()
    if depth == 0 or kind < 0.35:
        atom = chance.choice(["a", "b", '"', "\\\\", '[a"]', "[^b]", ".", r"\w", r"\W"])
        return atom + chance.choice(["", "", "*", "+", "?", "{1,2}"])
    if kind < 0.6:
        return random_regex(chance, depth - 1) + random_regex(chance, depth - 1)
    inner = random_regex(chance, depth - 1)
    if kind < 0.75:
        return f"({inner}|{random_regex(chance, depth - 1)})"
    return f"({inner}){chance.choice(['', '*', '+', '?', '{1,2}'])}"


@pytest.mark.parametrize("seed", range(60))
def test_a_string_matches_exactly_where_its_json_text_does(seed: int) -> None:
    pattern = random_regex(random.Random(seed), 3)
    of_text = re.compile(json_text_regex(pattern, refuse))
    for text in TEXTS:
        expected = re.fullmatch(pattern, text) is not None
        assert (of_text.fullmatch(json.dumps(text)) is not None) == expected, (pattern, text)


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("a\\n", "a\n", "an"),
        (r"[\n\t]x", "\tx", "nx"),
        (r"\u00e9+", "éé", "e"),
        (r"[à-ÿ]", "é", "z"),
        (r"\d", "1", "٣"),
        ("^a$|^b$", "b", "ab"),
        (r"\$\^", "$^", "$"),
    ],
)
def test_escapes_and_anchors(pattern: str, yes: str, no: str) -> None:
    of_text = re.compile(json_text_regex(pattern, refuse))
    assert of_text.fullmatch(json.dumps(yes, ensure_ascii=False))
    assert not of_text.fullmatch(json.dumps(no, ensure_ascii=False))


@pytest.mark.parametrize(
    "pattern",
    ["a^b", "a$b", r"\bword\b", "(?=a)b", "(?P<n>a)", "(", 3, r"\a", r"x[^\s\S]", "x[\U0001f600]"],
)
def test_what_is_not_understood_is_refused(pattern: object) -> None:
    with pytest.raises(RequestError):
        json_text_regex(pattern, refuse)


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_formats_are_valid_by_their_definition(name: str) -> None:
    """The oracle checks those that the packages installed beside it let it check."""
    schema = {"type": "string", "format": name}
    backend = XGrammarBackend(VOCABULARY)
    compiled = backend.compile(GrammarSpec(kind="json_schema", text=json.dumps(schema)))
    # The oracle takes no offset behind a time.
    formats = set(FormatChecker.checkers) - {"time"}
    validator = Draft202012Validator(schema, format_checker=FormatChecker(formats))
    chance = random.Random(name)
    outputs = [generate(compiled.matcher(), chance) for _ in range(12)]
    finished = [json.loads(output) for output in outputs if output is not None]
    assert finished
    for text in finished:
        assert re.fullmatch(FORMATS[name], text)
        validator.validate(text)


@pytest.mark.parametrize(
    "regex",
    [r"[\^ab]", r"[\^]", r"[\^-b]", r"[\^-]", r"[\^^\-]", r"[\u005ea]", r"[^\^a]", r"[\x41b]"],
)
def test_the_characters_of_a_class_are_the_same_to_xgrammar(regex: str) -> None:
    backend = XGrammarBackend(VOCABULARY)
    in_schema = {"type": "string", "pattern": f"^{regex}$"}
    plain = backend.compile(GrammarSpec(kind="regex", text=regex))
    quoted = backend.compile(GrammarSpec(kind="json_schema", text=json.dumps(in_schema)))
    for character in "AKab^_-B`]\\":
        expected = re.fullmatch(regex, character) is not None
        assert plain.matcher().accept(ord(character)) == expected, character
        matcher = quoted.matcher()
        text = json.dumps(character).encode()
        assert all(map(matcher.accept, text)) == expected, character


def test_a_code_ends_where_xgrammar_would_read_on() -> None:
    compiled = XGrammarBackend(VOCABULARY).compile(GrammarSpec(kind="regex", text=r"\x41b"))
    assert all(map(compiled.matcher().accept, b"Ab"))
