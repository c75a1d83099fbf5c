"""Strings of JSON in which any text may stand: there, a token of plain characters changes nothing.

A model spends most tokens of an answer inside of strings. What llguidance allows there is the same
before and behind a plain token, as long as nothing in the schema looks at the text of strings. So
the mask of such a place stays as it is, and the library is told the tokens later, several at once.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import compress
from typing import Any

import numpy as np
import numpy.typing as npt

from jackfield.contracts.grammar import Masks, Vocabulary
from jackfield_grammars.schema_facts import DATA, MAPS

_PLAIN = bytes(byte for byte in range(0x20, 0x7F) if byte not in b'"\\')
_SPECIAL = frozenset('"\\\x7f')
_ALTERNATIVES = frozenset({"anyOf", "oneOf", "allOf"})
_HARMLESS = _ALTERNATIVES.union(
    ("type", "enum", "const", "$ref", "$defs", "definitions", "title", "description", "default"),
    ("properties", "required", "additionalProperties", "items", "prefixItems"),
    ("minItems", "maxItems", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
    ("multipleOf", "examples", "deprecated", "readOnly", "writeOnly", "$schema", "$id", "$comment"),
)
"""Keywords that do not look at the text of strings; ``enum`` and ``const`` are looked at here."""


class PlainTokens:
    """The tokens of a vocabulary that are whole characters which JSON writes as they are."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.are_plain = bytearray(map(_is_plain, vocabulary.tokens))
        """By id, 1 for a plain one."""
        bits = np.zeros(32 * vocabulary.mask_words, dtype=np.uint8)
        bits[: vocabulary.size] = self.are_plain
        self._words: npt.NDArray[np.int32] = np.packbits(bits, bitorder="little").view(np.int32)
        self._first = self.are_plain.find(1)
        plain = compress(vocabulary.tokens, self.are_plain)
        self._characters = {each for token in plain for each in token.decode()}

    def can_be_free(self, schema: Any) -> bool:
        """Whether a place of this schema at which all plain tokens are allowed lies inside of a
        string of any text: so no text of the schema itself may have all their characters."""
        return looks_at_no_text(schema) and bool(
            self._characters - set(json.dumps(schema, ensure_ascii=False))
        )

    def are_allowed(self, mask: Masks) -> bool:
        """Whether a mask [W] allows every plain token."""
        if not mask[self._first >> 5] >> (self._first & 31) & 1:
            return False
        return bool(np.array_equal(mask & self._words, self._words))


def _is_plain(token: bytes) -> bool:
    rest = token.translate(None, _PLAIN)
    if not rest or rest.isascii():
        return bool(token) and not rest
    try:
        text = token.decode()
    except UnicodeDecodeError:
        return False
    return all(each >= " " and each not in _SPECIAL for each in text)


def looks_at_no_text(schema: Any) -> bool:
    """Whether what may follow a string, and when it may end, depends on no text: those that are
    written out, names and values, stand alone in their place, not beside a string of any text."""
    found = _Found()
    if not _is_harmless(schema, found, in_alternatives=False):
        return False
    return not (found.texts_beside or (found.references_beside and found.texts))


class _Found:
    """What a schema has anywhere, and what is an alternative to something."""

    def __init__(self) -> None:
        self.texts = self.texts_beside = self.references_beside = False


def _is_harmless(node: Any, found: _Found, in_alternatives: bool) -> bool:
    if isinstance(node, list):
        return all(_is_harmless(each, found, in_alternatives) for each in node)
    if not isinstance(node, Mapping):
        return True
    if not _HARMLESS.issuperset(node) or not _has_free_names(node):
        return False
    in_alternatives = in_alternatives or not _ALTERNATIVES.isdisjoint(node)
    has_texts = "enum" in node or "const" in node
    found.texts |= has_texts
    found.texts_beside |= has_texts and in_alternatives
    found.references_beside |= "$ref" in node and in_alternatives
    for key, value in node.items():
        if key in MAPS and isinstance(value, Mapping):
            if not all(_is_harmless(each, found, in_alternatives) for each in value.values()):
                return False
        elif key not in DATA and not _is_harmless(value, found, in_alternatives):
            return False
    return True


def _has_free_names(node: Mapping[str, Any]) -> bool:
    """Whether properties have either names that are listed or any, so that none is told from
    others by its text."""
    names = node.get("properties") or {}
    is_closed = node.get("additionalProperties") is False
    return (is_closed or not names) and set(node.get("required") or ()).issubset(names)
