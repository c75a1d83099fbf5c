from __future__ import annotations

import json

import pytest

from jackfield.contracts.grammar import GrammarSpec
from jackfield.errors import RequestError
from jackfield.testing import GrammarContract
from jackfield.testing.grammars import VOCABULARY
from jackfield_grammars.auto import AutoBackend
from jackfield_grammars.guidance import GuidanceBackend, GuidanceCompiled
from jackfield_grammars.xgrammar import XGrammarBackend, XGrammarCompiled

LIMITED = (
    {"type": "string", "minLength": 1, "maxLength": 5},
    {"type": "string", "pattern": "^a(b[0-9]+)?$"},
    {"type": "string", "format": "date"},
    {"type": "object", "properties": {"a": {"type": "number", "minimum": 0}}, "required": ["b"]},
)


class TestXGrammar(GrammarContract):
    backend = XGrammarBackend
    schemas = (*GrammarContract.schemas, *LIMITED)


class TestGuidance(GrammarContract):
    backend = GuidanceBackend
    schemas = (*GrammarContract.schemas, *LIMITED, {"type": "integer", "multipleOf": 7})


class TestAuto(GrammarContract):
    backend = AutoBackend
    schemas = (*GrammarContract.schemas, *LIMITED, {"type": "integer", "multipleOf": 7})


def spec(schema: object, **others: str) -> GrammarSpec:
    return GrammarSpec(kind="json_schema", text=json.dumps(schema), **others)  # type: ignore[arg-type]


def test_auto_takes_the_backend_that_can() -> None:
    backend = AutoBackend(VOCABULARY)
    assert isinstance(backend.compile(spec({"type": "integer"})), GuidanceCompiled)
    # Characters that JSON can only write by their codes.
    assert isinstance(backend.compile(spec({"const": "\x01"})), XGrammarCompiled)
    regex = GrammarSpec(kind="regex", text="[ab]+")
    assert isinstance(backend.compile(regex), XGrammarCompiled)


def test_auto_says_why_no_backend_can() -> None:
    schema = {"type": "string", "not": {"pattern": "a"}}
    with pytest.raises(RequestError, match=r"guidance: .*not.*; not .*xgrammar"):
        AutoBackend(VOCABULARY).compile(spec(schema))


def test_without_the_extra_auto_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    backend = AutoBackend(VOCABULARY)
    backend.compile(spec({"type": "integer"}))
    with pytest.raises(RequestError, match=r"multipleOf.*jackfield\[guidance\]"):
        backend.compile(spec({"type": "integer", "multipleOf": 7}))


@pytest.mark.parametrize("whitespace", ["", "[ ]?"])
def test_space_between_tokens_is_what_was_asked_for(whitespace: str) -> None:
    compiled = AutoBackend(VOCABULARY).compile(
        spec({"type": "array", "items": {"type": "integer"}}, whitespace=whitespace)
    )

    def takes(text: str) -> bool:
        matcher = compiled.matcher()
        return all(map(matcher.accept, text.encode()))

    assert takes("[1,2]")
    assert takes("[1, 2]") == bool(whitespace)
    assert not takes("[1,  2]")


def test_literals_of_a_structural_tag_may_be_special_tokens() -> None:
    backend = XGrammarBackend(VOCABULARY)
    tag = {
        "type": "structural_tag",
        "format": {
            "type": "tag",
            "begin": "<|end|>",
            "content": {"type": "json_schema", "json_schema": {"type": "string", "maxLength": 2}},
            "end": "!",
        },
    }
    compiled = backend.compile(GrammarSpec(kind="structural_tag", text=json.dumps(tag)))
    special = VOCABULARY.special["<|end|>"]
    matcher = compiled.matcher()
    assert matcher.accept(special) and all(map(matcher.accept, b'"ab"!'))
    matcher = compiled.matcher()
    assert matcher.accept(special) and matcher.accept(ord('"')) and not matcher.accept(ord("\t"))


def test_auto_imports_xgrammar_for_the_first_grammar_that_guidance_does_not_take() -> None:
    backend = AutoBackend(VOCABULARY)
    backend.load(spec({"type": "integer"}))
    assert isinstance(backend.compile(spec({"type": "integer"})), GuidanceCompiled)
    assert backend._xgrammar is None
    backend.load(spec({"const": "\x01"}))
    assert backend._xgrammar is not None
    other = AutoBackend(VOCABULARY)
    other.load(GrammarSpec(kind="regex", text="[ab]+"))
    assert other._xgrammar is not None


def test_names_of_properties_have_no_quote_that_their_pattern_excludes() -> None:
    schema = {"type": "object", "propertyNames": {"pattern": '^[^"]$'}}
    compiled = GuidanceBackend(VOCABULARY).compile(spec(schema))
    for text, is_valid in (('{"a": 1}', True), ('{"\\"": 1}', False)):
        matcher = compiled.matcher()
        assert all(map(matcher.accept, text.encode())) == is_valid
