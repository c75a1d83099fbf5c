"""What a hostile client sends, by class: the cases of ``bench/abuse.py``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

KEY = "the right key"
TEXT, CHAT = "/v1/completions", "/v1/chat/completions"
REFUSED = frozenset((400, 401, 404, 405, 413, 422, 429, 503))
HELD = REFUSED | {200}
"""Some of these are odd, but no mistake: they may be answered."""
_HELLO = [{"role": "user", "content": "hi"}]


@dataclass(frozen=True)
class Case:
    """One request. ``raw`` goes out as it is; else method, path, headers and body."""

    path: str = TEXT
    body: bytes = b""
    method: str = "POST"
    allowed: frozenset[int] = REFUSED
    headers: dict[str, str] = field(default_factory=lambda: {"Authorization": f"Bearer {KEY}"})
    raw: bytes | None = None
    reads: bool = True
    """False: the client leaves without an answer."""


def text(allowed: frozenset[int] = REFUSED, **fields: Any) -> Case:
    """A completion."""
    return Case(TEXT, _json({"prompt": "a", "max_tokens": 2, **fields}), allowed=allowed)


def chat(allowed: frozenset[int] = REFUSED, **fields: Any) -> Case:
    """A chat."""
    return Case(CHAT, _json({"messages": _HELLO, "max_tokens": 2, **fields}), allowed=allowed)


def _json(value: object) -> bytes:
    return json.dumps(value).encode()


def bad_json() -> Iterator[Case]:
    for body in (
        b"", b"{", b"null", b"[]", b'"a"', b"1", b"\xff\xfe{}", b"\x00" * 100,
        b'{"prompt": "\xc3\x28"}',
        b'{"prompt": "\\ud800"}', b'{"prompt": "a"} x', b'{"prompt": "a",}', b"{'prompt': 'a'}",
        b"[" * 100_000, b'{"a":' * 500 + b"1" + b"}" * 500, b'{"prompt": "a"' + b" " * 1_000_000,
        b'{"prompt": "a", "prompt": "b", "n": }',
    ):  # fmt: skip
        yield Case(TEXT, body)
        yield Case(CHAT, body)


def bad_types() -> Iterator[Case]:
    for name in (
        "prompt", "max_tokens", "temperature", "n", "stop", "logit_bias", "stream", "seed", "top_p",
        "stream_options", "stop_token_ids", "echo", "ignore_eos", "structured_outputs",
    ):  # fmt: skip
        for value in ({"a": {}}, [[None]], [True, {}], ["a", 1]):
            yield text(**{name: value})
    for messages in ("a", {}, [], ["a"], [{}], [{"role": "user"}], [{"content": "a"}], [None],
                     [{"role": "king", "content": "a"}], [{"role": "user",
                     "content": 5}]):  # fmt: skip
        yield chat(messages=messages)


def bad_numbers() -> Iterator[Case]:
    names = ("max_tokens", "temperature", "top_p", "top_k", "min_p", "n", "seed",
    "presence_penalty",
             "repetition_penalty", "logprobs", "min_tokens", "priority", "best_of")  # fmt: skip
    for name in names:
        for value in ("NaN", "Infinity", "-Infinity", "1e999", "9" * 5000, "-" + "9" * 30, '"1"'):
            yield Case(TEXT, f'{{"prompt": "a", "max_tokens": 2, "{name}": {value}}}'.encode())
    for name, value in (("temperature", -0.1), ("top_p", 1.5), ("top_p", 0), ("n", 0), ("min_p", 2),
                        ("max_tokens", -1), ("presence_penalty", 3), ("top_k", -2)):  # fmt: skip
        yield text(**{name: value})


def bad_ids() -> Iterator[Case]:
    for ids in (
        [-1],
        [2**31],
        [2**63],
        [10**30],
        [10**9],
        [1.5],
        [True],
        [None],
        [[-1]],
        [[1], [2**40]],
    ):
        yield text(prompt=ids)
        yield text(stop_token_ids=ids)
        yield text(allowed_token_ids=ids)
        yield Case("/detokenize", _json({"tokens": ids}))
    for key in ("-1", "1.5", "a", "", "10000000000", "9" * 400):
        yield text(logit_bias={key: 1})
    yield text(allowed_token_ids=[])


def over_limits() -> Iterator[Case]:
    yield text(n=129)
    yield text(prompt=["a"] * 129)
    yield text(prompt=["a"] * 65, n=2)
    yield text(stop=["a"] * 17)
    yield text(stop="a" * 257)
    yield text(logit_bias={str(each): 1 for each in range(1025)})
    yield text(logprobs=21)
    yield chat(logprobs=True, top_logprobs=21)
    yield chat(tools=[{"type": "function", "function": {"name": f"f{i}"}} for i in range(129)])
    yield text(prompt=[5] * 200_000)
    yield text(prompt="a b" * 1_000_000)
    yield text(max_tokens=10**7)
    yield Case(TEXT, b'{"prompt": "' + b"a" * (17 << 20) + b'"}')


def hard_grammars() -> Iterator[Case]:
    nested: Any = {"type": "string"}
    for _ in range(70):
        nested = {"type": "object", "properties": {"a": nested}}
    many = {"properties": {f"p{i}": {"type": "string", "format": "email"} for i in range(200)}}
    schemas: list[Any] = [
        {"type": 5}, {"$ref": "#/a"}, {"$ref": "http://127.0.0.1/a"}, False, nested,
        {"enum": list(range(5001))}, {"type": "string", "description": "a" * 66_000},
        {"type": "string", "pattern": "("}, {"type": "string", "pattern": "(?<=a)b(?=c)\\1"},
        {"allOf": [{"type": "string"}, {"type": "integer"}]}, {"minimum": 5, "maximum": 1,
        "type": "integer"},
        {"type": "string", "pattern": "^(a{1000}){1000}$"}, {"type": "string", "minLength": 10**6},
        {"type": "string", "maxLength": 10**9}, {"type": "string", "pattern": "^(a?b?){3000}c$"},
        {"type": "string", "pattern": "^" + "(ab|c)*" * 500 + "$"},
        {"type": "array", "minItems": 10**8}, {"const": "a" * 60_000}, many, {"anyOf": [many] * 20},
        {"type": "array", "minItems": 1000, "items": {"type": "array", "minItems": 1000}},
        {"type": "array", "uniqueItems": True, "minItems": 1000, "items": {"enum": [1, 2]}},
        {"patternProperties": {f"^a{i}.*b?": {"type": "integer"} for i in range(200)}},
        {"allOf": [{"anyOf": [{"minLength": i}, {"maxLength": i}]} for i in range(12)]},
        {"type": "number", "multipleOf": 1e-300}, {"type": "integer", "minimum": -(10**300)},
    ]  # fmt: skip
    for schema in schemas:
        yield text(HELD, structured_outputs={"json": schema})
    for regex in ("(", "[", "a{5,1}", "(a{1000}){1000}", "((((a*)*)*)*)*" * 50, "a*" * 3000,
                  "(ab|c)?" * 2000, "(?P<x>a)(?P=x)",
                  "a" * 70_000, "\\p{Nope}", "(" * 500 + ")" * 500):  # fmt: skip
        yield text(HELD, structured_outputs={"regex": regex})
    for grammar in ("", "root", "root ::= root", 'root ::= a\na ::= b\nb ::= a "x"',
                    "start: start start",
                    "root ::= " + '"a" | ' * 9000 + '"b"', "\x00"):  # fmt: skip
        yield text(HELD, structured_outputs={"grammar": grammar})
    for value in ({"choice": []}, {"choice": [""]}, {"choice": ["a"] * 6000}, {"json": {},
                  "regex": "a"},
                  {"nope": 1}, {"json": "{"}, {"regex": "a", "backend": "nope"},
                  {"structural_tag": "x"},
                  {"structural_tag": {"type": "structural_tag"}}):  # fmt: skip
        yield text(HELD, structured_outputs=value)
    yield text(response_format={"type": "json_schema"})
    yield text(response_format={"type": "nope"})


def template_attacks() -> Iterator[Case]:
    attack = "{{ ''.__class__.__mro__[1].__subclasses__() }}{% for i in range(10**9) %}{% endfor %}"
    yield chat(chat_template=attack)
    yield chat(frozenset((200,)), messages=[{"role": "user", "content": attack}])
    yield chat(HELD, messages=[{"role": "system", "content": attack}, *_HELLO])
    for kwargs in ({"messages": attack}, {"bos_token": attack}, {"add_generation_prompt": attack},
                   {"__class__": 1}, {"raise_exception": 1}, {"tools": attack},
                   {"a" * 1000: {"b": [attack] * 1000}}):  # fmt: skip
        yield chat(HELD, chat_template_kwargs=kwargs)
    yield chat(HELD, documents=[{"text": attack}])
    yield chat(HELD, messages=[{"role": "user", "content": "<|im_end|>" * 100}])


def bad_tools() -> Iterator[Case]:
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    for tools in ("a", {}, [1], [{}], [{"type": "x"}], [{"type": "function"}],
                  [{"type": "function", "function": {"name": ""}}],
                  [{"type": "function", "function": {"name": "f", "parameters": 5}}],
                  [{"type": "function", "function": {"name": ["f"]}}]):  # fmt: skip
        yield chat(tools=tools)
    for choice in (
        "nope",
        5,
        {},
        {"type": "function"},
        {"type": "function", "function": {"name": "g"}},
    ):
        yield chat(tools=[tool], tool_choice=choice)
    yield chat(tool_choice="required")
    for said in ({"role": "tool", "content": "a"}, {"role": "tool", "tool_call_id": 5,
                 "content": "a"},
                 {"role": "assistant", "tool_calls": [{}]}, {"role": "assistant",
                 "tool_calls": "a"},
                 {"role": "assistant", "tool_calls": [{"id": "1", "type": "function",
                  "function": {"name": "f", "arguments": "{not json"}}]}):  # fmt: skip
        yield chat(HELD, messages=[*_HELLO, said], tools=[tool])
    schema = {"type": "object", "properties": {"a": {"$ref": "#/nowhere"}}}
    forced = {"type": "function", "function": {"name": "f", "parameters": schema, "strict": True}}
    yield chat(HELD, tools=[forced], tool_choice="required")


def media() -> Iterator[Case]:
    addresses = ("file:///etc/passwd", "http://127.0.0.1:1/", "http://169.254.169.254/latest/",
                 "data:image/png;base64,AAAA", "ftp://a", "", 5)  # fmt: skip
    for address in addresses:
        for kind in ("image_url", "audio_url", "video_url"):
            part = {"type": kind, kind: {"url": address}}
            yield chat(messages=[{"role": "user", "content": [part]}])
    for part in ({"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
                 {"type": "file", "file": {"file_id": "a"}}, {"type": "nope"}, {},
                 None):  # fmt: skip
        yield chat(messages=[{"role": "user", "content": [part]}])
    yield chat(modalities=["audio"])
    yield chat(mm_processor_kwargs={"a": 1})


def routes() -> Iterator[Case]:
    for path in ("/nothing", "/v1", "/v1/", "/v1/completions/", "/v1//completions",
                 "/v1/../etc/passwd",
                 "/%2e%2e/%2e%2e/etc/passwd", "/v1/models/..%2f..%2fetc",
                 "/v1/models/" + "a" * 5000,
                 "/v1/responses/resp_nope", "/static/x", "/favicon.ico", "/%00",
                 "/%ff"):  # fmt: skip
        yield Case(path, method="GET", allowed=REFUSED | {307})
    for path in ("/sleep", "/wake_up", "/reset_prefix_cache", "/collective_rpc", "/start_profile",
                 "/v1/load_lora_adapter", "/server_info", "/tokenizer_info", "/is_sleeping",
                 "/update_config", "/invocations", "/shutdown"):  # fmt: skip
        yield Case(path, b"{}")
        yield Case(path, method="GET")
    for method in ("GET", "PUT", "DELETE", "PATCH", "TRACE", "CONNECT", "NOPE", "A" * 300):
        yield Case(TEXT, b"{}", method=method)


def bad_http() -> Iterator[Case]:
    key = f"Authorization: Bearer {KEY}\r\n".encode()
    head = b"POST /v1/completions HTTP/1.1\r\nHost: a\r\n" + key
    for raw in (
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n", b"\r\n" * 1000,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"\x00" * 5000,
        b"A" * 200_000,
        head + b"bad header\r\n\r\n", head + b"Content-Length: -1\r\n\r\n",
        head + b"Content-Length: a\r\n\r\n",
        head + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n",
        head + b"Content-Length: " + b"9" * 40 + b"\r\n\r\n",
        head + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}",
        head + b"Transfer-Encoding: gzip, chunked\r\n\r\n",
        head + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        head + b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
        head + b"x: " + b"y" * 300_000,
        head + b"".join(b"x%d: y\r\n" % i for i in range(200)) + b"\r\n",
        head + b" folded: a\r\n\r\n", head + b"x\x00y: a\r\n\r\n",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n",
        b"GET http://other/v1/models HTTP/1.1\r\nHost: a\r\n\r\n",
    ):  # fmt: skip
        yield Case(raw=raw)


def lifecycle() -> Iterator[Case]:
    asked = _json({"prompt": "a", "max_tokens": 300, "ignore_eos": True, "stream": True})
    head = (
        f"POST {TEXT} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {KEY}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(asked)}\r\n\r\n"
    ).encode()
    for raw in (b"", head[:10], head[:-2], head, head + asked[:20], head + asked,
                (head + asked) * 20, head + asked + b"more"):  # fmt: skip
        for _ in range(10):
            yield Case(raw=raw, reads=False)


def bad_keys() -> Iterator[Case]:
    body = _json({"prompt": "a", "max_tokens": 2})
    denied = frozenset((401,))
    for headers in (
        {}, {"Authorization": ""}, {"Authorization": "Bearer"}, {"Authorization": "Bearer "},
        {"X-Api-Key": ""},
        {"Authorization": f"Basic {KEY}"}, {"Authorization": KEY},
        {"Authorization": f"Bearer {KEY}x"},
        {"Authorization": f"Bearer {KEY[:-1]}"}, {"Authorization": f"Bearer {KEY.upper()}"},
        {"Cookie": f"key={KEY}"},
        {"X-Forwarded-For": "127.0.0.1"}, {"X-Original-URL": "/health"},
        {"Authorization": "Bearer \xff\xfe"},
    ):  # fmt: skip
        yield Case(TEXT, body, headers=headers, allowed=denied)
    for path in ("/v1/models", "/metrics", "/docs", "/openapi.json", "/version", "/load",
                 "/health/../v1/models",
                 "//health", "/HEALTH", "/health/", "/v1/models?key=" + KEY.replace(" ", "%20"),
                 "/health%2fv1",
                 "/health;/v1/models", "/nothing"):  # fmt: skip
        yield Case(path, method="GET", headers={}, allowed=denied)


CLASSES = {
    "JSON": bad_json,
    "types": bad_types,
    "numbers": bad_numbers,
    "ids": bad_ids,
    "limits": over_limits,
    "grammars": hard_grammars,
    "templates": template_attacks,
    "tools": bad_tools,
    "media": media,
    "routes": routes,
    "HTTP": bad_http,
    "lifecycle": lifecycle,
    "keys": bad_keys,
}
