"""Wrong request bodies, many of them, against a running server: what it must not do.

    jackfield serve MODEL --port 8000 --max-model-len 256 &
    python bench/fuzz.py [--base-url http://127.0.0.1:8000] [--bodies 100000] [--clients 16]

Prints the answers by status, and whatever was a 5xx, had no JSON error, or restarted the engine;
the exit status is 1 if there was any. A short context keeps bodies without max_tokens short.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import time
import urllib.request
from collections import Counter

from jackfield.cli.bench.garbage import garbage
from jackfield.cli.bench.http_client import Address, Connection

SECONDS = 60.0


async def client(address: Address, rng: random.Random, count: int, seen: Counter[str]) -> None:
    connection = Connection(address, {})
    for _ in range(count):
        path, body = garbage(rng)
        try:
            async with asyncio.timeout(SECONDS):
                status, pieces = await connection.post(path, body)
                data = b"".join([piece async for piece in pieces])
        except (TimeoutError, OSError, EOFError, ValueError) as error:
            seen[f"bad: {type(error).__name__} for {path} {body[:200]!r}"] += 1
            connection.close()
            continue
        seen[str(status)] += 1
        if status >= 500:
            seen[f"bad: {status} for {path} {body[:200]!r}: {data[:200]!r}"] += 1
        elif status >= 400 and not json.loads(data)["error"]["message"]:
            seen[f"bad: no message for {path} {body[:200]!r}"] += 1


def restarts(url: str) -> float:
    with urllib.request.urlopen(f"{url}/metrics") as answer:
        text = answer.read().decode()
    found = re.search(r"^jackfield:engine_restarts_total{.*} (\S+)$", text, re.M)
    return float(found[1]) if found else float("nan")


async def main() -> int:
    parser = argparse.ArgumentParser(description="Wrong bodies for a running server.")
    parser.add_argument("--base-url", default="http://127.0.0.1:8000")
    parser.add_argument("--bodies", type=int, default=100_000)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    seen: Counter[str] = Counter()
    address, begin = Address.parse(args.base_url), time.monotonic()
    async with asyncio.TaskGroup() as group:
        for index in range(args.clients):
            rng = random.Random(args.seed * 1000 + index)
            group.create_task(client(address, rng, args.bodies // args.clients, seen))
    seconds = time.monotonic() - begin
    bad = {kind: count for kind, count in seen.items() if kind.startswith("bad")}
    for status, count in sorted(seen.items() - bad.items()):
        print(f"{status:>5} {count:8}")
    for kind, count in bad.items():
        print(count, kind)
    print(f"{seconds:.0f} s; engine restarts: {restarts(args.base_url):.0f}; bad: {len(bad)}")
    return 1 if bad or restarts(args.base_url) else 0


if __name__ == "__main__":
    raise SystemExit(asyncio.run(main()))
