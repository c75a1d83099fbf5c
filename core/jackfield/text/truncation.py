"""The beginning of a text that is to become a vector, framed as the tokenizer frames a whole one.

As transformers truncates: tokens of the text go, those that the tokenizer adds stay. A vector may
be made of nothing else: BERT's of the first token, Qwen3-Embedding's of the last.
"""

from __future__ import annotations

from collections.abc import Sequence

from jackfield.contracts.text import Tokenizer

Ids = Sequence[int]


def first_tokens(tokenizer: Tokenizer, text: str, ids: Ids, keep: int) -> Ids:
    """At most ``keep`` of ``ids``, those of ``text`` with what is added to it."""
    if len(ids) <= keep:
        return ids
    own = tokenizer.encode(text, add_special_tokens=False)
    added = len(ids) - len(own)
    begin, room = _place(ids, own, added), keep - added
    if begin is None or room < 1:
        return ids[:keep]
    return [*ids[:begin], *own[:room], *ids[begin + len(own) :]]


def first_of_pair(tokenizer: Tokenizer, text: str, other: str, ids: Ids, keep: int) -> Ids:
    """At most ``keep`` of ``ids``, those of two texts that are compared: the longer one is cut,
    then both."""
    if len(ids) <= keep:
        return ids
    one, two = (tokenizer.encode(each, add_special_tokens=False) for each in (text, other))
    added = len(ids) - len(one) - len(two)
    begin, room = _place(ids, one, added), keep - added
    if begin is None or room < 1:
        return ids[:keep]
    end = begin + len(one)
    second = _place(ids[end:], two, added - begin)
    if second is None:
        return ids[:keep]
    cut_one, cut_two = _shared(room, len(one), len(two))
    between, after = ids[end : end + second], ids[end + second + len(two) :]
    return [*ids[:begin], *one[:cut_one], *between, *two[:cut_two], *after]


def _shared(room: int, one: int, two: int) -> tuple[int, int]:
    """The longest-first rule of the tokenizers library."""
    half = room // 2
    if min(one, two) > half:
        return (half, room - half) if one <= two else (room - half, half)
    return (one, room - one) if one <= two else (room - two, two)


def _place(ids: Ids, own: Ids, added: int) -> int | None:
    """Where ``own`` begins in ``ids``, behind at most ``added`` others."""
    wanted = list(own)
    for begin in range(added + 1):
        if list(ids[begin : begin + len(own)]) == wanted:
            return begin
    return None
