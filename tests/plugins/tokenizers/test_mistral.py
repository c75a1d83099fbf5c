"""tekken.json against tiktoken's rule written out, and against mistral-common where it is there."""

from __future__ import annotations

import base64
import importlib.util
import json
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import pytest
import regex  # type: ignore[import-untyped]  # transformers needs it
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jackfield.contracts.text import Tokenizer
from jackfield.errors import CheckpointError
from jackfield.testing import TokenizerContract
from jackfield_tokenizers.auto import AutoTokenizerMode
from jackfield_tokenizers.mistral import MistralTokenizerMode

# The expression of a published file.
PATTERN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CORPUS = (
    "the cat sat on the mat and the hat, then the cat ate. 1234 \u00e9t\u00e9 na\u00efve "
    "\u4f60\u597d aaaa anna banana Cathedral CHAT attach hatchet\n\n  that's\tit... "
)
NUM_SPECIAL = 24
NUM_MERGES = 48


def pieces(text: str) -> list[bytes]:
    return [found.encode() for found in regex.findall(PATTERN, text)]


def merged(parts: list[bytes], ranks: dict[bytes, int]) -> list[bytes]:
    """Merges the neighbours that make the token of the lowest rank, as long as any make one."""
    while len(parts) > 1:
        candidates = [
            (ranks[left + right], place)
            for place, (left, right) in enumerate(pairwise(parts))
            if left + right in ranks
        ]
        if not candidates:
            break
        _, place = min(candidates)
        parts = [*parts[:place], parts[place] + parts[place + 1], *parts[place + 2 :]]
    return parts


def trained() -> list[bytes]:
    """256 bytes, and what neighbours of the corpus make most often."""
    tokens = [bytes([byte]) for byte in range(256)]
    for _ in range(NUM_MERGES):
        ranks = {token: rank for rank, token in enumerate(tokens)}
        counts: Counter[bytes] = Counter()
        for piece in pieces(CORPUS):
            parts = merged([bytes([byte]) for byte in piece], ranks)
            counts.update(left + right for left, right in pairwise(parts))
        tokens.append(max(counts, key=lambda token: (counts[token], token)))
    return tokens


TOKENS = trained()
RANKS = {token: rank for rank, token in enumerate(TOKENS)}


def write(directory: Path, **changes: Any) -> None:
    content = {
        "config": {
            "pattern": PATTERN,
            "num_vocab_tokens": len(TOKENS) + 5,
            "default_vocab_size": NUM_SPECIAL + len(TOKENS),
            "default_num_special_tokens": NUM_SPECIAL,
            "version": "v3",
        },
        "vocab": [
            {
                "rank": rank,
                "token_bytes": base64.b64encode(token).decode(),
                "token_str": token.decode(errors="replace"),
            }
            # More than the vocabulary has: a published file is cut, too.
            for rank, token in enumerate([*TOKENS, *(b"never%d" % n for n in range(5))])
        ],
        **changes,
    }
    (directory / "tekken.json").write_text(json.dumps(content))


def expected(text: str) -> list[int]:
    ids = []
    for piece in pieces(text):
        whole = [piece] if piece in RANKS else merged([bytes([b]) for b in piece], RANKS)
        ids += [NUM_SPECIAL + RANKS[token] for token in whole]
    return ids


class TestMistral(TokenizerContract):
    mode: ClassVar[type[MistralTokenizerMode]] = MistralTokenizerMode

    def write(self, directory: Path) -> None:
        write(directory)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    directory = tmp_path_factory.mktemp("tekken")
    write(directory)
    return MistralTokenizerMode().load(str(directory))


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.one_of(st.text(), st.text(alphabet="thecat shn.\n1\u00e9\u4f60")))
def test_ids_are_those_of_the_rule(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert ids == expected(text)
    assert tokenizer.decode(ids) == text


@pytest.mark.skipif(
    importlib.util.find_spec("mistral_common") is None, reason="mistral-common is not installed"
)
def test_ids_are_those_of_mistral_common(tmp_path: Path, tokenizer: Tokenizer) -> None:
    from mistral_common.tokens.tokenizers.tekken import Tekkenizer

    write(tmp_path)
    theirs = Tekkenizer.from_file(tmp_path / "tekken.json")
    assert tokenizer.vocab_size == theirs.n_words
    assert tokenizer.special_ids == theirs.special_ids
    for text in (CORPUS, "", " a", "x\n\n  y", "123 THE Cat", "\U0001f600 \u4f60\u597d"):
        assert tokenizer.encode(text) == theirs.encode(text, bos=True, eos=False)


def test_special_tokens_have_the_first_ids(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("[INST]the[/INST]")
    assert ids == [1, 3, *expected("the"), 4]
    assert tokenizer.eos_token_id == 2
    assert tokenizer.token_text(NUM_SPECIAL - 1) == "<SPECIAL_23>"
    assert tokenizer.decode(ids, skip_special_tokens=True) == "the"


def test_listed_special_tokens_go_before_the_usual_ones(tmp_path: Path) -> None:
    listed = [
        {"rank": 1, "token_str": "<s>", "is_control": True},
        {"rank": 0, "token_str": "[THINK]", "is_control": False},
    ]
    write(tmp_path, special_tokens=listed)
    made = AutoTokenizerMode().load(str(tmp_path))
    assert made.encode("[THINK]the") == [1, 0, *expected("the")]
    assert made.special_tokens == {"bos_token": "<s>"} and made.eos_token_id is None
    assert 0 not in made.special_ids and 1 in made.special_ids


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"config": {}}, "default_num_special_tokens"),
        ({"vocab": [{"token_bytes": "?"}]}, "damaged"),
        ({"vocab": [{"token_bytes": "YQ=="}] * 2}, "twice"),
        ({"special_tokens": [{"rank": n, "token_str": str(n)} for n in range(99)]}, "room for 24"),
    ],
)
def test_a_damaged_file_is_refused_in_one_line(
    tmp_path: Path, changes: dict[str, Any], part: str
) -> None:
    write(tmp_path, **changes)
    with pytest.raises(CheckpointError, match=part) as error:
        MistralTokenizerMode().load(str(tmp_path))
    assert "tekken.json" in str(error.value) and "\n" not in str(error.value)


def test_a_directory_without_the_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no tekken\.json"):
        MistralTokenizerMode().load(str(tmp_path))
