"""Text in and out: tokenizers, events, and the parsers of reasoning and tool calls. No torch.

Kinds: ``jackfield.tokenizers`` (``--tokenizer-mode``), ``jackfield.tool_parsers``
(``--tool-call-parser``), ``jackfield.reasoning_parsers`` (``--reasoning-parser``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Protocol, runtime_checkable

import msgspec

# --- events ----------------------------------------------------------------------------


class Content(msgspec.Struct, frozen=True):
    """Text of the answer."""

    text: str


class Reasoning(msgspec.Struct, frozen=True):
    """Text of the model's thinking."""

    text: str


class ToolCallStart(msgspec.Struct, frozen=True):
    """A tool call begins; ``index`` counts the calls of the choice from 0. ``id``: what the model
    itself calls it, no other call of the choice having the same; empty where it does not, and the
    server then makes one."""

    index: int
    name: str
    id: str = ""


class ToolCallArguments(msgspec.Struct, frozen=True):
    """A fragment of call ``index``'s arguments; the fragments concatenate to JSON."""

    index: int
    fragment: str


class ToolCallEnd(msgspec.Struct, frozen=True):
    """Call ``index`` is complete."""

    index: int


Event = Content | Reasoning | ToolCallStart | ToolCallArguments | ToolCallEnd

# --- parsers ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CheckpointText:
    """What a checkpoint says of the text that it writes, for plugins that choose by it.

    ``chat_template``: the template that requests with tools get, unrendered.
    ``response_template``: the object of that name in ``tokenizer_config.json``.
    ``architectures``: the class names of ``config.json``.
    """

    chat_template: str | None = None
    response_template: Mapping[str, object] | None = None
    architectures: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class ParserContext:
    """What a parser may know of its request.

    ``prompt_suffix``: the last 256 characters or fewer of the rendered prompt (a template may
    have opened a tag already). ``template_kwargs``: the request's ``chat_template_kwargs``.
    ``tools``: the request's tools as OpenAI's JSON objects; empty if there are none.
    ``checkpoint``: what the model's files say.
    """

    prompt_suffix: str = ""
    template_kwargs: Mapping[str, object] = field(default_factory=dict)
    tools: Sequence[Mapping[str, object]] = ()
    checkpoint: CheckpointText = CheckpointText()


class ParserChooser(Protocol):
    """A plugin (``auto``) that stands for another one of its kind.

    Needs nothing else of the kind's contract: it is asked once, at the start, and never made.
    """

    name: ClassVar[str]
    api_version: ClassVar[int]

    @classmethod
    def choose(cls, checkpoint: CheckpointText) -> str | None:
        """The name of the plugin to take; None where the checkpoint does not say."""
        ...


@dataclass(frozen=True, slots=True)
class ReasoningBoundary:
    """Where the thinking of one output begins and ends, as the tokens of the model write it.

    ``start`` opens it (None: nothing does), ``end`` ends it, and so does any of ``other_ends``,
    which belong to what follows. ``opened``: the output begins inside the thinking; else it does
    so only where ``start`` comes first. ``repeats``: ``start`` may open it again later.
    ``answer``: what the answer begins with, where that is not simply behind ``end``; ``closing``:
    what breaks a thought off and leads to the answer, where that is more than ``end``.
    """

    start: str | None
    end: str
    opened: bool
    other_ends: tuple[str, ...] = ()
    repeats: bool = False
    answer: str = ""
    closing: str = ""


class ReasoningParser(Protocol):
    """Splits the output of one choice into reasoning and content.

    Made per choice as ``cls(context)``. ``feed`` is called with each new piece of text, in
    order, any split; ``finish`` once, at the end, also after an abort. Neither may raise on
    any text. Events merge to the same sequence whatever the split; what was said is never
    unsaid; no text is lost but the tags and newlines next to them. ``Content`` events go on to
    the tool parser.

    A parser may have a further class method, ``boundary(context) -> ReasoningBoundary | None``
    (``BoundedReasoning``): None where this output holds no thinking. It is asked once a request.
    With it, grammars wait for the end of the thinking, a thinking budget can be kept and
    reasoning tokens are counted exactly.
    """

    name: ClassVar[str]
    api_version: ClassVar[int]

    def __init__(self, context: ParserContext) -> None: ...

    def feed(self, text: str) -> list[Content | Reasoning]:
        """The events that ``text`` completes; holds back what may be the start of a marker."""
        ...

    def finish(self) -> list[Content | Reasoning]:
        """The rest."""
        ...


@runtime_checkable
class BoundedReasoning(Protocol):
    """The optional part of a reasoning parser."""

    @classmethod
    def boundary(cls, context: ParserContext) -> ReasoningBoundary | None:
        """Where the thinking of this output ends; None if it holds none."""
        ...


class ToolParser(Protocol):
    """Finds tool calls in the content of one choice.

    ``markers`` is optional, as it is for reasoning parsers: the special tokens that the format
    is made of. The detokenizer keeps them in text that is parsed, also where
    ``skip_special_tokens`` drops the others. Where the checkpoint decides what they are, a class
    method ``markers_of(checkpoint)`` takes its place.

    Made per choice as ``cls(context)``; ``feed`` and ``finish`` as in ``ReasoningParser``.
    A call is ``ToolCallStart``, ``ToolCallArguments`` any number of times, ``ToolCallEnd``,
    the indices rising from 0. The arguments of a call that ended are valid JSON. Text that
    merely looks like the start of a call, and calls that break off before their name is
    known, come out as ``Content``.
    """

    name: ClassVar[str]
    api_version: ClassVar[int]

    def __init__(self, context: ParserContext) -> None: ...

    def feed(self, text: str) -> list[Event]:
        """The events that ``text`` completes."""
        ...

    def finish(self) -> list[Event]:
        """The rest; open calls are ended, their arguments closed to be valid JSON."""
        ...


class StructuredToolParser(ToolParser, Protocol):
    """A tool parser that can also say, as a grammar, how calls are written.

    Optional: where a class has no ``structure``, calls cannot be forced and ``tool_choice`` is
    ``auto`` or ``none``. The grammar begins where the reasoning has ended.
    """

    @classmethod
    def structure(
        cls, tools: Sequence[Mapping[str, object]], choice: str, *, parallel: bool = True
    ) -> Mapping[str, object] | None:
        """xgrammar's structural tag, ``{"type": "structural_tag", "format": {...}}``, as plain
        JSON; None where the format cannot be forced for these tools.

        ``tools`` as in ``ParserContext``. ``choice``: ``auto`` (any text; once a call has begun
        it must be a valid one), ``required`` (nothing but valid calls, at least one), or the
        name of one of the tools (exactly one call of it). A tool that is itself called ``auto``
        or ``required`` is forced by giving it alone with ``required``. Without ``parallel``
        there is at most one call. Arguments are bound to the tool's ``parameters`` always; a
        tool without them takes any object.
        """
        ...


# --- tokenizers ------------------------------------------------------------------------


class Tokenizer(Protocol):
    """Text to ids and back. Thread-safe; made once per process by ``TokenizerMode.load``.

    Optional: ``encode_pair(text, other) -> list[int]``, two texts that are compared, joined with
    the special tokens that the model was trained with; without it they follow each other.
    """

    @property
    def vocab_size(self) -> int:
        """One more than the highest id that decodes to something."""
        ...

    @property
    def special_ids(self) -> frozenset[int]:
        """Ids that ``skip_special_tokens`` drops."""
        ...

    @property
    def eos_token_id(self) -> int | None: ...

    @property
    def special_tokens(self) -> Mapping[str, str]:
        """``bos_token``, ``eos_token``, ... as chat templates see them."""
        ...

    @property
    def chat_template(self) -> str | Mapping[str, str] | None:
        """The checkpoint's own template (or named templates), unrendered."""
        ...

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]: ...

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = False) -> str: ...

    def token_text(self, token_id: int) -> str:
        """The token as the vocabulary writes it; an id without a token gives an empty string."""
        ...

    def token_bytes(self, token_id: int) -> bytes | None:
        """The bytes the token stands for in the middle of a text, where the vocabulary is
        byte-exact; None where it is not (the detokenizer then decodes windows of ids)."""
        ...


class TokenizerMode(Protocol):
    """A way to load a tokenizer from a model directory; one of ``--tokenizer-mode``."""

    name: ClassVar[str]
    api_version: ClassVar[int]

    def load(self, directory: str, *, trust_remote_code: bool = False) -> Tokenizer:
        """Reads the files; ``CheckpointError`` names what is missing. Where the model is a GGUF
        file, ``directory`` is its path."""
        ...
