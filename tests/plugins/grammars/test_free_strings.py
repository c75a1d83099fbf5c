"""Masks that stay inside of strings, against llguidance told every token at once."""

from __future__ import annotations

import json
import random
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from jackfield.contracts.grammar import GrammarSpec, Vocabulary
from jackfield.contracts.sampling import TokenSampling
from jackfield.contracts.scheduling import SchedulerLimits
from jackfield.engine.grammar_compiler import GrammarCompiler
from jackfield.testing.simulated_engine import SimulatedEngine
from jackfield_grammars.free_strings import PlainTokens, looks_at_no_text
from jackfield_grammars.guidance import FreeStringsMatcher, GuidanceBackend, GuidanceMatcher
from jackfield_grammars.guidance_texts import source
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
TOKENS = (*(bytes((byte,)) for byte in range(256)), *(each.encode() for each in PIECES), b"")
VOCABULARY = Vocabulary(TOKENS, {})
BACKEND = GuidanceBackend(VOCABULARY)
PLAIN = PlainTokens(VOCABULARY)
Mask = npt.NDArray[np.int32]

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


def spec(schema: Any) -> GrammarSpec:
    return GrammarSpec(kind="json_schema", text=json.dumps(schema))


def told_at_once(schema: Any) -> GuidanceMatcher:
    library = BACKEND._library.LLMatcher
    text = source(spec(schema), library, VOCABULARY).text
    return GuidanceMatcher(library(BACKEND._tokenizer, text, log_level=0), BACKEND._forced)


def mask_of(matcher: GuidanceMatcher) -> Mask:
    masks = np.zeros((1, VOCABULARY.mask_words), dtype=np.int32)
    matcher.fill_bitmask(masks, 0)
    mask: Mask = masks[0]
    return mask


def allowed(mask: Mask) -> list[int]:
    bits = np.unpackbits(mask.view(np.uint8), bitorder="little", count=VOCABULARY.size)
    return np.flatnonzero(bits).tolist()


def walk(schema: Any, chance: random.Random) -> int:
    """Ids, allowed and not, to a matcher and to a library that is told each at once, and some back.
    How many masks stayed."""
    matcher = BACKEND.compile(spec(schema)).matcher()
    assert isinstance(matcher, FreeStringsMatcher)
    other = told_at_once(schema)
    last = mask_of(matcher)
    num_kept = num_told = 0
    for _ in range(120):
        if not matcher.keeps_mask or chance.random() < 0.2:
            last = mask_of(matcher)
        else:
            num_kept += 1
        wanted = mask_of(other)
        assert np.array_equal(last, wanted)
        ids = allowed(wanted)
        if not ids:
            break
        if num_told and chance.random() < 0.1:
            back = chance.randint(1, min(num_told, 6))
            matcher.rollback(back)
            other.rollback(back)
            num_told -= back
            last = mask_of(matcher)
            continue
        plain = [each for each in ids if PLAIN.are_plain[each]]
        chosen = chance.choice(plain if plain and chance.random() < 0.8 else ids)
        if chance.random() < 0.2:
            chosen = chance.randrange(VOCABULARY.size)
        is_taken = matcher.accept(chosen)
        assert is_taken == other.accept(chosen) == (chosen in ids)
        num_told += is_taken
        assert matcher.jump() == other.jump()
    return num_kept


@pytest.mark.parametrize("schema", FREE, ids=str)
def test_masks_and_verdicts_are_those_of_a_library_told_every_token(schema: Any) -> None:
    assert sum(walk(schema, random.Random(seed)) for seed in range(12)) > 20


@pytest.mark.parametrize("schema", HELD, ids=str)
def test_where_a_keyword_looks_at_texts_every_token_is_told(schema: Any) -> None:
    assert not looks_at_no_text(schema)
    assert type(BACKEND.compile(spec(schema)).matcher()) is GuidanceMatcher


def test_a_schema_that_has_every_plain_character_may_spell_out_what_looks_like_any_text() -> None:
    everything = [chr(code) for code in range(0x20, 0x7F) if chr(code) not in '"\\']
    vocabulary = Vocabulary(tuple(bytes((byte,)) for byte in range(256)), {})
    schema = {"enum": [*everything, "tail"]}
    assert looks_at_no_text(schema)
    matcher = GuidanceBackend(vocabulary).compile(spec(schema)).matcher()
    assert type(matcher) is GuidanceMatcher


def test_plain_tokens_are_whole_characters_that_json_writes_as_they_are() -> None:
    for token, is_plain in zip(TOKENS, PLAIN.are_plain, strict=True):
        try:
            text = token.decode()
        except UnicodeDecodeError:
            assert not is_plain
            continue
        written = json.dumps(text, ensure_ascii=False)
        assert is_plain == (bool(text) and written == f'"{text}"' and "\x7f" not in text), token


def test_a_text_that_is_told_late_can_be_long() -> None:
    matcher = BACKEND.compile(spec({"type": "string"})).matcher()
    assert matcher.accept(ord('"'))
    mask = mask_of(matcher)
    for place in range(500):
        assert matcher.accept(TOKENS.index(b" cat" if place % 3 else "日本".encode()))
    assert np.array_equal(mask_of(matcher), mask)
    assert matcher.accept(ord('"'))
    assert allowed(mask_of(matcher)) == []


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
