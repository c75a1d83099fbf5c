"""The laws of a grammar backend. Subclass ``GrammarContract`` in a test file::

    class TestMine(GrammarContract):
        backend = MyBackend

``schemas`` may list JSON Schemas that the backend takes: outputs are generated for each from its
masks alone, and checked with the jsonschema package where that is installed.
"""

from __future__ import annotations

import importlib
import json
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import pytest

from jackfield.contracts.grammar import (
    CompiledGrammar,
    GrammarBackend,
    GrammarKind,
    GrammarMatcher,
    GrammarSpec,
    KeepsMask,
    Masks,
    Vocabulary,
)
from jackfield.errors import RequestError

WORDS = (
    b"  ",
    b'"a',
    b'":',
    b"true",
    b"false",
    b"null",
    b"12",
    b'", "',
    b"},",
    b"ab",
    b"[[",
    b"]]",
)
_TOKENS = (*(bytes((byte,)) for byte in range(256)), *WORDS)


def encode(text: str) -> list[int]:
    """The longest token that fits, again and again."""
    rest, ids = text.encode(), []
    while rest:
        fitting = [index for index, token in enumerate(_TOKENS) if rest.startswith(token)]
        ids.append(max(fitting, key=lambda index: len(_TOKENS[index])))
        rest = rest[len(_TOKENS[ids[-1]]) :]
    return ids


VOCABULARY = Vocabulary((*_TOKENS, b"", b""), {"<|end|>": 256 + len(WORDS)}, encode)
"""Every byte, some longer tokens that cross the borders of JSON's own, and two special ones."""

MAX_IDS = 400


class GrammarContract:
    """Laws that hold for every grammar backend."""

    backend: ClassVar[type[GrammarBackend]]
    schemas: ClassVar[Sequence[object]] = (
        {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
        {"type": "array", "items": {"type": "boolean"}, "maxItems": 2},
        {"enum": ["a", 1, None]},
    )
    grammars: ClassVar[Mapping[GrammarKind, str]] = {
        "json_schema": '{"type": "array", "items": {"type": "integer"}, "maxItems": 3}',
        "regex": "[ab]{2,4}x?",
        "choice": '["yes", "no", "n\\u00f6"]',
        "grammar": 'root ::= "a" [0-9]+ | "b"',
    }
    """A grammar of each kind; a backend may refuse some kinds, though not all."""

    broken: ClassVar[Mapping[GrammarKind, str]] = {
        "json_schema": '{"type": "nothing"}',
        "regex": "(",
        "grammar": "root ::= missing",
    }

    _made: ClassVar[dict[type[GrammarBackend], GrammarBackend]] = {}

    def made(self) -> GrammarBackend:
        """The backend over ``VOCABULARY``, made once."""
        if self.backend not in self._made:
            self._made[self.backend] = self.backend(VOCABULARY)
        return self._made[self.backend]

    def compiled(self, kind: GrammarKind) -> CompiledGrammar:
        """One of ``grammars``; skips the test where the backend refuses its kind."""
        try:
            return self.made().compile(GrammarSpec(kind=kind, text=self.grammars[kind]))
        except (RequestError, KeyError):
            pytest.skip(f"{self.backend.name} takes no {kind}")

    def walks(self, seed: int) -> Iterator[tuple[GrammarKind, GrammarMatcher, random.Random]]:
        """A matcher of each kind, some ids into its grammar."""
        chance = random.Random(seed)
        for kind, text in self.grammars.items():
            try:
                matcher = self.made().compile(GrammarSpec(kind=kind, text=text)).matcher()
            except RequestError:
                continue
            for _ in range(chance.randrange(4)):
                allowed = allowed_ids(matcher)
                if not allowed:
                    break
                assert matcher.accept(chance.choice(allowed))
            yield kind, matcher, chance

    # --- laws --------------------------------------------------------------------------

    def test_names_itself_and_its_contract(self) -> None:
        assert re.fullmatch(r"[A-Za-z0-9_.-]+", self.backend.name)
        assert isinstance(self.backend.api_version, int)

    def test_some_kind_is_taken(self) -> None:
        assert list(self.walks(0))

    def test_a_valid_text_may_be_written_as_the_tokenizer_writes_it(self) -> None:
        """Also where a grammar forces the text: else a model writes it as it never learned to."""
        schema: dict[str, object] = {"type": "object", "required": ["null"]}
        schema |= {"properties": {"null": {"const": "truefalse"}}, "additionalProperties": False}
        spec = GrammarSpec(kind="json_schema", text=json.dumps(schema))
        try:
            matcher = self.made().compile(spec).matcher()
        except RequestError:
            pytest.skip(f"{self.backend.name} takes no such schema")
        for token_id in encode('{"null":"truefalse"}'):
            assert token_id in allowed_ids(matcher), VOCABULARY.tokens[token_id]
            assert matcher.accept(token_id)

    @pytest.mark.parametrize("seed", range(8))
    def test_what_a_mask_allows_is_accepted_and_nothing_else(self, seed: int) -> None:
        for kind, matcher, chance in self.walks(seed):
            allowed = set(allowed_ids(matcher))
            for token_id in chance.sample(range(VOCABULARY.size), 60):
                accepted = matcher.accept(token_id)
                assert accepted == (token_id in allowed), (kind, VOCABULARY.tokens[token_id])
                if accepted:
                    matcher.rollback(1)

    @pytest.mark.parametrize("seed", range(4))
    def test_rollback_restores_the_mask(self, seed: int) -> None:
        for _, matcher, chance in self.walks(seed):
            before = mask_of(matcher)
            count = 0
            for _ in range(3):
                allowed = allowed_ids(matcher)
                if allowed:
                    assert matcher.accept(chance.choice(allowed))
                    count += 1
            matcher.rollback(count)
            assert np.array_equal(mask_of(matcher), before)

    @pytest.mark.parametrize("seed", range(4))
    def test_many_masks_are_those_of_each(self, seed: int) -> None:
        matchers = [matcher for _, matcher, _ in self.walks(seed)]
        masks = np.full((len(matchers) + 1, VOCABULARY.mask_words), -1, dtype=np.int32)
        self.made().fill_bitmasks(matchers, masks, range(1, len(matchers) + 1))
        assert (masks[0] == -1).all()
        for matcher, row in zip(matchers, masks[1:], strict=True):
            assert np.array_equal(row, mask_of(matcher))

    @pytest.mark.parametrize("seed", range(4))
    def test_a_mask_that_is_said_to_stay_does(self, seed: int) -> None:
        schema = json.dumps({"type": "array", "items": {"type": "string"}})
        try:
            compiled = self.made().compile(GrammarSpec(kind="json_schema", text=schema))
        except RequestError:
            pytest.skip(f"{self.backend.name} takes no such schema")
        matcher, chance = compiled.matcher(), random.Random(seed)
        if not isinstance(matcher, KeepsMask):
            pytest.skip(f"{self.backend.name} fills every mask")
        taken: list[int] = []
        last = mask_of(matcher)
        while len(taken) < 40 and (allowed := allowed_ids(matcher)):
            taken.append(chance.choice(allowed))
            assert matcher.accept(taken[-1])
            if not matcher.keeps_mask:
                last = mask_of(matcher)
            other = compiled.matcher()
            assert all(map(other.accept, taken)) and np.array_equal(mask_of(other), last)

    @pytest.mark.parametrize("seed", range(4))
    def test_forced_ids_write_the_only_text_there_is(self, seed: int) -> None:
        for _, matcher, _ in self.walks(seed):
            forced = matcher.jump()
            for place, token_id in enumerate(forced):
                rest = b"".join(VOCABULARY.tokens[each] for each in forced[place:])
                ways = [VOCABULARY.tokens[each] for each in allowed_ids(matcher)]
                assert all(rest.startswith(way) or way.startswith(rest) for way in ways)
                assert not may_end(matcher) and matcher.accept(token_id)

    def test_a_long_text_that_is_forced_is_written_as_the_tokenizer_does(self) -> None:
        spec = GrammarSpec(kind="choice", text='["true, false", "true, null"]')
        try:
            matcher = self.made().compile(spec).matcher()
        except RequestError:
            pytest.skip("no choices here")
        forced = matcher.jump()
        assert forced in ([], encode("true, ")[: len(forced)])

    def test_matchers_do_not_share_their_place(self) -> None:
        compiled = self.compiled("regex")
        one, other = compiled.matcher(), compiled.matcher()
        assert one.accept(ord("a"))
        assert one.accept(ord("b"))
        assert may_end(one) and not may_end(other)
        assert compiled.num_bytes >= 0

    def test_the_output_may_end_where_it_is_complete(self) -> None:
        matcher = self.compiled("choice").matcher()
        for token_id in b"no":
            assert not may_end(matcher) and matcher.accept(token_id)
        assert may_end(matcher) and allowed_ids(matcher) == []

    def test_special_ids_are_never_allowed(self) -> None:
        for _, matcher, _ in self.walks(5):
            assert max(allowed_ids(matcher), default=0) < 256 + len(WORDS)

    @pytest.mark.parametrize("seed", range(3))
    def test_outputs_are_valid(self, seed: int) -> None:
        jsonschema = pytest.importorskip("jsonschema")
        self.compiled("json_schema")
        chance = random.Random(seed)
        for schema in self.schemas:
            spec = GrammarSpec(kind="json_schema", text=json.dumps(schema))
            output = generate(self.made().compile(spec).matcher(), chance)
            if output is not None:
                jsonschema.Draft202012Validator(schema).validate(json.loads(output))

    def test_outputs_match_the_regex(self) -> None:
        chance = random.Random(1)
        for _ in range(20):
            output = generate(self.compiled("regex").matcher(), chance)
            assert output is not None and re.fullmatch(self.grammars["regex"], output)

    def test_what_is_wrong_is_refused(self) -> None:
        for kind, text in self.broken.items():
            with pytest.raises(RequestError):
                self.made().compile(GrammarSpec(kind=kind, text=text))

    def test_a_process_can_find_it_by_its_path(self) -> None:
        module: Any = importlib.import_module(self.backend.__module__)
        assert getattr(module, self.backend.__qualname__) is self.backend


def mask_of(matcher: GrammarMatcher) -> Masks:
    """The mask of the next id."""
    masks = np.zeros((1, VOCABULARY.mask_words), dtype=np.int32)
    matcher.fill_bitmask(masks, 0)
    row: Masks = masks[0]
    return row


def _bits(matcher: GrammarMatcher) -> Any:
    return np.unpackbits(mask_of(matcher).view(np.uint8), bitorder="little")


def allowed_ids(matcher: GrammarMatcher) -> list[int]:
    """The ids that may come next."""
    ids: list[int] = np.flatnonzero(_bits(matcher)[: VOCABULARY.size]).tolist()
    return ids


def may_end(matcher: GrammarMatcher) -> bool:
    """Whether the output may end here."""
    return bool(_bits(matcher)[VOCABULARY.size])


def generate(matcher: GrammarMatcher, chance: random.Random) -> str | None:
    """A random output; None where it does not end in time. Rather short than long."""
    output = b""
    for _ in range(MAX_IDS):
        allowed = allowed_ids(matcher)
        if may_end(matcher) and (not allowed or chance.random() < 0.5):
            return output.decode(errors="replace")
        assert allowed, "the grammar leads to where nothing may come"
        closing = [each for each in allowed if VOCABULARY.tokens[each][:1] in (b"]", b"}", b'"')]
        chosen = chance.choice(closing if closing and chance.random() < 0.5 else allowed)
        assert matcher.accept(chosen)
        output += VOCABULARY.tokens[chosen]
    return None
