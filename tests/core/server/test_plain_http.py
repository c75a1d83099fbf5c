"""Plain requests are taken past h11, and nobody can tell."""

from __future__ import annotations

import asyncio
import random
import re
import time
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import pytest
from tests.core.server.fake_llm import FakeLLM
from tests.core.server.http_server import serving
from tests.waiting import PATIENCE_SECONDS, until

from jackfield.server.asgi import Receive, Scope, Send
from jackfield.server.lifecycle import QuietServer, uvicorn_config
from jackfield.server.listening import bind
from jackfield.server.options import ServerOptions
from jackfield.server.plain_http import MAX_BODY_BYTES, PlainRequest, make_head, parse

BODY = b'{"prompt":"a","max_tokens":1}'


def post(
    body: bytes = BODY, *extra: bytes, path: bytes = b"/v1/completions", length: int | None = None
) -> bytes:
    size = len(body) if length is None else length
    fields = [b"Host: a", b"Content-Length: %d" % size, *extra]
    head = b"\r\n".join([b"POST %b HTTP/1.1" % path, *fields])
    return head + b"\r\n\r\n" + body


def test_a_plain_request_is_read() -> None:
    assert parse(post(BODY, b"X-One:  two words \t", b"Connection: Keep-Alive")) == PlainRequest(
        b"/v1/completions",
        [
            (b"host", b"a"),
            (b"content-length", b"%d" % len(BODY)),
            (b"x-one", b"two words"),
            (b"connection", b"Keep-Alive"),
        ],
        BODY,
        len(BODY),
    )
    part = parse(post(BODY)[:-5])
    assert part is not None and (part.body, part.length) == (BODY[:-5], len(BODY))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        post(BODY)[:20],
        post(BODY).replace(b"POST", b"PUT"),
        post(BODY).replace(b"1.1", b"1.0"),
        post(BODY).replace(b"POST ", b"POST  "),
        post(BODY).replace(b"/v1", b"http://a/v1"),
        post(BODY, path=b"/a\xffb"),
        post(BODY).replace(b"Host: a\r\n", b""),
        post(BODY, b"Host: b"),
        post(BODY, b"Content-Length: 29"),
        post(BODY).replace(b"Length: 29", b"Length: +29"),
        post(BODY).replace(b"Length: 29", b"Length: 29, 29"),
        post(BODY).replace(b"Length: 29", b"Length: "),
        post(BODY).replace(b"Content-Length: 29\r\n", b""),
        post(BODY, b"Transfer-Encoding: chunked"),
        post(BODY, b"Transfer-Encoding : chunked"),
        post(BODY, b"Expect: 100-continue"),
        post(BODY, b"Upgrade: websocket"),
        post(BODY, b"Connection: close"),
        post(BODY, b"Connection: keep-alive, x"),
        post(BODY, b"X: a\x00b"),
        post(BODY, b"X: a\rb"),
        post(BODY, b"X: a\nY: b"),
        post(BODY, b" folded: line"),
        post(BODY, b"no colon"),
        post(BODY, b": no name"),
        post(BODY, b"X: " + b"a" * 20_000),
        post(BODY) + b"more",
        post(b"a" * (MAX_BODY_BYTES + 1)),
        post(BODY).replace(b"\r\n", b"\n"),
    ],
)
def test_everything_else_is_left_to_h11(data: bytes) -> None:
    assert parse(data) is None


@pytest.mark.parametrize(
    "fields", [[b"x%d: y" % index for index in range(1000)], [b"x: " + b" " * 12_000]]
)
def test_what_is_not_plain_in_the_end_is_left_to_h11_as_fast(fields: list[bytes]) -> None:
    began = time.thread_time()
    assert parse(post(BODY, *fields, b"x: \x01")) is None
    assert time.thread_time() - began < 0.1


def test_an_answers_head_cannot_be_split() -> None:
    assert make_head(200, [(b"a", b"b")]) == b"HTTP/1.1 200 OK\r\na: b\r\n\r\n"
    for value in (b"b\r\nc: d", b"b\nc", b"b\rc"):
        with pytest.raises(ValueError, match="line break"):
            make_head(200, [(b"a", value)])


async def talk(url: str, *pieces: bytes, pause: float = 0.0) -> bytes:
    """What the server says to pieces sent one after the other, until it closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", urlsplit(url).port)
    for piece in pieces:
        writer.write(piece)
        await writer.drain()
        await asyncio.sleep(pause)
    writer.write(b"GET /health HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
    async with asyncio.timeout(PATIENCE_SECONDS):
        answer = await reader.read()
    writer.close()
    return answer


def comparable(answer: bytes) -> bytes:
    answer = re.sub(rb'"created":\d+|cmpl-\w+', b"", answer)
    answer = re.sub(rb"(?i)date: [^\r]*\r\n", b"", answer)
    # h11 writes names with capitals.
    return re.sub(rb"(?m)^[A-Za-z-]+: ", lambda name: name[0].lower(), answer)


def fields(answer: bytes) -> set[bytes]:
    return set(comparable(answer).split(b"\r\n"))


@pytest.mark.parametrize(
    "request_",
    [
        post(),
        post(BODY, b"Accept: */*", b"User-Agent: x"),
        post(b'{"prompt":"abc","max_tokens":5,"stream":true}'),
        post(b'{"prompt":"a","stream":true,"stream_options":{"include_usage":true}}'),
        post(b"nonsense"),
        post(b""),
        post(b"{}", path=b"/nowhere"),
        post(b"{}", path=b"/v1/completions?a=b%20c"),
        post(b"{}", path=b"/v1/%63ompletions"),
        post(b"{}", path=b"/health"),
        post(b'{"tokens":[97]}', path=b"/detokenize"),
    ],
)
async def test_whole_and_in_pieces_the_answer_is_the_same(request_: bytes) -> None:
    async with serving(FakeLLM()) as url:
        whole = await talk(url, request_)
        head, _, body = request_.partition(b"\r\n\r\n")
        by_h11 = await talk(url, head[:9], head[9:] + b"\r\n\r\n" + body, pause=0.05)
        late_body = await talk(url, head + b"\r\n\r\n", body[:3], body[3:], pause=0.05)
        assert fields(whole) == fields(by_h11) == fields(late_body)
        assert whole.count(b"HTTP/1.1 ") == 2


async def test_requests_of_both_kinds_follow_one_another_on_a_connection() -> None:
    async with serving(FakeLLM()) as url:
        chunked = b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        chunked += b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)
        get = b"GET /health/live HTTP/1.1\r\nhost: a\r\n\r\n"
        for order in ([post(), chunked, post(), get, post()], [get, post(), post(), chunked]):
            answer = await talk(url, *order, pause=0.05)
            assert answer.count(b"HTTP/1.1 200") == len(order) + 1
            # All at once: the next ones wait while one is answered.
            assert (await talk(url, b"".join(order))).count(b"HTTP/1.1 200") == len(order) + 1


async def test_damaged_heads_get_the_same_status_either_way() -> None:
    rng = random.Random(5)
    damaged = []
    for _ in range(60):
        data = bytearray(post(BODY, b"X-Y: z", b"Connection: close"))
        if rng.random() < 0.5:
            data = data.replace(b"Connection: close", b"Accept: text/html")
        end = data.index(b"\r\n\r\n")
        for _ in range(rng.randint(1, 2)):
            data[rng.randrange(end)] = rng.choice(b"\r\n :\x00\xffaZ09,;")
        damaged.append(bytes(data))
    # What the server waits for in vain ends with its own time, at the same moment for all.
    async with serving(FakeLLM(), header_timeout_seconds=1.0, body_timeout_seconds=1.0) as url:
        whole = await asyncio.gather(*[status(url, data) for data in damaged])
        split = await asyncio.gather(*[status(url, data[:3], data[3:]) for data in damaged])
    assert whole == split
    assert {line.split(b" ")[1] for line in whole if line} >= {b"200", b"400"}


async def status(url: str, *pieces: bytes) -> bytes:
    """The first line that the server says; empty where it closes without one."""
    reader, writer = await asyncio.open_connection("127.0.0.1", urlsplit(url).port)
    for piece in pieces:
        writer.write(piece)
        await writer.drain()
        await asyncio.sleep(0.005)
    async with asyncio.timeout(PATIENCE_SECONDS):
        line = await reader.readline()
    writer.close()
    return line


async def test_a_body_that_does_not_come_ends_the_connection() -> None:
    async with serving(FakeLLM(), body_timeout_seconds=0.2) as url:
        reader, writer = await asyncio.open_connection("127.0.0.1", urlsplit(url).port)
        writer.write(post(BODY, length=len(BODY) + 5))
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert await reader.read() == b""
        writer.close()


async def test_a_client_that_leaves_ends_its_request() -> None:
    async def never(request: Any) -> Any:
        await asyncio.sleep(60)
        yield []

    llm = FakeLLM(never)
    async with serving(llm) as url:
        _, writer = await asyncio.open_connection("127.0.0.1", urlsplit(url).port)
        writer.write(post())
        await until(lambda: llm.active)
        writer.close()
        await until(lambda: not llm.active)


class Applications:
    """What applications do wrong, each under a path of its own."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = {"type": "http.response.body", "body": b"abc"}

        def start(*headers: tuple[bytes, bytes], status: int = 200) -> Any:
            return {"type": "http.response.start", "status": status, "headers": headers}

        match scope["path"]:
            case "/raises":
                raise ValueError("no")
            case "/raises-late":
                await send(start())
                raise ValueError("no")
            case "/short":
                await send(start((b"content-length", b"5")))
                await send(body)
            case "/long":
                await send(start((b"content-length", b"2")))
                await send(body)
            case "/split":
                await send(start((b"a", b"b\r\nc: d")))
                await send(body)
            case "/empty":
                await send(start(status=204))
                await send({"type": "http.response.body"})
            case "/close":
                await send(start((b"connection", b"close")))
                await send(body)
            case "/twice":
                await send(start())
                await send(body)
                assert (await receive())["type"] == "http.request"
                assert (await receive())["type"] == "http.disconnect"
                await send(body)


@pytest.mark.parametrize(
    ("path", "begin", "end"),
    [
        ("/raises", b"HTTP/1.1 500", b"Internal Server Error\r\n0\r\n\r\n"),
        ("/raises-late", b"", b""),
        ("/short", b"", b""),
        ("/long", b"", b""),
        ("/split", b"HTTP/1.1 500", b"Internal Server Error\r\n0\r\n\r\n"),
        ("/empty", b"HTTP/1.1 204 No Content\r\n", b"\r\n\r\n"),
        ("/close", b"HTTP/1.1 200 OK\r\n", b"3\r\nabc\r\n0\r\n\r\n"),
        ("/twice", b"HTTP/1.1 200 OK\r\n", b"3\r\nabc\r\n0\r\n\r\n"),
    ],
)
async def test_applications_that_do_wrong(path: str, begin: bytes, end: bytes) -> None:
    options = ServerOptions(port=0)
    listener = bind(options)
    server = QuietServer(uvicorn_config(Applications(), options))
    task = asyncio.create_task(server.serve(sockets=[listener]))
    await until(lambda: server.started)
    reader, writer = await asyncio.open_connection(*listener.getsockname())
    writer.write(post(b"", path=path.encode()))
    answer = rest = b""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not (begin and answer.endswith(end)) and (piece := await reader.read(1000)):
            answer += piece
        # It may stay open for the next one: nothing else comes before its answer.
        with suppress(ConnectionError):
            writer.write(post(b"", path=b"/close"))
            rest = await reader.read()
    assert answer.startswith(begin) and answer.endswith(end) and bool(answer) == bool(begin)
    assert rest.startswith(b"HTTP/1.1 200 OK\r\n") or not rest
    writer.close()
    server.should_exit = True
    await task
