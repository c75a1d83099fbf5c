"""Messages to prompt text, as the checkpoint's chat template has it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from jinja2 import Template
from jinja2.exceptions import TemplateError, TemplateSyntaxError

from jackfield.config.paths import given_path
from jackfield.contracts.text import Tokenizer
from jackfield.errors import ConfigError, RequestError
from jackfield.text.content_format import ContentFormat, content_format
from jackfield.text.conversation import REASONING_NAMES
from jackfield.text.sandbox import TemplateEnvironment, plain_value
from jackfield.text.sandbox_limits import LimitError

MAX_SECONDS = 2.0
"""CPU time that one rendering may take."""
MAX_SOURCE_CHARACTERS = 1 << 20
RESERVED = frozenset({"messages", "tools", "documents", "add_generation_prompt"})
"""What a template gets from a request's own fields."""
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")
# What transformers marks the end of the message to be continued with; the space at its end tells
# whether the template trims.
_CONTINUE_TAG = "CONTINUE_FINAL_MESSAGE_TAG "

Message = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class _Compiled:
    source: str
    template: Template
    content_format: ContentFormat


class ChatTemplate:
    """One template, or several by name, of which ``tool_use`` is taken where a request has
    tools and ``default`` else. Immutable; may be rendered in several threads at once."""

    def __init__(
        self, source: str | Mapping[str, str], special_tokens: Mapping[str, str] | None = None
    ) -> None:
        """``ConfigError`` for a template that cannot be compiled."""
        sources = {"default": source} if isinstance(source, str) else dict(source)
        self._special_tokens = dict(special_tokens or {})
        self._templates = {name: _compiled(text) for name, text in sources.items()}

    def content_format(self, with_tools: bool) -> ContentFormat:
        """How the template that would be taken wants the messages' content."""
        return self._pick(with_tools).content_format

    def mentions(self, word: str, with_tools: bool) -> bool:
        """Whether the template's source contains a word, a role for example."""
        return word in self._pick(with_tools).source

    def takes_later_system(self, with_tools: bool) -> bool:
        """Whether a system message may stand behind others; some templates want the only one at
        the beginning, and refuse."""
        special_tokens = tuple(self._special_tokens.items())
        return _takes_later_system(self._pick(with_tools).template, special_tokens)

    def render(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, object]] | None = None,
        documents: Sequence[Mapping[str, object]] | None = None,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        template_kwargs: Mapping[str, object] | None = None,
    ) -> str:
        """The prompt; ``RequestError`` where the template refuses or fails.

        Takes at most ``MAX_SECONDS`` of CPU time; for a template that is not trusted, call it
        off the event loop. Values of None in a message are left out; reasoning is given
        under each of the names that templates read.
        """
        extra = dict(template_kwargs or {})
        if taken := sorted(RESERVED & extra.keys()):
            raise RequestError(
                f"chat_template_kwargs cannot set {taken[0]}", param="chat_template_kwargs"
            )
        chat = [_aliased(plain_value(message)) for message in messages]
        final = ""
        if continue_final_message:
            if add_generation_prompt:
                raise RequestError(
                    "continue_final_message and add_generation_prompt exclude each other",
                    param="continue_final_message",
                )
            final = _mark_final(chat)
        variables = {
            **self._special_tokens,
            **plain_value(extra),
            "messages": chat,
            "tools": plain_value(tools) if tools else None,
            "documents": plain_value(documents) if documents is not None else None,
            "add_generation_prompt": add_generation_prompt,
        }
        text = _run(self._pick(bool(tools)).template, variables)
        return _cut_at_mark(text, final) if continue_final_message else text

    def _pick(self, with_tools: bool) -> _Compiled:
        if with_tools and "tool_use" in self._templates:
            return self._templates["tool_use"]
        try:
            return self._templates["default"]
        except KeyError:
            names = ", ".join(sorted(self._templates))
            raise RequestError(
                f"the model has several chat templates ({names}) and no default one; start the "
                "server with --chat-template NAME",
                param="messages",
            ) from None


def find_chat_template(tokenizer: Tokenizer | None, override: str | None) -> ChatTemplate | None:
    """The template to use: ``override`` (the name of one of the checkpoint's templates, a file,
    or the template itself) or the checkpoint's own; None if there is none."""
    own = None if tokenizer is None else tokenizer.chat_template
    special_tokens = {} if tokenizer is None else tokenizer.special_tokens
    source: str | Mapping[str, str] | None = own
    if override is not None:
        named = own.get(override) if isinstance(own, Mapping) else None
        source = named if named is not None else _read(override)
    return None if source is None else ChatTemplate(source, special_tokens)


def _read(override: str) -> str:
    if any(character in override for character in "{}\n"):
        return override  # no file is called so
    path = given_path(override)
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
        raise ConfigError(
            f"--chat-template {override}: {reason}; give a file or the template itself"
        ) from error


@lru_cache(maxsize=1)
def _environment() -> TemplateEnvironment:
    return TemplateEnvironment()


@lru_cache(maxsize=32)
def _compiled(source: str) -> _Compiled:
    """Compiled templates are kept, since requests may bring their own."""
    if len(source) > MAX_SOURCE_CHARACTERS:
        raise ConfigError(f"the chat template is longer than {MAX_SOURCE_CHARACTERS} characters")
    environment = _environment()
    try:
        template = environment.from_string(source)
        return _Compiled(source, template, content_format(environment.parse(source)))
    except TemplateSyntaxError as error:
        raise ConfigError(
            f"the chat template is broken at line {error.lineno}: {error.message}"
        ) from error
    except (TemplateError, SyntaxError, RecursionError, MemoryError, ValueError) as error:
        raise ConfigError(f"the chat template cannot be compiled: {error}") from error


@lru_cache(maxsize=32)
def _takes_later_system(template: Template, special_tokens: tuple[tuple[str, str], ...]) -> bool:
    """Found out by trying; a template that refuses the rest, too, says so when it is used."""

    def renders(*roles: str) -> bool:
        chat = [{"role": role, "content": "x"} for role in roles]
        variables = {"messages": chat, "tools": None, "add_generation_prompt": True}
        try:
            _run(template, {**dict(special_tokens), **variables})
        except RequestError:
            return False
        return True

    talk = ("user", "assistant", "user")
    return renders("user", "assistant", "system", "user") or not renders(*talk)


def _run(template: Template, variables: Mapping[str, Any]) -> str:
    """Renders within bounds; whatever the template raises becomes one ``RequestError``."""
    try:
        with _environment().budget(MAX_SECONDS):
            return template.render(variables)
    except LimitError as error:
        raise RequestError(f"the chat template was stopped: {error}", param="messages") from error
    except Exception as error:
        if type(error) is TemplateError:  # raise_exception(...): the template's own words
            raise RequestError(_words(error), param="messages") from error
        raise RequestError(
            "the chat template cannot render these messages: "
            f"{type(error).__name__}: {_words(error)}",
            param="messages",
        ) from error


def _words(error: Exception) -> str:
    """What an exception says, for a client: not too long, and no addresses of objects."""
    return _ADDRESS.sub("", str(error))[:500]


def _aliased(message: dict[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in message.items() if value is not None}
    for name in REASONING_NAMES:
        if name in kept:
            return {"thinking": kept[name], **kept, "reasoning_content": kept[name]}
    return kept


def _mark_final(chat: list[dict[str, Any]]) -> str:
    """Marks the end of the last message's text; returns that text."""
    if chat and chat[-1].get("tool_calls"):
        raise RequestError(
            "a last message that calls tools cannot be continued: send what the tools gave",
            param="continue_final_message",
        )
    content = chat[-1].get("content") if chat else None
    if isinstance(content, str):
        chat[-1]["content"] = content + _CONTINUE_TAG
        return content
    for part in reversed(content if isinstance(content, list) else []):
        if isinstance(part, dict) and isinstance(part.get("text"), str):
            text: str = part["text"]
            part["text"] = text + _CONTINUE_TAG
            return text
    raise RequestError(
        "continue_final_message needs a last message with text", param="continue_final_message"
    )


def _cut_at_mark(text: str, final: str) -> str:
    mark = _CONTINUE_TAG.strip()
    if mark not in text or final.strip() not in text:
        raise RequestError(
            "continue_final_message cannot be used: the chat template leaves out the last message",
            param="continue_final_message",
        )
    at = text.rindex(mark)
    if text.startswith(_CONTINUE_TAG, at):
        return text[:at]
    return text[:at].rstrip()  # the template trims what it writes
