"""What comes over a connection that is no ordinary request, and clients that are too slow."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import pytest
from tests.core.server.fake_llm import FakeLLM
from tests.core.server.http_server import serving
from tests.waiting import PATIENCE_SECONDS, until

from jackfield.contracts.generation import ChoiceDelta, GenerationRequest

GET = b"GET /health HTTP/1.1\r\nhost: a\r\n"


async def exchange(url: str, sent: bytes) -> bytes:
    """Everything the server says until it closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", urlsplit(url).port)
    writer.write(sent)
    await writer.drain()
    writer.write_eof()
    async with asyncio.timeout(PATIENCE_SECONDS):
        answer = await reader.read()
    writer.close()
    return answer


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        GET + b"bad header\r\n\r\n",
        GET + b"content-length: 5\r\ncontent-length: 6\r\n\r\n",
        GET + b"content-length: -1\r\n\r\n",
        GET + b"transfer-encoding: gzip, chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        GET + b"x: " + b"y" * 300_000,
    ],
)
async def test_what_is_no_http_is_400_in_the_shape_of_the_api(sent: bytes) -> None:
    async with serving(FakeLLM()) as url:
        head, _, body = (await exchange(url, sent)).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 400")
        assert b"application/json" in head
        assert json.loads(body)["error"]["code"] == "invalid_http"
        alive = await exchange(url, GET + b"connection: close\r\n\r\n")
        assert alive.startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    ("target", "status"),
    [
        (b"http://a/health", b"200"),
        (b"HTTPS://a:80/health?x=1", b"200"),
        (b"http://a", b"404"),
        (b"http://a?x", b"404"),
        (b"ftp://a/health", b"404"),
    ],
)
async def test_a_target_may_name_scheme_and_host(target: bytes, status: bytes) -> None:
    async with serving(FakeLLM()) as url:
        head = b"GET %b HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n" % target
        assert (await exchange(url, head)).startswith(b"HTTP/1.1 " + status)


@pytest.mark.parametrize(
    ("head", "fits"),
    [
        (b"x: " + b"y" * 1500 + b"\r\n", True),
        (b"x: " + b"y" * 2100 + b"\r\n", False),
        (b"".join(b"x%d: y\r\n" % i for i in range(18)), True),
        (b"".join(b"x%d: y\r\n" % i for i in range(20)), False),
    ],
)
async def test_a_head_is_bounded_also_where_it_comes_at_once(head: bytes, fits: bool) -> None:
    async with serving(FakeLLM(), max_header_bytes=2048, max_headers=20) as url:
        answer = await exchange(url, GET + head + b"connection: close\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 200" if fits else b"HTTP/1.1 400")


CHUNKED = b"POST %b HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n"


async def test_a_body_is_refused_with_the_piece_that_makes_it_too_long() -> None:
    async with serving(FakeLLM(), max_body_bytes=1000) as url:
        reader, writer = await asyncio.open_connection("127.0.0.1", urlsplit(url).port)
        writer.write(CHUNKED % (b"/v1/completions", 2000, b" " * 2000))
        async with asyncio.timeout(2):
            assert (await reader.readline()).startswith(b"HTTP/1.1 413")
        writer.close()


async def test_what_is_no_http_behind_an_early_answer_ends_the_connection(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with serving(FakeLLM(), max_body_bytes=1000) as url:
        reader, writer = await asyncio.open_connection("127.0.0.1", urlsplit(url).port)
        writer.write(CHUNKED % (b"/v1/completions", 2000, b" " * 2000))
        assert (await reader.readline()).startswith(b"HTTP/1.1 413")
        writer.write(b"no chunk\r\n")
        async with asyncio.timeout(PATIENCE_SECONDS):
            await reader.read()
        writer.close()
    assert not caplog.records


@pytest.mark.parametrize("path", [b"/v1/completions", b"/tokenize"])
async def test_a_client_that_leaves_inside_its_body_is_no_error_of_the_server(
    path: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(FakeLLM()) as url:
        _, writer = await asyncio.open_connection("127.0.0.1", urlsplit(url).port)
        writer.write(CHUNKED % (path, 1, b"{"))
        await asyncio.sleep(0.05)
        writer.close()
        await asyncio.sleep(0.05)
        assert not caplog.records
        answer = await exchange(
            url, GET.replace(b"health", b"metrics") + b"connection: close\r\n\r\n"
        )
        assert b'handler="%b",method="POST",status="4xx"} 1.0' % path in answer


async def flood(request: GenerationRequest) -> AsyncIterator[list[ChoiceDelta]]:
    while True:
        await asyncio.sleep(0)
        yield [ChoiceDelta(index=0, text="a" * 10_000, token_ids=(97,))]


async def test_a_client_that_does_not_read_is_cut_off_and_its_request_ends() -> None:
    llm = FakeLLM(flood)
    async with serving(llm, read_timeout_seconds=0.2) as url:
        port = urlsplit(url).port
        with socket.create_connection(("127.0.0.1", port)) as client:
            body = b'{"prompt":"a","stream":true}'
            head = b"POST /v1/completions HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n"
            client.sendall(head % len(body) + body)
            await until(lambda: llm.active)
            await until(lambda: llm.closed)
        assert llm.active == 0


async def test_a_client_that_reads_slowly_is_not_cut_off() -> None:
    llm = FakeLLM(flood)
    async with serving(llm, read_timeout_seconds=1.0) as url:
        reader, writer = await asyncio.open_connection("127.0.0.1", urlsplit(url).port)
        body = b'{"prompt":"a","stream":true}'
        head = b"POST /v1/completions HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n"
        writer.write(head % len(body) + body)
        for _ in range(20):
            assert await reader.read(1 << 20)
            await asyncio.sleep(0.1)
        assert llm.active == 1
        writer.close()
        await until(lambda: not llm.active)
