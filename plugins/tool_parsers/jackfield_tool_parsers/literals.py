"""Values as formats other than JSON write them, Python's and Gemma's, turned into JSON."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass

from jackfield_tool_parsers.arguments import JsonWriter, encoded
from jackfield_tool_parsers.markers import Markers
from jackfield_tool_parsers.source import Broken, Source, Truncated, Wait

MAX_DEPTH = 64
KEYWORD = re.compile(r"[^\s,:=()\[\]{}\"'`<>|\\]*")
"""The name of an argument: tools have such as ``content-type``, though Python does not."""
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_IDENTIFIER = re.compile(r"[A-Za-z_][\w.-]*")
_CONSTANTS = {"True": "true", "False": "false", "None": "null"}
_CONSTANTS |= {word: word for word in ("true", "false", "null")}
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "v": "\v", "a": "\a", "0": "\0"}
_HEX_DIGITS = {"x": 2, "u": 4, "U": 8}
_CLOSERS = {"[": "]", "(": ")", "{": "}"}


@dataclass(frozen=True)
class Dialect:
    """How values are written. ``quotes``: what strings stand between, with the markers that are
    looked for inside each; ``bare_keys``: keys stand without quotes; ``escapes``: backslashes
    mean something in strings; ``bare_text``: a scalar that is no number or word of the language
    is a text, up to the next comma or bracket."""

    openers: Markers
    inside: dict[str, Markers]
    bare_keys: bool = False
    escapes: bool = True
    bare_text: bool = False


def _python() -> Dialect:
    quotes = ("'''", '"""', "'", '"')
    return Dialect(Markers(quotes), {quote: Markers([quote, "\\"]) for quote in quotes})


PYTHON = _python()
_BARE_TEXT = re.compile(r"[^,\[\]{}]*")
_KEY_END = Markers([":"])


def delimited(*delimiters: str) -> Dialect:
    """Gemma's notation: strings between two equal delimiters and without escapes, keys bare."""
    openers = Markers(delimiters)
    inside = {each: Markers([each]) for each in delimiters}
    return Dialect(openers, inside, bare_keys=True, escapes=False, bare_text=True)


def read_value(source: Source, writer: JsonWriter, dialect: Dialect, depth: int = 0) -> Wait[None]:
    """Reads one value and writes it as JSON while it arrives."""
    character = yield from source.skip_space()
    if not character:
        raise Truncated
    if character in _CLOSERS and (character != "(" or not dialect.bare_text):
        if depth == MAX_DEPTH:
            raise Broken
        source.at += 1
        if character == "{":
            yield from _read_object(source, writer, dialect, depth + 1)
        else:
            yield from _read_array(source, writer, dialect, depth + 1, _CLOSERS[character])
        return
    quote = yield from source.accept(dialect.openers)
    if quote is not None:
        writer.open('"')
        yield from _read_string(source, writer, dialect, quote)
        writer.close()
    elif dialect.bare_text:
        yield from _read_bare_text(source, writer)
    else:
        yield from _read_word(source, writer, dialect)


def _read_array(
    source: Source, writer: JsonWriter, dialect: Dialect, depth: int, closer: str
) -> Wait[None]:
    writer.open("[")
    while True:
        character = yield from source.skip_space()
        if character == closer:
            break
        yield from read_value(source, writer, dialect, depth)
        if not (yield from _comma(source, closer)):
            break
    source.at += 1
    writer.close()


def _read_object(source: Source, writer: JsonWriter, dialect: Dialect, depth: int) -> Wait[None]:
    writer.open("{")
    yield from read_members(source, writer, dialect, depth)
    source.at += 1
    writer.close()


def read_members(
    source: Source, writer: JsonWriter, dialect: Dialect, depth: int = 0
) -> Wait[None]:
    """Reads ``key: value, ...`` up to the closing brace, which is left."""
    while True:
        character = yield from source.skip_space()
        if character == "}":
            return
        writer.key((yield from _read_key(source, dialect)))
        yield from read_value(source, writer, dialect, depth)
        if not (yield from _comma(source, "}")):
            return


def _comma(source: Source, closer: str) -> Wait[bool]:
    """Whether more follows: reads a comma; a closer is left."""
    character = yield from source.skip_space()
    if character == closer:
        return False
    if character != ",":
        raise Broken if character else Truncated
    source.at += 1
    return True


def _read_key(source: Source, dialect: Dialect) -> Wait[str]:
    quote = yield from source.accept(dialect.openers)
    if quote is None and dialect.bare_keys:
        text, _ = yield from source.all_before(_KEY_END)
        return text.strip()
    keys = JsonWriter()
    if quote is None:
        yield from _read_word(source, keys, dialect)
    else:
        keys.open('"')
        yield from _read_string(source, keys, dialect, quote)
        keys.close()
    text = keys.take()
    yield from source.expect(_KEY_END)
    return str(json.loads(text)) if text[0] == '"' else text


def _read_bare_text(source: Source, writer: JsonWriter) -> Wait[None]:
    text = (yield from source.match(_BARE_TEXT)).strip()
    if source.ended and source.at == len(source.text) and not text:
        raise Truncated
    if _NUMBER.fullmatch(text):
        writer.value(text)
    elif text in _CONSTANTS:
        writer.value(_CONSTANTS[text])
    else:
        writer.value(encoded(text))


def _read_word(source: Source, writer: JsonWriter, dialect: Dialect) -> Wait[None]:
    """A number, a constant, a string's prefix, or a bare word, which is taken for a string."""
    word = yield from source.match(KEYWORD)
    if not word:
        raise Broken
    ended = source.ended and source.at == len(source.text)
    if word.lower() in ("r", "b", "u", "f", "br", "rb") and not ended:
        quote = yield from source.accept(dialect.openers)
        if quote is not None:
            writer.open('"')
            yield from _read_string(source, writer, dialect, quote, raw="r" in word.lower())
            writer.close()
            return
    if word in _CONSTANTS:
        writer.value(_CONSTANTS[word])
    elif (number := _number(word)) is not None:
        writer.value(number)
    elif ended:
        raise Truncated
    elif _IDENTIFIER.fullmatch(word):
        writer.value(encoded(word))
    else:
        raise Broken


def _number(word: str) -> str | None:
    if _NUMBER.fullmatch(word):
        return word
    if len(word) > 400:
        return None
    try:
        return str(int(word, 0))
    except ValueError:
        pass
    try:
        value = float(word)
    except ValueError:
        return None
    return repr(value) if math.isfinite(value) else None


def _read_string(
    source: Source, writer: JsonWriter, dialect: Dialect, quote: str, raw: bool = False
) -> Wait[None]:
    """The inside of a string, and what Python joins to it."""
    characters = _Characters(writer)
    while True:
        text, which = yield from source.before(dialect.inside[quote])
        characters.text(text)
        if which == "\\" and raw:
            characters.text("\\" + (yield from _character(source)))
        elif which == "\\":
            characters.escaped((yield from _read_escape(source)))
        elif which is not None:
            following = (yield from source.accept(dialect.openers)) if dialect.escapes else None
            if following is None:
                characters.end()
                return
            quote = following


class _Characters:
    """Writes a string of which halves of surrogate pairs arrive one by one; a half without the
    other is U+FFFD, as nobody downstream could encode it."""

    def __init__(self, writer: JsonWriter) -> None:
        self._writer = writer
        self._high = 0

    def text(self, text: str) -> None:
        if text:
            self.end()
            self._writer.text(text)

    def escaped(self, value: str) -> None:
        code = ord(value) if len(value) == 1 else 0
        if self._high and 0xDC00 <= code < 0xE000:
            value = chr(0x10000 + ((self._high - 0xD800) << 10) + code - 0xDC00)
            self._high = 0
        elif 0xD800 <= code < 0xE000:
            self.end()
            self._high = code if code < 0xDC00 else 0
            value = "" if self._high else "\ufffd"
        self.text(value)

    def end(self) -> None:
        if self._high:
            self._high = 0
            self._writer.text("\ufffd")


def _character(source: Source) -> Wait[str]:
    character = yield from source.peek()
    if not character:
        raise Truncated
    source.at += 1
    return character


def _read_escape(source: Source) -> Wait[str]:
    """What stands for a backslash and what follows it."""
    character = yield from _character(source)
    if character in _HEX_DIGITS:
        digits = ""
        for _ in range(_HEX_DIGITS[character]):
            digit = yield from _character(source)
            if digit not in "0123456789abcdefABCDEF":
                raise Broken
            digits += digit
        code = int(digits, 16)
        return chr(code) if code < 0x110000 else "\ufffd"
    if character == "\n":
        return ""
    if character in "'\"\\/":
        return character
    return _ESCAPES.get(character, "\\" + character)
