"""How a text is cut before byte-level BPE, by the names that GGUF files have for it.

The expressions are those of the models' own published tokenizers; ``tokenizer.ggml.pre`` names
them. What one expression has found, and what is left between, the next one cuts further.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from tokenizers import Regex, pre_tokenizers

_ENDINGS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_REST_WITH_SLASH = r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_WORD = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_CAPITAL, _SMALL = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_CASED = r"[^\r\n\p{L}\p{N}]?" + _CAPITAL
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_DIGIT = r"\p{N}"


class PieceRule(NamedTuple):
    """``expressions`` are applied one after the other. ``ignores_merges``: a piece that is a token
    is taken for it, whatever the merges say. ``adds_bos``: unless the file says otherwise."""

    expressions: tuple[str, ...]
    ignores_merges: bool = False
    adds_bos: bool = False

    def splits(self) -> list[Any]:
        """The library's pre-tokenizers."""
        return [pre_tokenizers.Split(Regex(each), "isolated") for each in self.expressions]


_LLAMA3 = PieceRule(
    (f"{_ENDINGS}|{_WORD}|\\p{{N}}{{1,3}}|{_REST}",), ignores_merges=True, adds_bos=True
)
_QWEN2 = PieceRule((f"{_ENDINGS}|{_WORD}|{_DIGIT}|{_REST}",))
_TEKKEN = PieceRule(
    (f"{_CASED}*{_SMALL}+|{_CASED}+{_SMALL}*|{_DIGIT}|{_REST_WITH_SLASH}",),
    ignores_merges=True,
    adds_bos=True,
)
_GPT4O = PieceRule(
    (
        f"{_CASED}*{_SMALL}+{_ENDINGS}?|{_CASED}+{_SMALL}*{_ENDINGS}?|\\p{{N}}{{1,3}}"
        f"|{_REST_WITH_SLASH}",
    )
)
_BY_DIGIT = PieceRule((_DIGIT, _GPT2))
_RULES: Mapping[str, PieceRule] = {
    "default": PieceRule((r"[\p{P}\$\+<=>\^~\|]+", _GPT2, r"\p{N}+", "[0-9][0-9][0-9]")),
    **dict.fromkeys(("llama-bpe", "llama3", "llama-v3", "falcon3", "pixtral"), _LLAMA3),
    **dict.fromkeys(("smaug-bpe", "dbrx"), _LLAMA3._replace(ignores_merges=False, adds_bos=False)),
    **dict.fromkeys(("qwen2", "deepseek-r1-qwen", "megrez", "stablelm2"), _QWEN2),
    "tekken": _TEKKEN,
    "gpt-4o": _GPT4O,
    **dict.fromkeys(("gpt-2", "phi-2", "a.x-4.0", "mpt", "olmo"), PieceRule((_GPT2,))),
    **dict.fromkeys(
        ("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"),
        _BY_DIGIT,
    ),
    "deepseek-coder": PieceRule(
        (
            "[\r\n]",
            r"\s?\p{L}+",
            r"\s?\p{P}+",
            "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+",
            _DIGIT,
        )
    ),
}


def piece_rule(name: str) -> PieceRule | None:
    """The rule of that name; None for one that is not known."""
    return _RULES.get(name)
