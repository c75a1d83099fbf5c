"""Request bodies that are nearly right, and some that are not right at all."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

_MESSAGES = [{"role": "user", "content": "hi"}]
_TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
_SAMPLING: dict[str, Any] = {
    "max_tokens": 2, "temperature": 0.5, "top_p": 0.9, "top_k": 5, "min_p": 0.1, "seed": 1, "n": 1,
    "stop": ["x"], "stop_token_ids": [5], "logit_bias": {"5": 1.0}, "presence_penalty": 0.1,
    "frequency_penalty": 0.1, "repetition_penalty": 1.1, "min_tokens": 1, "ignore_eos": True,
    "bad_words": ["a"], "allowed_token_ids": [5, 6], "stream": False, "user": "u",
    "skip_special_tokens": True, "priority": 0, "cache_salt": "s", "truncate_prompt_tokens": 5,
    "stream_options": {"include_usage": True}, "request_id": "r", "prompt_logprobs": 1,
}  # fmt: skip
_BODIES: dict[str, dict[str, Any]] = {
    "/v1/completions": {"prompt": "a", "echo": True, "logprobs": 1, **_SAMPLING},
    "/v1/chat/completions": {
        "messages": _MESSAGES, "logprobs": True, "top_logprobs": 1, "tools": [_TOOL],
        "tool_choice": "none", "response_format": {"type": "text"}, "reasoning_effort": "low",
        "chat_template_kwargs": {"a": 1}, "continue_final_message": False, **_SAMPLING,
    },
    "/v1/responses": {
        "input": "a", "instructions": "b", "max_output_tokens": 2, "temperature": 0.1,
        "tools": [{"type": "function", "name": "f", "parameters": {}}], "store": False,
        "text": {"format": {"type": "text"}}, "reasoning": {"effort": "low"}, "stream": False,
    },
    "/v1/messages": {
        "messages": _MESSAGES, "max_tokens": 2, "system": "s", "stream": False,
        "tools": [{"name": "f", "input_schema": {"type": "object"}}], "stop_sequences": ["x"],
        "thinking": {"type": "disabled"}, "temperature": 0.5,
    },
    "/tokenize": {"prompt": "a", "add_special_tokens": True, "return_token_strs": True},
    "/detokenize": {"tokens": [1, 2]},
}  # fmt: skip
_ODD: list[Any] = [
    None, True, False, 0, -1, 1, 2**31, 2**63, 2**64, -(2**63), 10**300, 0.0, -0.5, 1e308, 1e-320,
    "", "a", "\x00", "é" * 50, "😀", "a" * 5000, "-1", "NaN", [], [None], [[]], [0], [-1], [2**40],
    ["a", 1], [True], {}, {"a": None}, {"type": "x"}, {"": {}}, [{}], [[1, 2], [3]], {"5": "a"},
    {"-1": 1}, {"99999999": 1.0}, {"type": "json_schema", "json_schema": {"name": "a"}},
    {"type": "function", "function": {"name": "g"}}, [{"role": "tool", "content": None}],
    [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "file:///etc"}}]}],
    [{"role": "assistant", "content": None, "tool_calls": [{}]}], [_TOOL] * 200, "required",
]  # fmt: skip
_RAW = [
    b"", b"{", b"null", b"[]", b'"a"', b"{}", b"\xff\xfe{}", b'{"prompt":NaN}', b'{"n":1e999}',
    b'{"a":"\\ud800"}', b'{"n":' + b"9" * 5000 + b"}", b"[" * 100_000, b'{"a":' * 99 + b"}" * 99,
    b'{"prompt":"a","prompt":"b"}', b"\x00" * 100, b'{"prompt": "\xc3\x28"}',
]  # fmt: skip


def garbage(rng: random.Random) -> tuple[str, bytes]:
    """A path and a body. Most are a whole request with a value or two changed."""
    path = rng.choice(list(_BODIES))
    if rng.random() < 0.1:
        return path, rng.choice(_RAW)
    body = _some_fields(rng, _BODIES[path])
    for _ in range(rng.choice((0, 1, 1, 2))):
        _change(rng, body)
    data = json.dumps(body).encode()
    if rng.random() < 0.1:
        data = _damaged(rng, data)
    return path, data


def _some_fields(rng: random.Random, whole: dict[str, Any]) -> dict[str, Any]:
    """The first field, without which there is nothing to answer, and a few others."""
    first, *others = whole
    chosen = [first, *rng.sample(others, rng.randint(0, min(5, len(others))))]
    if "max_tokens" in whole and "max_tokens" not in chosen:
        chosen.append("max_tokens")
    copied: dict[str, Any] = json.loads(json.dumps({name: whole[name] for name in chosen}))
    return copied


def _change(rng: random.Random, value: Any) -> None:
    """Puts an odd value somewhere into a JSON object or list, in place."""
    inner = [item for item in _items(value) if isinstance(item, dict | list) and item]
    if inner and rng.random() < 0.4:
        _change(rng, rng.choice(inner))
    elif isinstance(value, list):
        value[rng.randrange(len(value))] = _odd(rng)
    elif value:
        kind = rng.random()
        name = rng.choice(list(value))
        if kind < 0.1:
            value[name + "x"] = _odd(rng)
        elif kind < 0.2:
            del value[name]
        else:
            value[name] = _odd(rng)


def _odd(rng: random.Random) -> Any:
    # A copy: it may be changed in its turn.
    return copy.deepcopy(rng.choice(_ODD))


def _items(value: Any) -> list[Any]:
    return list(value.values()) if isinstance(value, dict) else list(value)


def _damaged(rng: random.Random, data: bytes) -> bytes:
    """Cut off, or with some bytes changed."""
    if rng.random() < 0.5:
        return data[: rng.randrange(len(data))]
    damaged = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        damaged[rng.randrange(len(damaged))] = rng.randrange(256)
    return bytes(damaged)
