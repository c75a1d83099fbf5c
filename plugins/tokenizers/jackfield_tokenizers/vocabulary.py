"""The bytes behind a vocabulary entry, for the decoders that are exact per token."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

TokenBytes = Callable[[str], bytes]

_SPACE = "\u2581"  # sentencepiece writes a space so
_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>\Z")


def byte_alphabet() -> dict[str, int]:
    """GPT-2's printable stand-ins for the 256 bytes: bytes that print as themselves keep their
    character, the others are numbered from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    alphabet = {chr(byte): byte for byte in printable}
    hidden = [byte for byte in range(256) if byte not in set(printable)]
    alphabet.update({chr(0x100 + index): byte for index, byte in enumerate(hidden)})
    return alphabet


_ALPHABET = byte_alphabet()


def byte_level(token: str) -> bytes:
    """A token of a byte-level BPE vocabulary. One with a character outside the alphabet (an
    added token) stands for its own UTF-8 bytes, as the library's decoder has it."""
    try:
        return bytes(map(_ALPHABET.__getitem__, token))
    except KeyError:
        return token.encode()


def sentencepiece(token: str) -> bytes:
    """A token of a sentencepiece vocabulary without byte tokens, in the middle of a text."""
    return token.replace(_SPACE, " ").encode()


def sentencepiece_with_bytes(token: str) -> bytes:
    """The same where ``<0xNN>`` stands for a byte."""
    match = _BYTE_TOKEN.match(token)
    return bytes((int(match[1], 16),)) if match else sentencepiece(token)


def token_bytes_rule(decoder: Mapping[str, object] | None) -> TokenBytes | None:
    """The rule for a tokenizer.json ``decoder``, None for one whose tokens depend on their
    neighbours."""
    if decoder is None:
        return None
    steps = decoder.get("decoders") if decoder.get("type") == "Sequence" else [decoder]
    if not isinstance(steps, list):
        return None
    kinds = [step.get("type") for step in steps if step.get("type") != "Fuse"]
    if kinds == ["ByteLevel"]:
        return byte_level
    if kinds == ["Metaspace"]:
        return sentencepiece if steps[0].get("replacement") == _SPACE else None
    if not all(map(_is_sentencepiece_step, steps)) or "Replace" not in kinds:
        return None
    return sentencepiece_with_bytes if "ByteFallback" in kinds else sentencepiece


def _is_sentencepiece_step(step: Mapping[str, object]) -> bool:
    kind = step.get("type")
    if kind == "Replace":
        return step.get("pattern") == {"String": _SPACE} and step.get("content") == " "
    if kind == "Strip":
        # More than one leading space could reach into a second token.
        return step.get("content") == " " and step.get("start") in (0, 1) and step.get("stop") == 0
    return kind in ("ByteFallback", "Fuse")
