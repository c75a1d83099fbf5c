"""Text in and out: tokenizers, events, and the parsers of reasoning and tool calls. No torch.

Kinds: ``jackfield.tokenizers`` (``--tokenizer-mode``), ``jackfield.tool_parsers``
(``--tool-call-parser``), ``jackfield.reasoning_parsers`` (``--reasoning-parser``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

# --- events ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Content:
    """Text of the answer."""

    text: str


@dataclass(frozen=True, slots=True)
class Reasoning:
    """Text of the model's thinking."""

    text: str


@dataclass(frozen=True, slots=True)
class ToolCallStart:
    """A tool call begins; ``index`` counts the calls of the choice from 0."""

    index: int
    name: str


@dataclass(frozen=True, slots=True)
class ToolCallArguments:
    """A fragment of call ``index``'s arguments; the fragments concatenate to JSON."""

    index: int
    fragment: str


@dataclass(frozen=True, slots=True)
class ToolCallEnd:
    """Call ``index`` is complete."""

    index: int


Event = Content | Reasoning | ToolCallStart | ToolCallArguments | ToolCallEnd

# --- parsers ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ParserContext:
    """What a parser may know of its request.

    ``prompt_suffix``: the last 256 characters or fewer of the rendered prompt (a template may
    have opened a tag already). ``template_kwargs``: the request's ``chat_template_kwargs``.
    ``tools``: the request's tools as OpenAI's JSON objects; empty if there are none.
    """

    prompt_suffix: str = ""
    template_kwargs: Mapping[str, object] = field(default_factory=dict)
    tools: Sequence[Mapping[str, object]] = ()


class ReasoningParser(Protocol):
    """Splits the output of one choice into reasoning and content.

    Made per choice as ``cls(context)``. ``feed`` is called with each new piece of text, in
    order, any split; ``finish`` once, at the end, also after an abort. Neither may raise on
    any text. Events merge to the same sequence whatever the split; what was said is never
    unsaid; no text is lost but the tags and newlines next to them. ``Content`` events go on to
    the tool parser.
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


class ToolParser(Protocol):
    """Finds tool calls in the content of one choice.

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


# --- tokenizers ------------------------------------------------------------------------


class Tokenizer(Protocol):
    """Text to ids and back. Thread-safe; made once per process by ``TokenizerMode.load``."""

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
        """Reads the files; ``CheckpointError`` names what is missing."""
        ...
