from __future__ import annotations

from dataclasses import replace

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from jackfield.contracts.text import ReasoningBoundary
from jackfield.text.reasoning import ReasoningCounter, ReasoningIds, marker_ids
from jackfield_tokenizers.fast import FastTokenizer

THINK = ReasoningIds((7,), ((8,), (9, 9)), (8,), (8,), opened=False, repeats=False)
OPENED = replace(THINK, opened=True)


def count(ids: ReasoningIds, *tokens: int) -> int:
    whole = ReasoningCounter(ids).feed(tokens)
    counter = ReasoningCounter(ids)
    assert sum(counter.feed([token]) for token in tokens) == whole
    return whole


@pytest.mark.parametrize(
    ("ids", "tokens", "expected"),
    [
        (OPENED, (1, 2, 3, 8, 4), 3),
        (OPENED, (8, 1, 2), 0),
        (OPENED, (7, 1, 2, 8, 4), 2),
        (OPENED, (1, 2, 9, 9, 4, 8), 2),
        (OPENED, (1, 9, 1, 9), 4),
        (THINK, (7, 1, 2, 8, 4), 2),
        (THINK, (0, 0, 0, 0, 7, 1, 8), 1),
        (THINK, (0, 0, 0, 0, 0, 7, 1, 8), 0),
        (THINK, (1, 2, 3), 0),
        (THINK, (7, 1, 8, 1, 7, 1, 1), 1),
        (replace(THINK, repeats=True), (7, 1, 8, 1, 7, 1, 1), 3),
        (replace(OPENED, start=()), (1, 7, 8, 1), 2),
    ],
)
def test_ids_between_start_and_end_are_counted(
    ids: ReasoningIds, tokens: tuple[int, ...], expected: int
) -> None:
    assert count(ids, *tokens) == expected


@pytest.fixture(scope="module")
def tokenizer() -> FastTokenizer:
    """Bytes, a merge of ``>`` with the newline behind it, and an added token."""
    vocab = {token: i for i, token in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    vocab[">\u010a"] = len(vocab)
    backend = Tokenizer(models.BPE(vocab, [(">", "\u010a")]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_tokens([AddedToken("</think>", special=False)])
    return FastTokenizer(backend, {}, None)


def test_a_marker_has_ids_only_where_no_text_around_it_changes_them(
    tokenizer: FastTokenizer,
) -> None:
    assert marker_ids("</think>", tokenizer) == tuple(tokenizer.encode("</think>"))
    assert marker_ids("</thought", tokenizer) == tuple(tokenizer.encode("</thought"))
    assert marker_ids("</thought>", tokenizer) is None, "> merges with the newline behind it"
    assert marker_ids("", tokenizer) is None


def test_a_boundary_becomes_ids(tokenizer: FastTokenizer) -> None:
    boundary = ReasoningBoundary(
        None, "</think>", opened=True, other_ends=("[CALL]", "</call>"), closing="\n</think>\n"
    )
    ids = ReasoningIds.of(boundary, tokenizer)
    assert ids is not None
    assert ids.start == () and ids.opened
    assert ids.ends == (tuple(tokenizer.encode("</think>")), tuple(tokenizer.encode("[CALL]")))
    assert ids.answer == ids.ends[0]
    assert tokenizer.decode(ids.closing) == "\n</think>\n"
    assert ReasoningIds.of(replace(boundary, end="</thought>"), tokenizer) is None
    assert ReasoningIds.of(replace(boundary, start="<thought>"), tokenizer) is None
    assert ReasoningIds.of(replace(boundary, answer="<answer>"), tokenizer) is None
