"""Masks that are known or stay, against llguidance told every token at once."""

from __future__ import annotations

import gc
import json
import random
from typing import Any

import numpy as np
import pytest
from tests.plugins.grammars.known_state_walks import Mask, allowed
from tests.plugins.grammars.known_state_walks import walk as walk_beside

import jackfield_grammars.json_places as json_places
import jackfield_grammars.known_states as known_states
from jackfield.contracts.grammar import GrammarMatcher, GrammarSpec, Vocabulary
from jackfield.contracts.sampling import TokenSampling
from jackfield.contracts.scheduling import SchedulerLimits
from jackfield.engine.grammar_compiler import GrammarCompiler
from jackfield.testing.simulated_engine import SimulatedEngine
from jackfield_grammars.free_strings import PlainTokens, looks_at_no_text
from jackfield_grammars.guidance import (
    GuidanceBackend,
    GuidanceCompiled,
    GuidanceMatcher,
)
from jackfield_grammars.guidance_texts import source
from jackfield_grammars.json_places import JsonPlace, JsonPlaces
from jackfield_grammars.known_states import KnownStatesMatcher
from jackfield_schedulers.fcfs import FcfsScheduler

PIECES = [
    "ab",
    " cat",
    "dog",
    "é",
    "日本",
    '",',
    '"]',
    '":',
    '"}',
    '{"',
    '["',
    '\\"',
    "\\n",
    "a\x7f",
]
PIECES += ['", "', "12", "true", "  ", "\t", "x\\", "name", '"name"', "~~~", "Wort", "\x85"]
PIECES += ["00", "7.", "1e", "-0", "0.", "e-", "3,", " \n\n ", "   4", "],[", "0]", '1,"']
TOKENS = (*(bytes((byte,)) for byte in range(256)), *(each.encode() for each in PIECES), b"")
VOCABULARY = Vocabulary(
    TOKENS, {}, lambda text: [TOKENS.index(bytes((each,))) for each in text.encode()]
)
BACKEND = GuidanceBackend(VOCABULARY)
PLAIN = PlainTokens(VOCABULARY)
FREE: list[Any] = [
    {"type": "string"},
    {"type": "object"},
    {"type": "array", "items": {"type": ["string", "null"]}, "minItems": 2, "maxItems": 4},
    {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]},
    {
        "type": "object",
        "properties": {
            "nick": {"anyOf": [{"type": "string"}, {"type": "null"}]},
            "kind": {"enum": ["cat", "dog"]},
        },
        "required": ["nick", "kind"],
        "additionalProperties": False,
    },
    {
        "type": "object",
        "properties": {
            "name": {"type": "string", "description": "any"},
            "kind": {"enum": ["cat", "dog"]},
            "tags": {"type": "array", "items": {"type": "string"}},
            "next": {"$ref": "#"},
        },
        "required": ["name", "tags"],
        "additionalProperties": False,
    },
]
HELD: list[Any] = [
    {"type": "string", "maxLength": 4},
    {"type": "string", "minLength": 4},
    {"type": "string", "pattern": "^[a-z~ ]*$"},
    {"type": "string", "format": "date"},
    {"anyOf": [{"type": "string"}, {"const": "cat"}]},
    {
        "$defs": {"cat": {"const": "cat"}},
        "anyOf": [{"type": "string"}, {"type": "array", "items": {"$ref": "#/$defs/cat"}}],
    },
    {"type": "object", "properties": {"name": {"type": "string"}}},
    {"type": "object", "patternProperties": {"^a": {"type": "string"}}},
    {"type": "object", "required": ["name"], "additionalProperties": {"type": "string"}},
    {"type": "array", "items": {"type": "object", "propertyNames": {"maxLength": 3}}},
]
NUMBERS: list[Any] = [
    {"type": "array", "items": {"type": "number"}},
    {"type": "array", "items": {"type": "integer"}, "minItems": 3},
    {"type": "array", "items": {"type": "integer", "minimum": 12, "maximum": 4711}},
    {"type": "array", "items": {"type": "number", "multipleOf": 3}},
    {"type": "array", "items": {"enum": [1, 12, 123, 0.5, "12", "1234"]}},
    {"anyOf": [{"type": "array", "items": {"type": "integer"}}, {"type": "array"}]},
    {"type": "array", "items": {"anyOf": [{"type": "number"}, {"type": "string"}]}},
]


def spec(schema: Any) -> GrammarSpec:
    return GrammarSpec(kind="json_schema", text=json.dumps(schema))


def told_at_once(schema: Any) -> GuidanceMatcher:
    library = BACKEND._library.LLMatcher
    text = source(spec(schema), library, VOCABULARY).text
    return GuidanceMatcher(library(BACKEND._tokenizer, text, log_level=0), BACKEND._forced)


def states_of(compiled: GuidanceCompiled) -> list[known_states.State]:
    assert compiled._states is not None
    return list(compiled._states._by_place.values())


def mask_of(matcher: GrammarMatcher) -> Mask:
    masks = np.zeros((1, VOCABULARY.mask_words), dtype=np.int32)
    matcher.fill_bitmask(masks, 0)
    mask: Mask = masks[0]
    return mask


def walk(compiled: GuidanceCompiled, schema: Any, chance: random.Random) -> tuple[int, int]:
    """How many masks stayed, and how many were known."""
    return walk_beside(
        compiled.matcher(),
        told_at_once(schema),
        mask_of,
        VOCABULARY.size,
        chance,
        num_steps=120,
        is_wanted=lambda each: bool(PLAIN.are_plain[each]),
        share=0.8,
    )


@pytest.mark.parametrize("schema", [*FREE, *HELD, *NUMBERS], ids=str)
def test_masks_and_verdicts_are_those_of_a_library_told_every_token(schema: Any) -> None:
    compiled = BACKEND.compile(spec(schema))
    walks = [walk(compiled, schema, random.Random(seed)) for seed in range(12)]
    assert sum(num_known for _, num_known in walks) > 5
    if schema in FREE:
        assert sum(num_kept for num_kept, _ in walks) > 20


@pytest.mark.parametrize("schema", [{"type": "array", "items": {"type": "string"}}, *FREE[3:]])
def test_states_that_were_forgotten_or_lie_far_from_the_beginning_change_nothing(
    schema: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_places, "MAX_NAME_BYTES", 24)
    for max_bytes in (0, 8000):
        monkeypatch.setattr(known_states, "MAX_BYTES", max_bytes)
        compiled = BACKEND.compile(spec(schema))
        for seed in range(12):
            walk(compiled, schema, random.Random(seed))


def test_all_grammars_of_a_backend_share_one_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_states, "MAX_BYTES", 40_000)
    backend = GuidanceBackend(VOCABULARY)
    most = 0
    compiled = []
    for place in range(12):
        schema = {"type": "object", "properties": {f"name{place}": {"type": "string"}}}
        compiled.append(backend.compile(spec(schema)))
        for seed in range(4):
            walk(compiled[-1], schema, random.Random(seed))
            most = max(most, backend._memory.num_bytes)
            states = [state for each in compiled for state in states_of(each)]
            assert 1024 * len(states) <= backend._memory.num_bytes
    assert 20_000 < most <= 40_000


@pytest.mark.parametrize("schema", HELD, ids=str)
def test_where_a_keyword_looks_at_texts_strings_are_told_apart(schema: Any) -> None:
    assert not looks_at_no_text(schema)
    compiled = BACKEND.compile(spec(schema))
    for text in ('"ab', '"abc', '["ab', '{"ab', '{"ab":"c'):
        matcher = compiled.matcher()
        for byte in text.encode():
            if not matcher.accept(byte):
                break
            mask_of(matcher)
            assert isinstance(matcher, KnownStatesMatcher) and matcher._trail[-1].loops is None


@pytest.mark.parametrize(
    ("schema", "one", "other", "is_same"),
    [
        ({}, "[1,2.50e7", "[98,0.1e+33", False),
        ({}, "[1,2.50e7", "[98,7.1e33", True),
        ({}, "[10", "[0", False),
        ({}, "-0", "-7", False),
        ({}, "[1.", "[1", False),
        ({"maximum": 50}, "[10", "[11", False),
        ({"enum": [10, 11]}, "10", "11", False),
        ({}, "[1 \n, true", "[1,\ttrue", True),
        ({}, "[1, ", "[1,\n", True),
        ({}, "[1, ", "[1,", False),
        ({}, '["a b"', '["a  b"', False),
        ({}, '["\\"1 ', '["\\"2 ', False),
    ],
)
def test_a_place_is_the_same_where_the_same_may_follow(
    schema: Any, one: str, other: str, is_same: bool
) -> None:
    places = JsonPlaces(schema)
    first, second = (places.after(JsonPlace(), text.encode()) for text in (one, other))
    assert (first == second) == is_same


def test_a_grammar_that_is_dropped_leaves_no_states_to_the_collector() -> None:
    def num_states() -> int:
        return sum(type(each) is known_states.State for each in gc.get_objects())

    gc.collect()
    before = num_states()
    gc.disable()
    try:
        compiled = BACKEND.compile(spec({"type": "array"}))
        matcher = compiled.matcher()
        for byte in b'[1223, "ab\\nb':
            mask_of(matcher)
            assert matcher.accept(byte)
        assert num_states() > before + 4
        del compiled, matcher
        assert num_states() == before
    finally:
        gc.enable()


def test_a_long_string_that_is_told_from_others_is_no_common_place() -> None:
    places = JsonPlaces({})
    assert places.is_common(places.after(JsonPlace(), b'["12345678901234567890'))
    long = places.after(JsonPlace(), b'["' + b"a" * 40)
    assert not places.is_common(long)
    freed = places.freed(long)
    assert freed is not None and places.is_common(freed)
    known = JsonPlaces({"properties": {"b" * 60: {}, "a" * 50: {"enum": ["c" * 30 + '"']}}})
    for text in ("a" * 40, "b" * 59, "c" * 30 + "\\"):
        assert known.is_common(known.after(JsonPlace(), f'["{text}'.encode()))
        assert not known.is_common(known.after(JsonPlace(), f'["{text[:-1]}d'.encode()))


def test_in_a_free_string_only_what_is_no_whole_character_counts() -> None:
    places = JsonPlaces({})
    free = places.freed(places.after(JsonPlace(), b'{"a": "some'))
    assert free is not None
    for text in ("", "ab", "é日本", '\\n\\"', "x" * 100):
        assert places.after(free, text.encode()) == free
    for byte in ("é日😀".encode()[place : place + 1] for place in (0, 2, 5)):
        assert places.after(free, byte) != free
    ends = {places.after(free, text.encode()) for text in ('"', 'a"', '\\""', '" ')}
    assert len(ends) == 2


def test_a_schema_that_has_every_plain_character_may_spell_out_what_looks_like_any_text() -> None:
    everything = [chr(code) for code in range(0x20, 0x7F) if chr(code) not in '"\\']
    vocabulary = Vocabulary(tuple(bytes((byte,)) for byte in range(256)), {})
    schema = {"enum": [*everything, "tail"]}
    assert looks_at_no_text(schema)
    matcher = GuidanceBackend(vocabulary).compile(spec(schema)).matcher()
    assert matcher.accept(ord('"'))
    matcher.fill_bitmask(np.zeros((1, vocabulary.mask_words), dtype=np.int32), 0)
    assert isinstance(matcher, KnownStatesMatcher) and matcher._trail[-1].loops is None


def test_plain_tokens_are_whole_characters_that_json_writes_as_they_are() -> None:
    for token, is_plain in zip(TOKENS, PLAIN.are_plain, strict=True):
        try:
            text = token.decode()
        except UnicodeDecodeError:
            assert not is_plain
            continue
        written = json.dumps(text, ensure_ascii=False)
        assert is_plain == (bool(text) and written == f'"{text}"' and "\x7f" not in text), token


def test_a_text_that_is_never_told_can_be_long() -> None:
    matcher = BACKEND.compile(spec({"type": "string"})).matcher()
    assert matcher.accept(ord('"'))
    mask = mask_of(matcher)
    for place in range(500):
        assert matcher.accept(TOKENS.index(b" cat" if place % 3 else "日本".encode()))
    assert np.array_equal(mask_of(matcher), mask)
    assert matcher.accept(ord('"'))
    assert allowed(mask_of(matcher), VOCABULARY.size) == []


@pytest.mark.parametrize("num_blocks", [200, 60])
def test_requests_write_what_they_would_if_every_token_were_told(
    num_blocks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = []
    for tells_all in (False, True):
        if tells_all:
            monkeypatch.setattr(PlainTokens, "can_be_free", lambda self, schema: False)
        limits = SchedulerLimits(max_num_seqs=6, max_num_batched_tokens=64, max_model_len=160)
        made = SimulatedEngine(
            FcfsScheduler(limits),
            limits,
            num_blocks=num_blocks,
            vocabulary=VOCABULARY.size,
            grammars=GrammarCompiler(lambda: VOCABULARY, lambda name, given: BACKEND, "any"),
        )
        keys = [
            made.add(
                [1, 2, 3, place],
                100,
                sampling=TokenSampling(grammar=spec(FREE[-1 - place % 3]), stop_token_ids=(5,)),
            )
            for place in range(9)
        ]
        made.run()
        made.check_empty()
        assert made.stats is not None
        assert (made.stats.num_preemptions > 0) == (num_blocks == 60)
        answers.append([made.answers[key].token_ids for key in keys])
    assert answers[0] == answers[1]
    assert any(len(ids) > 30 for ids in answers[0])
