"""Hours of mixed load on a server of its own: does anything grow?

    python bench/soak.py MODEL [options of jackfield serve] [--minutes 60] [--kill-every 0]

Every minute a line with requests, resident memory of both processes, open files, and requests lost.
After a quarter of the time memory should be flat; the exit status is 1 where that of the API
process grew by more than 10 % from then on, or anything was lost or left behind.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import time
from pathlib import Path

from jackfield.cli.bench import chaos
from jackfield.cli.bench.chaos import Server


def resident_mib(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return 0.0


async def main() -> int:
    parser = argparse.ArgumentParser(description="Mixed load for hours.", allow_abbrev=False)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--kill-every", type=float, default=0.0)
    args, words = parser.parse_known_args()
    server = Server(words)
    lost = 0
    sizes: list[float] = []
    try:
        server.wait_ready(chaos.START_SECONDS)
        num_files = server.num_files()
        options = chaos._parser().parse_args(["--kill-every", str(args.kill_every)])
        options.duration = min(60.0, args.minutes * 60)
        begin = time.monotonic()
        while (minutes := (time.monotonic() - begin) / 60) < args.minutes:
            ledger, _ = await chaos._run(server, options)
            left = await asyncio.to_thread(chaos._left_behind, server, num_files)
            lost += sum(ledger.lost.values()) + sum(map(bool, left.values()))
            api = resident_mib(server.process.pid)
            sizes.append(api)
            engine = sum(map(resident_mib, server.engines()))
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
    settled = sizes[len(sizes) // 4]
    grown = sizes[-1] / settled - 1
    print(f"memory of the API process after a quarter of the time: {grown:+.1%}; lost: {lost}")
    return 1 if lost or grown > 0.1 else 0


if __name__ == "__main__":
    raise SystemExit(asyncio.run(main()))
