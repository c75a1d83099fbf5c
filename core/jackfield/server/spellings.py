"""Request fields that are not in the models: old spellings, fields refused by name, typos."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from jackfield.errors import RequestError

Spelling = Mapping[str, str]
"""Fields that the client spelled otherwise: our name -> the client's."""

ALIASES: Mapping[str, str] = {
    "activation": "use_activation",
    "data_1": "text_1",
    "data_2": "text_2",
    "documents": "text_2",
    "ebnf": "structured_outputs.grammar",
    "enable_thinking": "chat_template_kwargs.enable_thinking",
    "guided_choice": "structured_outputs.choice",
    "guided_decoding_backend": "structured_outputs.backend",
    "guided_grammar": "structured_outputs.grammar",
    "guided_json": "structured_outputs.json",
    "guided_regex": "structured_outputs.regex",
    "guided_whitespace_pattern": "structured_outputs.whitespace_pattern",
    "items": "text_2",
    "max_completion_tokens": "max_tokens",
    "queries": "text_1",
    "reasoning_content": "reasoning",
    "regex": "structured_outputs.regex",
    "repeat_penalty": "repetition_penalty",
    "rid": "request_id",
    "thinking_budget": "thinking_token_budget",
}
"""Other spellings of a field, in requests and in messages, and the name it has inside; a dot leads
into an object."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a known field is refused, and the values that ask for nothing and so pass."""

    reason: str
    neutral: tuple[Any, ...] = ()


_NOT_BUILT = "is not built yet"

REFUSED: Mapping[str, Refusal] = {
    "audio": Refusal(f"audio output {_NOT_BUILT}"),
    "best_of": Refusal("it belongs to completions; use 'n'", (1,)),
    "beam_width": Refusal(f"beam search {_NOT_BUILT}"),
    "chat_template": Refusal("a request's own template is not allowed on this server"),
    "custom_logit_processor": Refusal("see 'logits_processors'"),
    "early_stopping": Refusal(f"beam search {_NOT_BUILT}", (False,)),
    "echo": Refusal("only the prompt of a completion is a text to send back", (False,)),
    "extra_body": Refusal(
        "its fields are the request's own; OpenAI's client puts them there", ({},)
    ),
    "function_call": Refusal("it is deprecated; use 'tool_choice'", ("none",)),
    "functions": Refusal("it is deprecated; use 'tools'", ([],)),
    "kv_transfer_params": Refusal("this server runs without a KV connector"),
    "length_penalty": Refusal(f"beam search {_NOT_BUILT}", (1, 1.0)),
    "media_io_kwargs": Refusal(f"multi-modal input {_NOT_BUILT}", ({},)),
    "mm_processor_kwargs": Refusal(f"multi-modal input {_NOT_BUILT}", ({},)),
    "modalities": Refusal("only text output is supported", (["text"],)),
    "moderation": Refusal("moderation is not offered by this server"),
    "no_stop_trim": Refusal("see 'include_stop_str_in_output'", (False,)),
    "prompt_embeds": Refusal(f"sending embeddings {_NOT_BUILT}"),
    "repetition_detection": Refusal(f"it {_NOT_BUILT}; see 'repetition_penalty'"),
    "return_hidden_states": Refusal("a server that generates sends no vectors", (False,)),
    "separate_reasoning": Refusal("thinking is always apart; see --reasoning-parser", (True,)),
    "stream_reasoning": Refusal("thinking is streamed as it comes", (True,)),
    "suffix": Refusal("text completion before a suffix is not supported", ("",)),
    "thinking": Refusal("send 'enable_thinking', 'thinking_token_budget' or 'reasoning_effort'"),
    "thinking_token_budget": Refusal("only the output of a chat is known to hold thinking"),
    "use_beam_search": Refusal(f"beam search {_NOT_BUILT}", (False,)),
    "verbosity": Refusal("the model cannot be told how much to say", ("medium",)),
    "web_search_options": Refusal("web search is not offered by this server"),
}
"""Fields of OpenAI's and vLLM's requests that would change the answer and that we cannot do."""


def settle_spellings(
    data: dict[str, Any],
    known: Collection[str],
    path: str = "",
    refused: Mapping[str, Refusal] = REFUSED,
) -> dict[str, str]:
    """Brings ``data`` to the ``known`` names, in place.

    Aliases are renamed; ``refused`` fields go if their value asks for nothing, and unknown ones
    if they are null. Returns name -> alias used, so that an error can name the client's own
    spelling. ``path`` is put before the names in errors. Raises ``RequestError`` for anything else.
    """
    used: dict[str, str] = {}
    for name in data.keys() - known:
        value = data.pop(name)
        inside = ALIASES.get(name, name)
        outer, dot, _ = inside.partition(".")
        if outer in known and inside != name:
            _rename(data, name, inside, value, path)
            used[inside] = name
            if dot and value is not None:
                used.setdefault(outer, name)
        elif name in refused:
            refusal = refused[name]
            if value is not None and value not in refusal.neutral:
                raise RequestError(
                    f"'{path}{name}' cannot be used: {refusal.reason}",
                    param=path + name,
                    code="unsupported_parameter",
                )
        elif value is not None:
            raise _unknown(name, known, path)
    return used


def _rename(data: dict[str, Any], name: str, inside: str, value: Any, path: str) -> None:
    if value is None:
        return
    outer, dot, inner = inside.partition(".")
    if dot:
        held = data.get(outer)
        data[outer] = held = {} if held is None else held
        if not isinstance(held, dict):
            return  # what is said of it is told when it is checked
        data, inside = held, inner
    present = data.get(inside)
    if present is not None and present != value:
        raise RequestError(
            f"'{path}{name}' and '{path}{inside}' are the same field and differ",
            param=path + name,
        )
    data[inside] = value


def _unknown(name: str, known: Collection[str], path: str) -> RequestError:
    shown = name if len(name) <= 64 else name[:61] + "..."
    candidates = [*known, *(alias for alias, inside in ALIASES.items() if inside in known)]
    close = difflib.get_close_matches(shown, candidates, n=1, cutoff=0.5)
    hint = f"; did you mean '{close[0]}'?" if close else ""
    return RequestError(
        f"Unknown field '{path}{shown}'{hint}", param=path + shown, code="unknown_parameter"
    )


def respelled(error: RequestError, spelling: Spelling) -> RequestError:
    """The error with the field named as the client spelled it. A name stands for all that is
    below it too: ``messages[1]`` for ``messages[1].content``; the longest counts."""
    param = error.param
    if param is None:
        return error
    ends = [place for place, character in enumerate(param) if character in ".["]
    for end in (len(param), *reversed(ends)):
        name = spelling.get(param[:end])
        if name is not None:
            error.message = error.message.replace(param[:end], name)
            error.param = name + param[end:]
            break
    return error
