"""Clients of a server under attack: good ones, whose requests count, and bad ones."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import closing, suppress
from dataclasses import dataclass, field

from jackfield.cli.bench.garbage import garbage
from jackfield.cli.bench.http_client import Address, Connection

PATH = "/v1/completions"
ANSWER_SECONDS = 60.0
"""From here on a request that was taken and has not been answered counts as lost."""
NONSENSE_SECONDS = 2.0
"""Nonsense may ask for as many tokens as the context holds: then its sender leaves."""

_BROKEN = (OSError, EOFError, ValueError)
_TOLD = frozenset({"engine_dead", "service_unavailable", "aborted"})


@dataclass
class Ledger:
    """What became of the requests. ``lost`` names those with no right end, by kind."""

    answered: int = 0
    refused: int = 0
    told: int = 0
    """Streams that had begun and ended in an error event."""
    lost: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)


Client = Callable[[Address, Ledger, random.Random], Coroutine[None, None, None]]


async def good_client(address: Address, ledger: Ledger, rng: random.Random) -> None:
    """One request after the other, streamed or not, a few choices now and then."""
    with closing(Connection(address, {})) as connection:
        while True:
            try:
                async with asyncio.timeout(ANSWER_SECONDS):
                    await _good_request(connection, ledger, rng)
            except TimeoutError:
                ledger.lost["no answer in time"] += 1
                connection.close()
            except _BROKEN as error:
                ledger.lost[f"connection broken: {type(error).__name__}"] += 1
                connection.close()


async def _good_request(connection: Connection, ledger: Ledger, rng: random.Random) -> None:
    tokens, n, stream = rng.randint(1, 48), rng.choice((1, 1, 1, 3)), rng.random() < 0.5
    body: dict[str, object] = {
        "prompt": [rng.randrange(1, 200) for _ in range(rng.randint(1, 60))],
        "max_tokens": tokens,
        "n": n,
        "ignore_eos": True,
        "stream": stream,
        "stream_options": {"include_usage": True} if stream else None,
    }
    await _one(connection, json.dumps(body).encode(), tokens * n, stream, ledger)


async def _one(
    connection: Connection, body: bytes, num_tokens: int, stream: bool, ledger: Ledger
) -> None:
    status, pieces = await connection.post(PATH, body)
    data = b"".join([piece async for piece in pieces])
    if status == 200:
        outcome = _stream_outcome(data, num_tokens) if stream else _answer_outcome(data, num_tokens)
    elif status in (429, 503) and json.loads(data)["error"]["code"] != "engine_dead":
        outcome = "refused"
        await asyncio.sleep(0.2)
    else:
        outcome = f"status {status}: {data[:120]!r}"
    match outcome:
        case "answered":
            ledger.answered += 1
        case "refused":
            ledger.refused += 1
        case "told":
            ledger.told += 1
        case _:
            ledger.lost[outcome] += 1


def _answer_outcome(data: bytes, num_tokens: int) -> str:
    count = json.loads(data)["usage"]["completion_tokens"]
    return "answered" if count == num_tokens else f"{count} tokens in place of {num_tokens}"


def _stream_outcome(data: bytes, num_tokens: int) -> str:
    *events, done, rest = data.split(b"\n\n")
    if done != b"data: [DONE]" or rest:
        return "a stream without its end"
    last = json.loads(events[-1].removeprefix(b"data: "))
    if "error" in last:
        return "told" if last["error"]["code"] in _TOLD else f"stream error {last['error']}"
    count = last["usage"]["completion_tokens"]
    return "answered" if count == num_tokens else f"{count} tokens in place of {num_tokens}"


# --- bad ones --------------------------------------------------------------------------


async def leaver(address: Address, ledger: Ledger, rng: random.Random) -> None:
    """Asks for much and leaves: at once, while it waits, or in the midst of a stream."""
    while True:
        with closing(Connection(address, {})) as connection, suppress(TimeoutError, *_BROKEN):
            async with asyncio.timeout(rng.choice((0.001, 0.02, 0.2, 1.0))):
                async for _ in _long_stream(connection, rng):
                    pass
        ledger.faults["clients that left"] += 1
        await asyncio.sleep(0.02)


async def slow_reader(address: Address, ledger: Ledger, rng: random.Random) -> None:
    """Streams and hardly reads."""
    while True:
        with closing(Connection(address, {})) as connection, suppress(TimeoutError, *_BROKEN):
            async with asyncio.timeout(10):
                async for _ in _long_stream(connection, rng):
                    await asyncio.sleep(0.5)
        ledger.faults["slow readers"] += 1
        await asyncio.sleep(0.1)


async def _long_stream(connection: Connection, rng: random.Random) -> AsyncIterator[bytes]:
    body = {"prompt": [rng.randrange(1, 200)] * rng.randint(1, 200), "max_tokens": 300,
            "n": rng.choice((1, 4)), "ignore_eos": True, "stream": True}  # fmt: skip
    _, pieces = await connection.post(PATH, json.dumps(body).encode())
    async for piece in pieces:
        yield piece


async def nonsense_sender(address: Address, ledger: Ledger, rng: random.Random) -> None:
    """Sends bodies that are wrong; a 500 in return counts as a loss."""
    with closing(Connection(address, {})) as connection:
        while True:
            path, body = garbage(rng)
            try:
                async with asyncio.timeout(NONSENSE_SECONDS):
                    status, pieces = await connection.post(path, body)
                    async for _ in pieces:
                        pass
                if status >= 500 and status != 503:
                    ledger.lost[f"status {status} for nonsense: {body[:80]!r}"] += 1
            except (TimeoutError, *_BROKEN):
                connection.close()
            ledger.faults["nonsense"] += 1
            await asyncio.sleep(0.01)


async def broken_speaker(address: Address, ledger: Ledger, rng: random.Random) -> None:
    """Speaks no HTTP, or stops in the midst of it."""
    while True:
        with suppress(OSError):
            _, writer = await asyncio.open_connection(address.host, address.port)
            with closing(writer):
                writer.write(rng.choice((rng.randbytes(200), b"POST / HTTP/1.1\r\nx: a\r\n", b"")))
                await asyncio.sleep(rng.choice((0.0, 0.5)))
        ledger.faults["broken HTTP"] += 1
        await asyncio.sleep(0.05)
