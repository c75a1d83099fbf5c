"""Requests to checked prompts and sampling values: text and messages to ids that fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, cast

from jackfield.contracts.sampling import SamplingParams, TokenSampling
from jackfield.contracts.text import Tokenizer
from jackfield.errors import ConfigError, RequestError
from jackfield.text.chat_template import ChatTemplate
from jackfield.text.content_format import ContentFormat
from jackfield.text.conversation import has_later_system, prepare_messages, with_one_system
from jackfield.text.reasoning import ReasoningIds
from jackfield.text.token_sampling import token_sampling
from jackfield.text.truncation import first_of_pair, first_tokens

CHARACTERS_PER_TOKEN = 16
"""Text longer than this for each token of the context is refused before it is tokenized."""
COUNTED_CHARACTERS = 1 << 20
"""Text that is only counted, or cut to its beginning, may have so many in any case: some 170 MB
while it is tokenized."""


@dataclass(frozen=True, slots=True)
class RenderedPrompt:
    """A rendered conversation and its ids."""

    text: str
    token_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class PromptBuilder:
    """Checks everything that a model's vocabulary and context decide; ``RequestError`` names the
    field. Immutable; may be used in several threads.

    ``max_model_len`` counts prompt and output; ``logits_width`` bounds token ids.
    ``content_format``: ``string`` or ``openai`` override what the template shows.
    """

    tokenizer: Tokenizer | None
    template: ChatTemplate | None
    max_model_len: int = field(kw_only=True)
    logits_width: int = field(kw_only=True)
    eos_token_ids: tuple[int, ...] = field(kw_only=True)
    max_logprobs: int = field(kw_only=True)
    content_format: str = field(kw_only=True, default="auto")
    template_defaults: Mapping[str, object] = field(kw_only=True, default_factory=dict)
    """``template_kwargs`` that hold where a conversation comes without them."""
    generates: bool = field(kw_only=True, default=True)
    """Whether a prompt leaves room for a token of output. One that does not is to become a vector:
    where it is truncated its beginning is kept."""
    counts: bool = field(kw_only=True, default=False)
    """Whether prompts are only counted: they may be longer than the context."""

    def counting(self) -> PromptBuilder:
        """The same for prompts that are only counted."""
        return replace(self, counts=True)

    def from_text(
        self,
        text: str,
        *,
        add_special_tokens: bool = True,
        truncate_prompt_tokens: int | None = None,
        param: str = "prompt",
    ) -> tuple[int, ...]:
        """Ids of a plain prompt. ``truncate_prompt_tokens`` keeps only so many ids, the last ones
        or, for a vector, the first; -1 keeps what fits."""
        return self._encode(text, add_special_tokens, truncate_prompt_tokens, param)

    def from_pair(
        self,
        text: str,
        other: str,
        *,
        truncate_prompt_tokens: int | None = None,
        params: tuple[str, str] = ("text_1", "text_2"),
    ) -> tuple[int, ...]:
        """Ids of two texts that are compared, joined as the tokenizer joins pairs; one behind the
        other where it has no way of its own."""
        keep = self._kept(truncate_prompt_tokens)
        for each, param in zip((text, other), params, strict=True):
            self._check_text(each, param, is_cut=keep is not None)
        assert self.tokenizer is not None, "checked with the texts"
        encode_pair = getattr(self.tokenizer, "encode_pair", None)
        if encode_pair is not None:
            ids: Sequence[int] = encode_pair(text, other)
        else:
            ids = self.tokenizer.encode(text + other)
        if keep is not None:
            ids = first_of_pair(self.tokenizer, text, other, ids, keep)
        return self._known(ids, params[1])

    def from_ids(
        self,
        ids: Sequence[int],
        *,
        truncate_prompt_tokens: int | None = None,
        param: str = "prompt",
    ) -> tuple[int, ...]:
        """A prompt given as ids, checked; truncated as in ``from_text``."""
        keep = self._kept(truncate_prompt_tokens)
        if isinstance(ids, str) or not set(map(type, ids)) <= {int}:
            odd = next((i for i in ids if type(i) is not int), ids)
            raise RequestError(
                f"{param} must be a list of token ids, not {type(odd).__name__}", param=param
            )
        if ids and (min(ids) < 0 or max(ids) >= self.logits_width):
            odd_id = next(i for i in ids if not 0 <= i < self.logits_width)
            raise RequestError(
                f"{param} holds token id {odd_id}; ids of this model are 0 to "
                f"{self.logits_width - 1}",
                param=param,
            )
        if keep is not None:
            ids = ids[-keep:] if self.generates else ids[:keep]
        return self._fitting(ids, param)

    def from_chat(
        self,
        messages: Sequence[Mapping[str, object]],
        *,
        tools: Sequence[Mapping[str, object]] = (),
        documents: Sequence[Mapping[str, object]] | None = None,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        add_special_tokens: bool = False,
        chat_template: str | None = None,
        template_kwargs: Mapping[str, object] | None = None,
        truncate_prompt_tokens: int | None = None,
    ) -> RenderedPrompt:
        """A conversation, rendered with the request's own ``chat_template`` or the model's."""
        template = self._template(chat_template)
        with_tools = bool(tools)
        content_format = self._format(template, with_tools)
        prepared = prepare_messages(
            messages,
            content_format,
            knows_developer=template.mentions("developer", with_tools),
            # The template of gpt-oss refuses both.
            takes_one_text=template.mentions("message.content and message.thinking", with_tools),
        )
        if has_later_system(prepared) and not template.takes_later_system(with_tools):
            prepared = with_one_system(prepared, content_format)
        text = template.render(
            prepared,
            tools=tools,
            documents=documents,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=continue_final_message,
            template_kwargs={**self.template_defaults, **(template_kwargs or {})},
        )
        ids = self._encode(text, add_special_tokens, truncate_prompt_tokens, "messages")
        return RenderedPrompt(text, ids)

    def resolve(
        self,
        params: SamplingParams,
        num_prompt_tokens: int,
        reasoning: ReasoningIds | None = None,
    ) -> tuple[TokenSampling, int]:
        """The engine's half of the parameters, and how many tokens may be generated."""
        room = self.max_model_len - num_prompt_tokens
        max_tokens = room if params.max_tokens is None else params.max_tokens
        if max_tokens > room:
            raise RequestError(
                f"This model's maximum context length is {self.max_model_len} tokens. However, "
                f"you requested {num_prompt_tokens + max_tokens} tokens ({num_prompt_tokens} in "
                f"the prompt, {max_tokens} for the completion). Please reduce the prompt or "
                "max_tokens.",
                param="max_tokens",
                code="context_length_exceeded",
            )
        if params.min_tokens > max_tokens:
            raise RequestError(
                f"min_tokens ({params.min_tokens}) is more than the {max_tokens} tokens that the "
                "context has left",
                param="min_tokens",
            )
        sampling = token_sampling(
            params,
            self.tokenizer,
            logits_width=self.logits_width,
            eos_token_ids=self.eos_token_ids,
            max_logprobs=self.max_logprobs,
            reasoning=reasoning,
        )
        return sampling, max_tokens

    @property
    def _longest(self) -> int:
        """Tokens that a prompt may have."""
        return self.max_model_len - self.generates

    # --- checks ------------------------------------------------------------------------

    def _template(self, source: str | None) -> ChatTemplate:
        if source is None:
            if self.template is None:
                raise RequestError(
                    "this model has no chat template; start the server with --chat-template FILE",
                    param="messages",
                )
            return self.template
        special_tokens = {} if self.tokenizer is None else self.tokenizer.special_tokens
        try:
            return ChatTemplate(source, special_tokens)
        except ConfigError as error:
            raise RequestError(str(error), param="chat_template") from error

    def _format(self, template: ChatTemplate, with_tools: bool) -> ContentFormat:
        if self.content_format == "auto":
            return template.content_format(with_tools)
        return cast(Literal["string", "openai"], self.content_format)

    def _encode(
        self, text: str, add_special_tokens: bool, truncate: int | None, param: str
    ) -> tuple[int, ...]:
        keep = self._kept(truncate)
        self._check_text(text, param, is_cut=keep is not None and not self.generates)
        assert self.tokenizer is not None, "checked with the text"
        ids: Sequence[int] = self.tokenizer.encode(text, add_special_tokens=add_special_tokens)
        if keep is not None:
            ids = ids[-keep:] if self.generates else first_tokens(self.tokenizer, text, ids, keep)
        return self._known(ids, param)

    def _check_text(self, text: str, param: str, *, is_cut: bool) -> None:
        if self.tokenizer is None:
            raise RequestError(
                "this server runs without a tokenizer: give the prompt as token ids", param=param
            )
        if not isinstance(text, str):
            raise RequestError(f"{param} must be text, not {type(text).__name__}", param=param)
        most = CHARACTERS_PER_TOKEN * self.max_model_len
        if len(text) > (max(most, COUNTED_CHARACTERS) if self.counts or is_cut else most):
            raise self._too_long(f"has {len(text)} characters", param)
        if not _is_unicode(text):
            raise RequestError(f"{param} holds half of a surrogate pair", param=param)

    def _known(self, ids: Sequence[int], param: str) -> tuple[int, ...]:
        """Ids that the tokenizer made, checked."""
        if self.tokenizer is not None and ids and max(ids) >= self.logits_width:
            raise RequestError(
                f"{param} contains the token {self.tokenizer.token_text(max(ids))!r}, which the "
                "model has no embedding for",
                param=param,
            )
        return self._fitting(ids, param)

    def _kept(self, truncate: int | None) -> int | None:
        if truncate is None:
            return None
        if type(truncate) is not int or not (truncate == -1 or 1 <= truncate <= self.max_model_len):
            raise RequestError(
                f"truncate_prompt_tokens must be -1 or 1 to {self.max_model_len}, not {truncate}",
                param="truncate_prompt_tokens",
            )
        return max(1, self._longest) if truncate == -1 else truncate

    def _fitting(self, ids: Sequence[int], param: str) -> tuple[int, ...]:
        if not ids:
            raise RequestError(f"{param} must not be empty", param=param)
        if len(ids) > self._longest and not self.counts:
            raise self._too_long(f"resulted in {len(ids)} tokens", param)
        return tuple(ids)

    def _too_long(self, size: str, param: str) -> RequestError:
        name = "prompt" if param == "prompt_token_ids" else param
        output = ", one of which at least is for the output" if self.generates else ""
        return RequestError(
            f"This model's maximum context length is {self.max_model_len} tokens{output}. However, "
            f"your {name} {size}. Please reduce the length of the {name}.",
            param=param,
            code="context_length_exceeded",
        )


def _is_unicode(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
