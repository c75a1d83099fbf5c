"""Structured output: what a request asks for, and the backends that hold the output to it.

Kind ``jackfield.grammars`` (``--guided-decoding-backend``). Imports no torch; a backend may, in the
engine process, where it is made when the first request needs it.

Sizes: V is the width of the logits, W = V // 32 + 1 the words of a mask. A mask is int32 [W]; bit
i % 32 of word i // 32 says whether id i may come next. Bit V, behind the vocabulary, says whether
the output may end here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol, runtime_checkable

import msgspec
import numpy as np
import numpy.typing as npt

from jackfield.errors import RequestError

GrammarKind = Literal["json_schema", "regex", "choice", "grammar", "structural_tag"]
Masks = npt.NDArray[np.int32]

KINDS = ("json", "regex", "choice", "grammar", "json_object", "structural_tag")
"""The fields of ``StructuredOutputs`` of which one is set."""


class StructuredOutputs(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the output must be written; vLLM's names. Exactly one of the first six is set.

    ``json``: a JSON Schema as an object, as text, or a class with ``model_json_schema``
    (pydantic). ``choice``: one of these texts. ``grammar``: Lark, or EBNF with ``::=``.
    ``structural_tag``: xgrammar's, as an object or as text.

    ``whitespace_pattern`` is a regex for the space between the tokens of JSON, and
    ``disable_any_whitespace`` allows none. An object whose schema lists ``properties`` and does
    not speak of others gets no others, unless ``disable_additional_properties`` is False.
    ``backend`` names a grammars plugin for this request; ``disable_fallback`` has no effect, since
    a backend that is named is never replaced. ``param`` is the request field that errors name.
    With ``best_effort`` the output goes free where the grammar cannot be compiled.
    """

    json: object = None
    regex: str | None = None
    choice: Sequence[str] | None = None
    grammar: str | None = None
    json_object: bool | None = None
    structural_tag: str | Mapping[str, object] | None = None
    whitespace_pattern: str | None = None
    disable_any_whitespace: bool = False
    disable_additional_properties: bool | None = None
    disable_fallback: bool = False
    backend: str | None = None
    best_effort: bool = False
    param: str = "structured_outputs"

    def __post_init__(self) -> None:
        given = [name for name in KINDS if getattr(self, name) is not None]
        if self.json_object is False:
            given.remove("json_object")
        if len(given) != 1:
            found = ", ".join(given) or "none"
            raise RequestError(
                f"{self.param} must have exactly one of {', '.join(KINDS)}; it has {found}",
                param=self.param,
            )


class GrammarSpec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A grammar on its way to the engine: texts and flags only. Equal ones are compiled once.

    ``text`` is a JSON Schema, a regex, a JSON list of texts (``choice``), Lark or EBNF, or a
    structural tag as JSON. ``whitespace`` is a regex for the space between the tokens of JSON:
    None for a bounded run of any, empty for none. ``backend`` is a plugin's name; empty: the
    server's. With ``best_effort`` a request whose grammar cannot be compiled goes on without.
    """

    kind: GrammarKind
    text: str
    whitespace: str | None = None
    backend: str = ""
    best_effort: bool = False


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What the ids of the model stand for.

    ``tokens[i]`` are the bytes of id i in the middle of a text, empty for ids without text and
    for special tokens, which no grammar allows. ``special`` has the texts of special tokens, by
    which structural tags may name them. ``encode`` is how the model's tokenizer writes a text,
    without special tokens before or behind it; None where nobody knows.
    """

    tokens: tuple[bytes, ...]
    special: Mapping[str, int]
    encode: Callable[[str], Sequence[int]] | None = None

    @property
    def size(self) -> int:
        """V, the width of the logits."""
        return len(self.tokens)

    @property
    def mask_words(self) -> int:
        """W."""
        return len(self.tokens) // 32 + 1


class GrammarMatcher(Protocol):
    """Follows the output of one choice. Called from one thread at a time."""

    def fill_bitmask(self, masks: Masks, index: int) -> None:
        """Writes the mask of the next id to ``masks[index]``; changes nothing else."""
        ...

    def accept(self, token_id: int) -> bool:
        """Takes the next id; False, and nothing changed, if the grammar does not allow it. The
        id that ends the output is not told."""
        ...

    def rollback(self, num_tokens: int) -> None:
        """Takes back the last ids accepted."""
        ...

    def jump(self) -> list[int]:
        """The ids that a text is written with which the grammar forces from here: no other text
        can follow, and the output may not end before. The engine then allows no other way to
        write it, and need not sample. Changes nothing; may be empty, may say less. Asked after
        every id."""
        ...


@runtime_checkable
class KeepsMask(Protocol):
    """A ``GrammarMatcher`` that can say that a mask stays. Optional."""

    @property
    def keeps_mask(self) -> bool:
        """Whether the mask of the next id is the one that was filled last. It then need not be
        filled again."""
        ...


class CompiledGrammar(Protocol):
    """A grammar that is ready. Shared by requests."""

    @property
    def num_bytes(self) -> int:
        """Memory that it holds, about."""
        ...

    def matcher(self) -> GrammarMatcher:
        """A new matcher at the beginning. Cheap."""
        ...


class GrammarBackend(Protocol):
    """A way to hold output to a grammar. Made once per engine as ``cls(vocabulary)``.

    ``compile`` runs in one of a few threads of its own, while steps go on. It may take long, but
    should not where bounds of size or depth can tell before; nobody waits more than
    ``COMPILE_SECONDS``. It raises ``RequestError`` for what is wrong and for what it cannot hold
    the output to exactly; the message names the feature. An output that the masks allow must
    be valid; the masks need not allow every valid output.
    """

    name: ClassVar[str]
    api_version: ClassVar[int]

    def __init__(self, vocabulary: Vocabulary) -> None: ...

    def compile(self, spec: GrammarSpec) -> CompiledGrammar:
        """Compiles; called from several threads."""
        ...

    def fill_bitmasks(
        self, matchers: Sequence[GrammarMatcher], masks: Masks, indices: Sequence[int]
    ) -> None:
        """``fill_bitmask`` of many matchers of this backend."""
        ...


@runtime_checkable
class LoadsLate(Protocol):
    """A ``GrammarBackend`` that loads some of what it is made of when a grammar needs it.
    Optional."""

    def load(self, spec: GrammarSpec) -> None:
        """Loads what is missing for this grammar. Called before ``compile``, one call at a time;
        its seconds do not count as compiling."""
        ...


COMPILE_SECONDS = 8.0
"""A grammar that takes longer than this to compile is refused. Others' steps go on meanwhile."""
