"""Requests to a server at a given concurrency or rate, and what became of each."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field

from jackfield.cli.bench.http_client import Address, Connection


@dataclass(slots=True)
class Outcome:
    """One request; times are ``perf_counter`` seconds."""

    sent: float
    first: float | None = None
    last: float | None = None
    done: float = 0.0
    gaps: list[float] = field(default_factory=list)
    token_times: list[float] = field(default_factory=list)
    prompt_tokens: int = 0
    output_tokens: int = 0
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Load:
    """``max_concurrency`` requests at once (None: no bound); arrivals at ``request_rate`` a
    second (infinite: at once), gamma-distributed gaps of shape ``burstiness`` (1: Poisson)."""

    max_concurrency: int | None
    request_rate: float
    burstiness: float
    seed: int


async def drive(
    address: Address,
    path: str,
    headers: dict[str, str],
    bodies: Sequence[bytes],
    load: Load,
    on_done: Callable[[], None],
) -> list[Outcome]:
    """Sends every body once and returns the outcomes in order of completion."""
    rng = random.Random(load.seed)
    gate = asyncio.Semaphore(load.max_concurrency or len(bodies))
    idle: list[Connection] = []
    outcomes: list[Outcome] = []

    async def one(body: bytes) -> None:
        async with gate:
            connection = idle.pop() if idle else Connection(address, headers)
            outcome = await send(connection, path, body)
            idle.append(connection)
        outcomes.append(outcome)
        on_done()

    async with asyncio.TaskGroup() as group:
        for body in bodies:
            if load.request_rate != float("inf"):
                mean = 1.0 / (load.request_rate * load.burstiness)
                await asyncio.sleep(rng.gammavariate(load.burstiness, mean))
            group.create_task(one(body))
    for connection in idle:
        connection.close()
    return outcomes


async def send(connection: Connection, path: str, body: bytes) -> Outcome:
    """One streamed request. A failure is kept in the outcome: the others go on."""
    outcome = Outcome(sent=time.perf_counter())
    try:
        status, pieces = await connection.post(path, body)
        if status == 200:
            await _read_events(pieces, outcome)
        else:
            text = b"".join([piece async for piece in pieces])
            outcome.error = f"HTTP {status}: {text[:200].decode(errors='replace')}"
    except (OSError, EOFError, ValueError, RuntimeError) as error:
        outcome.error = f"{type(error).__name__}: {error}"
        connection.close()
    outcome.done = time.perf_counter()
    return outcome


async def _read_events(pieces: AsyncIterator[bytes], outcome: Outcome) -> None:
    rest = b""
    async for piece in pieces:
        now = time.perf_counter()
        *lines, rest = (rest + piece).split(b"\n")
        tokens = 0
        for line in lines:
            if line.startswith(b"data: {"):
                tokens += _note_event(line[6:], outcome)
        if not tokens:
            continue
        if outcome.last is None:
            outcome.first = now
        else:
            outcome.gaps.append(now - outcome.last)
        outcome.last = now
        outcome.token_times.append(now)
    if outcome.error is None and outcome.first is None:
        outcome.error = "the stream ended without a token"


def _note_event(data: bytes, outcome: Outcome) -> int:
    """Whether the event brings output; usage and errors are noted."""
    if b'"completion_tokens"' not in data and b'"error"' not in data[:16]:
        return int(b'"choices":[]' not in data)
    event = json.loads(data)
    if "error" in event:
        outcome.error = str(event["error"].get("message", event["error"]))[:200]
        return 0
    usage = event["usage"]
    outcome.prompt_tokens = usage["prompt_tokens"]
    outcome.output_tokens = usage["completion_tokens"]
    return int(bool(event["choices"]))
