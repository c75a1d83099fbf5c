"""Three promises of the service, measured on a server of its own.

    python bench/reliability.py kills DIR [--rounds 100] [options of jackfield serve]
    python bench/reliability.py aborts DIR [--count 10000] [...]
    python bench/reliability.py overload DIR [--seconds 20] [...]

``kills``: the engine is killed under 64 streams, half of which wait. Those that have begun must end
with an error event within 2 s, the others must be answered in full by the next engine.

``aborts``: clients leave in every phase (the head is half sent, waiting, prompt, grammar, output,
several choices); afterwards nothing may be held: no running request within 2 s, no block, file or
thread.

``overload``: twice the requests that the server can do. What it completes must be 95 % of its best,
the first token at most twice as late, every refusal 429 with Retry-After.

The exit status is 1 where a promise is not kept.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import time
from collections import Counter
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jackfield.cli.bench.chaos import START_SECONDS, Server
from jackfield.cli.bench.http_client import Address, Connection

COMPLETIONS = "/v1/completions"
TOLD_SECONDS = 2.0
STREAMS = 64
ANSWER_SECONDS = 120.0
DONE = b"data: [DONE]\n\n"


def body(rng: random.Random, tokens: int, **changes: Any) -> bytes:
    prompt = [rng.randrange(5, 200) for _ in range(rng.randint(4, 24))]
    asked = {"prompt": prompt, "max_tokens": tokens, "ignore_eos": True, "temperature": 0}
    return json.dumps(asked | changes).encode()


# --- kills -------------------------------------------------------------------------------


@dataclass
class Round:
    """What became of the streams of one kill."""

    begun: int = 0
    killed: float | None = None
    slowest: float = 0.0
    ends: Counter[str] = field(default_factory=Counter)

    async def stream(self, address: Address, rng: random.Random, tokens: int) -> None:
        data, has_begun = b"", False
        with closing(Connection(address, {})) as connection:
            asked = body(rng, tokens, stream=True, stream_options={"include_usage": True})
            status, pieces = await connection.post(COMPLETIONS, asked)
            async for piece in pieces:
                data += piece
                if not has_begun and self.killed is None:
                    has_begun = True
                    self.begun += 1
        if has_begun and b'"error"' in data[-400:]:
            assert self.killed is not None
            self.slowest = max(self.slowest, time.monotonic() - self.killed)
            self.ends["told"] += 1
        elif status == 200 and data.endswith(DONE) and b'"completion_tokens":%d' % tokens in data:
            self.ends["before the kill" if has_begun else "run again"] += 1
        elif status == 503 and b'"service_unavailable"' in data:
            # It came when there was no engine.
            self.ends["refused"] += 1
        else:
            self.ends[f"lost: {status} {data[-100:]!r}"] += 1


async def kill_once(server: Server, address: Address, rng: random.Random) -> Round:
    """Streams, a kill, and their ends."""
    done = Round()
    tasks = [asyncio.create_task(done.stream(address, rng, 150)) for _ in range(STREAMS)]
    while done.begun < STREAMS // 2 and not all(task.done() for task in tasks):
        await asyncio.sleep(0.002)
    for pid in server.engines():
        os.kill(pid, signal.SIGKILL)
    done.killed = time.monotonic()
    for task in tasks:
        try:
            await asyncio.wait_for(task, ANSWER_SECONDS)
        except (TimeoutError, OSError, EOFError, ValueError) as error:
            done.ends[f"lost: {type(error).__name__}"] += 1
    return done


async def kills(server: Server, args: argparse.Namespace) -> bool:
    address, rng = Address.parse(server.url), random.Random(args.seed)
    ends: Counter[str] = Counter()
    slowest, begin = 0.0, time.monotonic()
    for number in range(1, args.rounds + 1):
        done = await kill_once(server, address, rng)
        ends += done.ends
        slowest = max(slowest, done.slowest)
        if number % 10 == 0 or number == args.rounds:
            took = time.monotonic() - begin
            print(
                f"{number} kills in {took:.0f} s: {dict(ends)}, told in {slowest:.2f} s", flush=True
            )
        await asyncio.to_thread(server.wait_ready, START_SECONDS)
    lost = sum(count for end, count in ends.items() if end.startswith("lost"))
    restarts = server.metric("engine_restarts_total")
    print(f"engines replaced {restarts:.0f}, lost {lost}, the slowest was told in {slowest:.2f} s")
    return not lost and slowest <= TOLD_SECONDS and restarts == args.rounds


# --- aborts ------------------------------------------------------------------------------


async def leave(address: Address, rng: random.Random, phases: Counter[str]) -> None:
    """One client that leaves at a random moment of a random kind of request."""
    kind = rng.choice(
        ("half a head", "half a body", "plain", "stream", "choices", "grammar", "long")
    )
    changes: dict[str, Any] = {"stream": rng.random() < 0.7}
    if kind == "choices":
        changes["n"] = 4
    elif kind == "grammar":
        changes["guided_regex"] = rf"[a-z]{{1,{rng.randint(20, 400)}}}[0-9]*"
    elif kind == "long":
        changes["prompt"] = [rng.randrange(5, 200) for _ in range(rng.randint(500, 2000))]
    asked = body(rng, rng.randint(1, 400), **changes)
    phases[kind] += 1
    if kind.startswith("half"):
        head = b"POST %b HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % (
            COMPLETIONS.encode(), len(asked))  # fmt: skip
        sent = head[:20] if kind == "half a head" else head + asked[: len(asked) // 2]
        with suppress(OSError):
            _, writer = await asyncio.open_connection(address.host, address.port)
            writer.write(sent)
            await asyncio.sleep(rng.choice((0.0, 0.01)))
            writer.close()
        return
    with closing(Connection(address, {})) as connection, suppress(TimeoutError, OSError, EOFError):
        async with asyncio.timeout(
            rng.choice((0.0, 0.002, 0.01, 0.05, 0.2, 0.5)) * 2 * rng.random()
        ):
            _, pieces = await connection.post(COMPLETIONS, asked)
            async for _ in pieces:
                pass


def held(server: Server) -> dict[str, float]:
    """What the server holds; every value is what it was once nothing runs."""
    threads = 0
    for pid in (*server.api_processes(), *server.engines()):
        threads += len(list(Path(f"/proc/{pid}/task").iterdir()))
    return {
        # First: each of the questions below opens a connection.
        "files": server.num_files(),
        "threads": threads,
        "running": server.metric("num_requests_running"),
        "waiting": server.metric("num_requests_waiting"),
        "KV blocks": server.metric("kv_cache_usage_perc"),
    }


async def aborts(server: Server, args: argparse.Namespace) -> bool:
    address, phases = Address.parse(server.url), Counter[str]()

    async def client(rng: random.Random, count: int) -> None:
        for _ in range(count):
            await leave(address, rng, phases)

    # Once with everything, so that what is made once is there before.
    await client(random.Random(-1), 100)
    await asyncio.sleep(3.0)
    before = held(server)
    begin, share = time.monotonic(), args.count // STREAMS + 1
    await asyncio.gather(*[client(random.Random(seed), share) for seed in range(STREAMS)])
    took = time.monotonic() - begin
    while server.metric("num_requests_running") and time.monotonic() - begin - took < 10.0:
        await asyncio.sleep(0.02)
    idle = time.monotonic() - begin - took
    await asyncio.sleep(2.0)
    after = held(server)
    print(f"{share * STREAMS} clients left in {took:.0f} s: {dict(phases)}")
    print(f"nothing running after {idle:.2f} s; before {before}, after {after}")
    restarts = server.metric("engine_restarts_total")
    leaks = [name for name, value in after.items() if value > before[name]]
    print(f"leaks: {', '.join(leaks) or 'none'}; engines replaced: {restarts:.0f}")
    return idle <= TOLD_SECONDS and not leaks and not restarts


# --- overload ----------------------------------------------------------------------------


@dataclass
class Traffic:
    """What requests of one kind of load have seen."""

    tokens: int = 0
    completed: int = 0
    firsts: list[float] = field(default_factory=list)
    refusals: list[float] = field(default_factory=list)
    wrong: Counter[str] = field(default_factory=Counter)

    async def one(self, connection: Connection, asked: bytes, tokens: int) -> None:
        sent, first, data = time.monotonic(), 0.0, b""
        status, headers, pieces = await connection.post_for_headers(COMPLETIONS, asked)
        async for piece in pieces:
            first = first or time.monotonic() - sent
            data += piece
        if status == 429 and "retry-after" in headers:
            self.refusals.append(time.monotonic() - sent)
        elif status == 200 and data.endswith(DONE):
            self.completed += 1
            self.tokens += tokens
            self.firsts.append(first)
        else:
            self.wrong[f"{status} {data[:80]!r}"] += 1


async def at_best(address: Address, seconds: float, tokens: int, clients: int) -> Traffic:
    """As many requests as so many clients get through, one after the other."""
    traffic, end = Traffic(), time.monotonic() + seconds

    async def client(rng: random.Random) -> None:
        with closing(Connection(address, {})) as connection:
            while time.monotonic() < end:
                await traffic.one(connection, body(rng, tokens, stream=True), tokens)

    await asyncio.gather(*[client(random.Random(seed)) for seed in range(clients)])
    return traffic


async def at_rate(address: Address, seconds: float, tokens: int, rate: float) -> Traffic:
    """So many requests a second, whatever becomes of them."""
    traffic, rng = Traffic(), random.Random(0)
    idle: list[Connection] = []
    begin, number = time.monotonic(), 0
    tasks: set[asyncio.Task[None]] = set()

    async def one(asked: bytes) -> None:
        connection = idle.pop() if idle else Connection(address, {})
        await traffic.one(connection, asked, tokens)
        idle.append(connection)

    while (now := time.monotonic() - begin) < seconds:
        while number < now * rate:
            number += 1
            task = asyncio.create_task(one(body(rng, tokens, stream=True)))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        await asyncio.sleep(0.005)
    await asyncio.gather(*tasks)
    for connection in idle:
        connection.close()
    return traffic


def late(values: list[float]) -> float:
    """The 99th percentile."""
    return sorted(values)[int(len(values) * 0.99)] if values else 0.0


async def overload(server: Server, args: argparse.Namespace) -> bool:
    address, tokens = Address.parse(server.url), 32
    clients = args.max_num_seqs + args.max_waiting_requests
    await at_best(address, 2.0, tokens, clients)
    best = await at_best(address, args.seconds, tokens, clients)
    rate = best.completed / args.seconds
    print(f"best: {rate:.0f} requests/s, {best.tokens / args.seconds:.0f} tok/s, first token "
          f"{late(best.firsts) * 1e3:.0f} ms (p99)")  # fmt: skip
    over = await at_rate(address, args.seconds, tokens, 2 * rate)
    goodput = over.tokens / best.tokens
    print(
        f"twice as many: {goodput:.0%} of the best, first token {late(over.firsts) * 1e3:.0f} ms "
        f"(p99), {len(over.refusals)} refused with 429 and Retry-After in "
        f"{late(over.refusals) * 1e3:.0f} ms (p99), anything else: {dict(over.wrong)}"
    )
    in_time = late(over.firsts) <= 2 * late(best.firsts)
    return goodput >= 0.95 and in_time and bool(over.refusals) and not over.wrong


def main() -> int:
    """Starts the server, does what is asked for, and says whether it kept the promise."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("what", choices=("kills", "aborts", "overload"))
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--max-num-seqs", type=int, default=32)
    parser.add_argument("--max-waiting-requests", type=int, default=32)
    args, words = parser.parse_known_args()
    words += ["--max-num-seqs", str(args.max_num_seqs)]
    if args.what == "overload":
        words += ["--max-waiting-requests", str(args.max_waiting_requests)]
    server = Server(words)
    try:
        server.wait_ready(START_SECONDS)
        do = {"kills": kills, "aborts": aborts, "overload": overload}[args.what]
        kept = asyncio.run(do(server, args))
    finally:
        server.process.send_signal(signal.SIGTERM)
        status = server.process.wait(timeout=60)
    print(f"{args.what}: {'kept' if kept and not status else 'NOT KEPT'}")
    return 0 if kept and not status else 1


if __name__ == "__main__":
    raise SystemExit(main())
