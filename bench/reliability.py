"""Three promises of the service, measured on a server of its own.

    python bench/reliability.py kills DIR [--rounds 100] [options of jackfield serve]
    python bench/reliability.py aborts DIR [--count 10000] [...]
    python bench/reliability.py overload DIR [--seconds 10] [--pairs 4] [...]

``kills``: the engine is killed under 64 streams, half of which wait. Those that have begun must end
with an error event within 2 s, the others must be answered in full by the next engine.

``aborts``: clients leave in every phase (the head is half sent, waiting, prompt, grammar, output,
several choices); afterwards nothing may be held: no running request within 2 s, no block, file or
thread.

``overload``: twice the requests that the server can do. What it completes must be 95 % of its best
(the median of pairs), the first token at most twice as late, every refusal 429 with Retry-After.

The exit status is 1 where a promise is not kept.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import statistics
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
FILLING_SECONDS = 2.0
POOL_THREADS = (os.cpu_count() or 1) + 4
"""Those of asyncio's pool, which makes one whenever all that it has are busy."""
GOODPUT = 0.95


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
        # A first token may have been on its way when the engine was killed.
        if b'"choices"' in data and b'"engine_dead"' in data[-400:] and self.killed is not None:
            self.slowest = max(self.slowest, time.monotonic() - self.killed)
            self.ends["told"] += 1
        elif status == 200 and data.endswith(DONE) and b'"completion_tokens":%d' % tokens in data:
            self.ends["before the kill" if has_begun else "run again"] += 1
        elif status == 503 and b'"service_unavailable"' in data:
            # It came when there was no engine.
            self.ends["refused"] += 1
        else:
            self.ends[f"lost: {status} {data[-300:]!r}"] += 1


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
    await asyncio.gather(*[client(random.Random(-seed - 1), 10) for seed in range(STREAMS)])
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
    more = {"threads": POOL_THREADS}
    leaks = [name for name, value in after.items() if value > before[name] + more.get(name, 0)]
    print(f"leaks: {', '.join(leaks) or 'none'}; engines replaced: {restarts:.0f}")
    return idle <= TOLD_SECONDS and not leaks and not restarts


# --- overload ----------------------------------------------------------------------------


@dataclass
class Traffic:
    """What requests of one kind of load have seen. What has ended between ``begin`` and ``end`` of
    the monotonic clock counts, however the load began and ended."""

    begin: float
    end: float
    api_cpu: float = 0.0
    """CPU seconds of the processes that answer within that time, and of the engine."""
    engine_cpu: float = 0.0
    tokens: int = 0
    completed: int = 0
    firsts: list[float] = field(default_factory=list)
    refusals: list[float] = field(default_factory=list)
    wrong: Counter[str] = field(default_factory=Counter)

    @classmethod
    def soon(cls, seconds: float) -> Traffic:
        """So many seconds, from when the queue is full."""
        begin = time.monotonic() + FILLING_SECONDS
        return cls(begin, begin + seconds)

    async def one(self, connection: Connection, rng: random.Random) -> None:
        # Not all of one length: they would all end in the same step.
        tokens = rng.randint(16, 48)
        asked = body(rng, tokens, stream=True)
        sent, first, data = time.monotonic(), 0.0, b""
        status, headers, pieces = await connection.post_for_headers(COMPLETIONS, asked)
        async for piece in pieces:
            first = first or time.monotonic() - sent
            data += piece
        done = time.monotonic()
        counts = self.begin <= done < self.end
        if status == 429 and "retry-after" in headers:
            self.refusals += [done - sent] * counts
        elif status == 200 and data.endswith(DONE):
            self.completed += counts
            self.tokens += tokens * counts
            self.firsts += [first] * counts
        else:
            self.wrong[f"{status} {data[:80]!r}"] += 1

    async def count_cpu(self, server: Server) -> None:
        """Measures what the server computes between ``begin`` and ``end``."""
        await asyncio.sleep(self.begin - time.monotonic())
        before = server.cpu_seconds()
        await asyncio.sleep(self.end - time.monotonic())
        now = server.cpu_seconds()
        self.api_cpu, self.engine_cpu = now[0] - before[0], now[1] - before[1]

    def line(self) -> str:
        """What there is to say of it."""
        seconds = self.end - self.begin
        return (
            f"{self.completed / seconds:.1f} requests/s, {self.tokens / seconds:.0f} tok/s, first "
            f"token {late(self.firsts) * 1e3:.0f} ms (p99), {len(self.refusals)} refused in "
            f"{late(self.refusals) * 1e3:.0f} ms (p99), CPU {self.api_cpu / seconds:.2f} + "
            f"{self.engine_cpu / seconds:.2f} s/s"
        )


async def at_best(server: Server, seconds: float, seed: int, clients: int) -> Traffic:
    """As many requests as so many clients get through, one after the other."""
    address, traffic = Address.parse(server.url), Traffic.soon(seconds)

    async def client(rng: random.Random) -> None:
        with closing(Connection(address, {})) as connection:
            while time.monotonic() < traffic.end:
                await traffic.one(connection, rng)

    counting = asyncio.create_task(traffic.count_cpu(server))
    await asyncio.gather(*[client(random.Random(1000 * seed + each)) for each in range(clients)])
    await counting
    return traffic


async def at_rate(server: Server, seconds: float, seed: int, rate: float) -> Traffic:
    """So many requests a second, whatever becomes of them."""
    address, traffic, rng = Address.parse(server.url), Traffic.soon(seconds), random.Random(seed)
    counting = asyncio.create_task(traffic.count_cpu(server))
    idle: list[Connection] = []
    begin, number = time.monotonic(), 0
    tasks: set[asyncio.Task[None]] = set()

    async def one(own: random.Random) -> None:
        connection = idle.pop() if idle else Connection(address, {})
        await traffic.one(connection, own)
        idle.append(connection)

    while (now := time.monotonic()) < traffic.end:
        while number < (now - begin) * rate:
            number += 1
            task = asyncio.create_task(one(random.Random(rng.random())))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        await asyncio.sleep(0.005)
    await asyncio.gather(*tasks, counting)
    for connection in idle:
        connection.close()
    return traffic


def late(values: list[float]) -> float:
    """The 99th percentile."""
    return sorted(values)[int(len(values) * 0.99)] if values else 0.0


async def overload(server: Server, args: argparse.Namespace) -> bool:
    """Pairs of the best and of twice as much, in the order A B B A: a machine that has other work
    does not always give the same."""
    seconds = args.seconds
    clients = args.max_num_seqs + args.max_waiting_requests
    # What the server needs once for such requests, it has from then on.
    await at_best(server, seconds, 1, clients)
    best = await at_best(server, seconds, 0, clients)
    rate, kept = 2 * best.completed / seconds, True
    shares: list[float] = []
    work: list[float] = []
    for pair in range(args.pairs):
        runs: dict[str, Traffic] = {}
        for kind in ("best", "over") if pair % 2 else ("over", "best"):
            if kind == "best":
                runs[kind] = await at_best(server, seconds, pair, clients)
            else:
                runs[kind] = await at_rate(server, seconds, pair, rate)
        best, over = runs["best"], runs["over"]
        shares.append(over.tokens / best.tokens)
        work.append(over.tokens / over.engine_cpu * best.engine_cpu / best.tokens)
        print(f"best:          {best.line()}")
        print(f"twice as many: {over.line()}; anything else: {dict(over.wrong)}")
        print(
            f"  {shares[-1]:.1%} of the best, {work[-1]:.1%} by the engine's CPU time", flush=True
        )
        rate = 2 * best.completed / seconds
        kept &= bool(over.refusals) and not over.wrong and not best.wrong
        kept &= late(over.firsts) <= 2 * late(best.firsts)
    goodput = statistics.median(shares)
    print(
        f"goodput under twice the load: {goodput:.1%} of the best (median of {len(shares)} pairs; "
        f"{min(shares):.1%} to {max(shares):.1%}), {statistics.median(work):.1%} by its CPU time"
    )
    return kept and goodput >= GOODPUT


def main() -> int:
    """Starts the server, does what is asked for, and says whether it kept the promise."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("what", choices=("kills", "aborts", "overload"))
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--max-num-seqs", type=int, default=32)
    parser.add_argument("--max-waiting-requests", type=int, default=32)
    parser.add_argument("--pairs", type=int, default=4)
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
