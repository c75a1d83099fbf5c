"""Tokenizer, chat template, and what is made of the output."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from jackfield.config.values import JsonObject, OptionGroup, Spelling, StringList
from jackfield.errors import ConfigError

_IN_REQUESTS = "send it in the structured_outputs of a request"
_INSTEAD = {
    "disable_additional_properties": _IN_REQUESTS,
    "disable_fallback": "name a backend: it is never replaced by another",
    "enable_in_reasoning": "a grammar begins behind the thinking; leave it out",
    "reasoning_parser": "use --reasoning-parser",
    "reasoning_parser_plugin": "use --reasoning-parser-plugin",
}
_COMPACT = "disable-any-whitespace"
# vLLM once wrote "xgrammar:no-fallback"; the last two are so anyway.
_WISHES = frozenset({_COMPACT, "no-fallback", "no-additional-properties"})
_KEYS = ("backend", "disable_any_whitespace")


class TextOptions(OptionGroup):
    """Text"""

    tokenizer: Annotated[str | None, Spelling("--tokenizer-path")] = Field(
        None, description="directory or hub name of the tokenizer; default: MODEL"
    )
    tokenizer_revision: str | None = Field(
        None, description="branch, tag or commit of the tokenizer on the hub"
    )
    tokenizer_mode: str = Field(
        "auto", description="tokenizers plugin: auto, slow, mistral (tekken.json), gguf, or a name"
    )
    tokenizer_pool_size: Annotated[int, Spelling("--renderer-num-workers")] = Field(
        0, ge=0, le=256, description="threads that tokenize long prompts; 0: as the machine has"
    )
    skip_tokenizer_init: bool = Field(False, description="token ids in, token ids out; no text")
    chat_template: str | None = Field(
        None, description="file with a chat template, or the template itself"
    )
    chat_template_content_format: Literal["auto", "string", "openai"] = Field(
        "auto", description="how the template wants message content"
    )
    default_chat_template_kwargs: JsonObject = Field(
        default_factory=dict,
        description="JSON object of what the template gets where a request's "
        'chat_template_kwargs are silent, such as {"enable_thinking": false}',
    )
    tool_call_parser: str | None = Field(
        None, description="tool_parsers plugin: auto, or a name such as hermes"
    )
    guided_decoding_backend: str = Field(
        "auto", description="grammars plugin for structured output: auto, xgrammar, guidance"
    )
    structured_outputs_config: JsonObject = Field(
        default_factory=dict,
        description="JSON object: backend, which goes before guided_decoding_backend; "
        "disable_any_whitespace, for JSON without spaces",
    )
    reasoning_parser: str | None = Field(
        None, description="reasoning_parsers plugin, such as deepseek_r1 or qwen3"
    )
    logits_processors: StringList = Field(
        (), description="logits processors for every request, by name or module:Class"
    )
    logits_processor_pattern: str | None = Field(
        None,
        description="regular expression that the logits processors a request names must match "
        "as a whole; default: it may name none",
    )

    @property
    def grammar_backend(self) -> str:
        """The grammars plugin, from either option."""
        config = self.structured_outputs_config
        backend = str(config.get("backend", self.guided_decoding_backend))
        for key, value in config.items():
            if key == "disable_fallback" and backend != "auto":
                continue  # a backend that is named is never replaced
            if key not in _KEYS and value not in (False, "", None):
                raise ConfigError(
                    f"--structured-outputs-config has the key {key!r}, which is not built; "
                    f"{_INSTEAD.get(key, 'there are ' + ' and '.join(_KEYS))}"
                )
        name, _, wishes = backend.partition(":")
        return name if wishes and _WISHES.issuperset(wishes.split(",")) else backend

    @property
    def json_whitespace(self) -> str | None:
        """A regex for the space between the tokens of JSON, unless a request says one: none at
        all, or None for a bounded run of any."""
        config = self.structured_outputs_config
        wishes = str(config.get("backend", self.guided_decoding_backend)).partition(":")[2]
        is_compact = config.get("disable_any_whitespace") or _COMPACT in wishes.split(",")
        return "" if is_compact else None
