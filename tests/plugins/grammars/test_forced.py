"""Forced texts are written once, however often a grammar forces them."""

from __future__ import annotations

import json

from jackfield.contracts.grammar import GrammarSpec, Vocabulary
from jackfield_grammars.guidance import GuidanceBackend

SCHEMA = {
    "type": "object",
    "properties": {"customer_identification": {"const": "a text of some length"}},
    "required": ["customer_identification"],
    "additionalProperties": False,
}


def test_a_text_that_comes_again_is_encoded_once() -> None:
    encoded: list[str] = []

    def encode(text: str) -> list[int]:
        encoded.append(text)
        return list(text.encode())

    vocabulary = Vocabulary(tuple(bytes((byte,)) for byte in range(256)), {}, encode)
    backend = GuidanceBackend(vocabulary)
    spec = GrammarSpec(kind="json_schema", text=json.dumps(SCHEMA), whitespace="")
    compiled = backend.compile(spec)
    encoded.clear()
    forced = [compiled.matcher().jump() for _ in range(3)]
    assert bytes(forced[0]) == b'{"customer_identification":"a text of some length"}'
    assert forced[0] == forced[1] == forced[2]
    assert len(encoded) == 1
