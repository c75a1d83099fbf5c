"""Hours of mixed load on a server of its own: does anything grow?

    python bench/soak.py MODEL [options of jackfield serve] [--minutes 60] [--kill-every 0]

Every minute (``--every``) it rests for some seconds, in which the engine gives back what its heap
does not use; then a line tells requests, resident memory of both kinds of processes, open files and
requests lost. After a quarter of the time memory should be flat: the exit status is 1 where either
grew by more than 10 % from then on, or anything was lost or left behind. The KV cache fills as the
soak goes on, and is memory of the engine: give it little (--cpu-kv-cache-gib 0.06).
Engines that are killed are no measure of their memory.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import time
from pathlib import Path
from urllib.request import Request, urlopen

from jackfield.cli.bench import chaos
from jackfield.cli.bench.chaos import Server
from jackfield.engine.idle import TRIM_SECONDS

MAX_GROWTH = 0.1


def resident_mib(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return 0.0


def load_grammars(server: Server) -> None:
    """The first grammar loads a library and the vocabulary; it must not come later as a growth."""
    asked = {"prompt": [5], "max_tokens": 4, "guided_regex": "[a-z]+"}
    head = {"Content-Type": "application/json"}
    request = Request(server.url + "/v1/completions", json.dumps(asked).encode(), head)
    with urlopen(request, timeout=60) as answer:
        answer.read()


async def main() -> int:
    parser = argparse.ArgumentParser(description="Mixed load for hours.", allow_abbrev=False)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--every", type=float, default=60.0)
    parser.add_argument("--kill-every", type=float, default=0.0)
    args, words = parser.parse_known_args()
    server = Server(words)
    lost = 0
    sizes: dict[str, list[float]] = {"API": [], "engine": []}
    try:
        server.wait_ready(chaos.START_SECONDS)
        await asyncio.to_thread(load_grammars, server)
        num_files = server.num_files()
        options = chaos._parser().parse_args(["--kill-every", str(args.kill_every)])
        options.duration = min(args.every, args.minutes * 60)
        begin = time.monotonic()
        while (minutes := (time.monotonic() - begin) / 60) < args.minutes:
            ledger, _ = await chaos._run(server, options)
            left = await asyncio.to_thread(chaos._left_behind, server, num_files)
            await asyncio.sleep(TRIM_SECONDS + 1)
            lost += sum(ledger.lost.values()) + sum(map(bool, left.values()))
            api = sum(map(resident_mib, server.api_processes()))
            engine = sum(map(resident_mib, server.engines()))
            sizes["API"].append(api)
            sizes["engine"].append(engine)
            print(
                f"{minutes:6.1f} min: answered {ledger.answered}, refused {ledger.refused}, API "
                f"{api:.0f} MiB, engine {engine:.0f} MiB, files {server.num_files()}, lost {lost}",
                flush=True,
            )
            for kind, count in ledger.lost.items():
                print("  lost:", count, kind)
    finally:
        server.process.send_signal(signal.SIGTERM)
        server.process.wait(timeout=60)
    grown = {kind: each[-1] / each[len(each) // 4] - 1 for kind, each in sizes.items()}
    told = ", ".join(f"{kind} {share:+.1%}" for kind, share in grown.items())
    print(f"memory after a quarter of the time: {told}; lost: {lost}")
    if args.kill_every:
        del grown["engine"]
    return 1 if lost or max(grown.values()) > MAX_GROWTH else 0


if __name__ == "__main__":
    raise SystemExit(asyncio.run(main()))
