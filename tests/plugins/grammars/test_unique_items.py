"""``uniqueItems``: judged by jsonschema, and every list that it allows can be written."""

from __future__ import annotations

import json
import random
from typing import Any

import numpy as np
import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from jackfield.contracts.grammar import GrammarMatcher, GrammarSpec, Vocabulary
from jackfield.errors import RequestError
from jackfield.testing.grammars import VOCABULARY
from jackfield_grammars.guidance import GuidanceBackend, UniqueItemsMatcher

WORDS: tuple[bytes, ...] = (
    b'", "',
    b'","',
    b'"]',
    b'"],',
    b"1,",
    b",1",
    b"1]",
    b",1,",
    b'"a"',
    b'["a","a"',
    b"{}",
)
WORDS += (b'"},', b'"}]', b"}]", b"},{", b'{"a":', b"[1]", b'a","b"', b'"",', b"true,", b"0,1,0")
TOKENS = Vocabulary((*VOCABULARY.tokens, *WORDS), dict(VOCABULARY.special))
BACKEND = GuidanceBackend(TOKENS)


def unique(items: Any, **others: Any) -> dict[str, Any]:
    return {"type": "array", "uniqueItems": True, "items": items, **others}


OBJECT = {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"enum": ["x", "y"]}}}
SCHEMAS: list[tuple[Any, list[Any]]] = [
    (unique({"type": "string"}), [[], ["a"], ["a", "b"], ["a", "a"], ["", ""], ["ab", "a", "ab"]]),
    (unique({"type": "string"}), [['"', '"'], ["\\", '\\"'], ["a\nb", "a\nb"], ["é", "e", "é"]]),
    (unique({"type": "integer"}), [[1, 2], [1, 1], [1, 11, 1], [-1, 1], [0, 0], [12, 1, 2]]),
    (unique({"type": "number"}), [[1, 1.5], [1.0, 1.5, 1.0], [0.5, 0.5], [2.5, 25]]),
    (unique({"type": ["boolean", "null"]}), [[True, None], [None, None], [True, False, True]]),
    (unique({"type": "boolean"}), [[True, False], [True, True]]),
    (unique({"enum": ["aa", "ab", "b", 1, 12]}), [["aa", "b", 1], ["aa", "aa"], [1, 12], [12, 12]]),
    (
        unique(OBJECT | {"additionalProperties": False}),
        [[{"a": 1}, {"a": 2}], [{}, {}], [{"a": 1, "b": "x"}, {"a": 1, "b": "x"}], [{}, {"a": 1}]],
    ),
    (
        unique({"type": "object", "additionalProperties": {"type": "integer"}}),
        [[{"c": 1, "d": 2}, {"d": 2, "c": 1}], [{"c": 1}, {"d": 1}]],
    ),
    (
        unique({"type": "array", "items": {"type": "integer"}}),
        [[[1], [2]], [[1], [1]], [[], []], [[1, 2], [2, 1]], [[1], [1, 1]]],
    ),
    (
        {
            "type": "object",
            "properties": {"k": {"$ref": "#/$defs/k"}, "l": {"type": "array"}},
            "$defs": {"k": unique({"type": "string"})},
            "additionalProperties": False,
        },
        [{"k": ["a", "b"], "l": [1, 1]}, {"k": ["a", "a"]}, {"l": ["a", "a"]}],
    ),
    (
        unique(unique({"type": "string"}, maxItems=3)),
        [[["a"], ["b"]], [["a", "a"]], [["a"], ["a"]], [["a", "b"], ["b", "a"]]],
    ),
]


def compiled(schema: Any) -> GrammarMatcher:
    return BACKEND.compile(GrammarSpec(kind="json_schema", text=json.dumps(schema))).matcher()


def allows(schema: Any, value: Any, **style: Any) -> bool:
    """Whether every byte of the value's text is in the mask before it, and the end behind it."""
    matcher = compiled(schema)
    for byte in json.dumps(value, ensure_ascii=False, **style).encode():
        if byte not in allowed_ids_of(matcher):
            return False
        assert matcher.accept(byte)
    return ends(matcher)


def bits(matcher: GrammarMatcher) -> Any:
    masks = np.zeros((1, TOKENS.mask_words), dtype=np.int32)
    matcher.fill_bitmask(masks, 0)
    return np.unpackbits(masks.view(np.uint8), bitorder="little")


def allowed_ids_of(matcher: GrammarMatcher) -> list[int]:
    ids: list[int] = np.flatnonzero(bits(matcher)[: TOKENS.size]).tolist()
    return ids


def ends(matcher: GrammarMatcher) -> bool:
    return bool(bits(matcher)[TOKENS.size])


@pytest.mark.parametrize(("schema", "values"), SCHEMAS)
def test_lists_are_allowed_as_jsonschema_has_it(schema: Any, values: list[Any]) -> None:
    validator = Draft202012Validator(schema)
    for value in values:
        wanted = validator.is_valid(value)
        assert allows(schema, value) == wanted, value
        assert allows(schema, value, separators=(",", ":")) == wanted, value


@pytest.mark.parametrize("index", range(len(SCHEMAS)))
def test_what_is_written_with_long_tokens_is_valid_and_comes_to_an_end(index: int) -> None:
    schema, _ = SCHEMAS[index]
    validator = Draft202012Validator(schema)
    chance = random.Random(index)
    num_written = num_items = 0
    for _ in range(60):
        matcher, text = compiled(schema), b""
        for _ in range(60):
            allowed = allowed_ids_of(matcher)
            if ends(matcher) and (not allowed or chance.random() < 0.3):
                value = json.loads(text)
                assert validator.is_valid(value), text
                num_written += 1
                num_items += len(value)
                break
            assert allowed, f"nothing can follow {text!r}"
            short = [i for i in allowed if TOKENS.tokens[i][:1] in b'",]}[{a1x']
            chosen = chance.choice(short if short and chance.random() < 0.8 else allowed)
            assert matcher.accept(chosen)
            text += TOKENS.tokens[chosen]
    assert num_written > 5 and num_items > 5


def test_rollback_forgets_items() -> None:
    matcher = compiled(unique({"type": "string"}))
    assert all(map(matcher.accept, b'["a","b"'))
    matcher.rollback(4)
    assert all(map(matcher.accept, b',"b"]'))
    assert isinstance(matcher, UniqueItemsMatcher)
    matcher.rollback(3)
    assert not matcher.accept(ord("a")) or not matcher.accept(ord('"'))


def test_masks_of_many_are_those_of_each() -> None:
    matchers = [compiled(unique({"type": "string"})) for _ in range(3)]
    for place, text in enumerate((b'["a","', b'["b","', b"[")):
        assert all(map(matchers[place].accept, text))
    masks = np.zeros((3, TOKENS.mask_words), dtype=np.int32)
    BACKEND.fill_bitmasks(matchers, masks, [0, 1, 2])
    for row, matcher in zip(masks, matchers, strict=True):
        alone = np.zeros((1, TOKENS.mask_words), dtype=np.int32)
        matcher.fill_bitmask(alone, 0)
        assert np.array_equal(row, alone[0])


def test_a_reference_that_is_no_pointer_is_refused() -> None:
    schema = unique({"$ref": "#item"}) | {"$defs": {"a": {"$anchor": "item", "type": "string"}}}
    with pytest.raises(RequestError):
        compiled(schema)
