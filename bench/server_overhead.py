"""What the HTTP server costs by itself: a door that costs (almost) nothing behind the real routes.

    PYTHONPATH=. python bench/server_overhead.py [--clients 64] [--requests 6400] [--tokens 100]

Prints the server's CPU time for a one-token completion and for a streamed token, beside the same
answers from a bare ASGI application under the same uvicorn: the difference is ours.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import resource
import socket
import time
from typing import Any

import aiohttp
import uvloop
from tests.core.server.fake_llm import FakeLLM

from jackfield.hooks import Hooks
from jackfield.server.app import build_app
from jackfield.server.asgi import Receive, Scope, Send
from jackfield.server.door import Frontend
from jackfield.server.lifecycle import QuietServer, uvicorn_config
from jackfield.server.options import ServerOptions

FRAME = (
    b'data: {"id":"cmpl-00000000000000000000000000000000","object":"text_completion",'
    b'"created":1,"model":"fake","choices":[{"index":0,"text":"a","logprobs":null,'
    b'"finish_reason":null}]}\n\n'
)


def bare(tokens: int) -> Any:
    """The floor: reads the body, answers with constant bytes."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        body = (await receive())["body"]
        if b'"stream"' not in body:
            headers = [(b"content-length", b"%d" % len(FRAME))]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": FRAME})
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(tokens):
            await asyncio.sleep(0)
            await send({"type": "http.response.body", "body": FRAME, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    return app


def serve(listener: socket.socket, floor_tokens: int, pipe: Any) -> None:
    """The server's process: answers, and tells its CPU time whenever asked."""
    options = ServerOptions()

    async def main() -> None:
        app = (
            bare(floor_tokens) if floor_tokens else build_app(Frontend(FakeLLM(), options), Hooks())
        )
        server = QuietServer(uvicorn_config(app, options))
        task = asyncio.create_task(server.serve(sockets=[listener]))
        loop = asyncio.get_running_loop()
        while await loop.run_in_executor(None, pipe.recv):
            usage = resource.getrusage(resource.RUSAGE_SELF)
            pipe.send(usage.ru_utime + usage.ru_stime)
        server.should_exit = True
        await task

    uvloop.run(main())


async def load(url: str, body: dict[str, Any], requests: int, clients: int) -> None:
    """``clients`` connections, one request after the other on each."""
    connector = aiohttp.TCPConnector(limit=clients)
    async with aiohttp.ClientSession(connector=connector) as session:

        async def client() -> None:
            for _ in range(requests // clients):
                async with session.post(url, json=body) as answer:
                    assert answer.status == 200, await answer.text()
                    await answer.read()

        await asyncio.gather(*[client() for _ in range(clients)])


def measure(arguments: argparse.Namespace, floor: bool) -> tuple[float, float, float, float]:
    """CPU us a request, requests/s, CPU us a streamed token, tokens/s."""
    context = multiprocessing.get_context("spawn")
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1/completions"
    pipe, other = context.Pipe()
    process = context.Process(
        target=serve, args=(listener, arguments.tokens if floor else 0, other)
    )
    process.start()
    results: list[float] = []
    plain = {"model": "fake", "prompt": [1, 2, 3, 4], "max_tokens": 1, "temperature": 0}
    streamed = plain | {"max_tokens": arguments.tokens, "stream": True}
    streams = max(arguments.clients, arguments.requests // 10)
    for body, requests, each in (
        (plain, arguments.requests, 1),
        (streamed, streams, arguments.tokens),
    ):
        uvloop.run(load(url, body, arguments.clients, arguments.clients))
        pipe.send(True)
        cpu, began = pipe.recv(), time.perf_counter()
        uvloop.run(load(url, body, requests, arguments.clients))
        wall = time.perf_counter() - began
        pipe.send(True)
        count = requests // arguments.clients * arguments.clients * each
        results += [(pipe.recv() - cpu) / count * 1e6, count / wall]
    pipe.send(False)
    process.join()
    return results[0], results[1], results[2], results[3]


def main() -> None:
    """Measures floor and server in turn."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--requests", type=int, default=6400)
    parser.add_argument("--tokens", type=int, default=100)
    arguments = parser.parse_args()
    for name, floor in (("bare uvicorn", True), ("jackfield", False)) * 2:
        request, rate, token, token_rate = measure(arguments, floor)
        print(
            f"{name:<14} {request:6.0f} us/request {rate:7.0f} requests/s   "
            f"{token:6.1f} us/token {token_rate:8.0f} tokens/s"
        )


if __name__ == "__main__":
    main()
