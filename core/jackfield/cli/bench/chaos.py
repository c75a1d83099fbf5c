"""``jackfield bench chaos``: load and faults at once on a server of its own; what was lost?

A request is lost if it was taken and has no right end: no answer, a broken connection, fewer
tokens than asked for, a stream without its end, a 500. An honest refusal (429 or 503) is no loss,
nor is the error event that ends a stream whose engine was killed.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path

from jackfield.cli.bench import chaos_clients as clients
from jackfield.cli.bench.chaos_clients import Ledger
from jackfield.cli.bench.http_client import Address
from jackfield.cli.bench.statistics import report
from jackfield.config.line_parser import LineParser
from jackfield.errors import EngineError

START_SECONDS = 600.0
SETTLE_SECONDS = 20.0


class Server:
    """A ``jackfield serve`` on a free port, as its operator sees it."""

    def __init__(self, words: list[str]) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        command = [sys.executable, "-m", "jackfield", "serve", *words]
        command += ["--host", "127.0.0.1", "--port", str(port)]
        self.process = subprocess.Popen(command)

    def engines(self) -> list[int]:
        """Process ids of the engines that this server has now."""
        return self._children("jackfield.engine.process")

    def api_processes(self) -> list[int]:
        """Process ids of those that answer requests: its own, unless there are several."""
        return self._children("jackfield.cli.api_process") or [self.process.pid]

    def _children(self, module: str) -> list[int]:
        found: list[int] = []
        for task in Path(f"/proc/{self.process.pid}/task").iterdir():
            with suppress(OSError):
                for pid in (task / "children").read_text().split():
                    if module.encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                        found.append(int(pid))
        return found

    def num_files(self) -> int:
        """Open file descriptors of the processes that answer requests."""
        return sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in self.api_processes())

    def cpu_seconds(self) -> tuple[float, float]:
        """What the processes that answer requests have computed so far, and the engine of now."""
        return _cpu_seconds(self.api_processes()), _cpu_seconds(self.engines())

    def status(self, path: str) -> int:
        """The HTTP status of a GET; 0 if there is none."""
        try:
            with urllib.request.urlopen(self.url + path, timeout=5) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return 0

    def metric(self, name: str) -> float:
        """The value of one metric."""
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=5) as answer:
            text: str = answer.read().decode()
        found = re.search(rf"^jackfield:{name}{{[^}}]*}} (\S+)$", text, re.M)
        return float(found[1]) if found else float("nan")

    def wait_ready(self, seconds: float) -> float:
        """How long it took until requests were served."""
        begin = time.monotonic()
        while self.status("/health/ready") != 200:
            if self.process.poll() is not None or time.monotonic() - begin > seconds:
                raise EngineError("the server does not become ready")
            time.sleep(0.05)
        return time.monotonic() - begin


def _cpu_seconds(pids: list[int]) -> float:
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def main(argv: list[str]) -> int:
    """Takes its own options and those of ``jackfield serve``; the exit status is 1 where anything
    was lost or left behind."""
    args, rest = _parser().parse_known_args(argv)
    server = Server(rest)
    try:
        server.wait_ready(START_SECONDS)
        num_files = server.num_files()
        ledger, recoveries = asyncio.run(_run(server, args))
        left = _left_behind(server, num_files)
    finally:
        server.process.send_signal(signal.SIGTERM)
        status = server.process.wait(timeout=60)
    values: dict[str, object] = {
        "seconds": args.duration,
        "requests answered": ledger.answered,
        "requests refused (429, 503)": ledger.refused,
        "streams ended by an error event": ledger.told,
        "engines killed": len(recoveries),
        "slowest recovery, s": max(recoveries, default=0.0),
        "without an engine, s": sum(recoveries),
        **dict(sorted(ledger.faults.items())),
        **left,
        "exit status of the server": status,
        "lost": sum(ledger.lost.values()),
    }
    values.update((f"lost: {kind}"[:120], count) for kind, count in ledger.lost.most_common(10))
    report("Chaos", values, args.result_filename)
    return 1 if ledger.lost or any(left.values()) or status else 0


async def _run(server: Server, args: argparse.Namespace) -> tuple[Ledger, list[float]]:
    ledger = Ledger()
    address = Address.parse(server.url)
    crowd: list[clients.Client] = [clients.good_client] * args.clients
    crowd += [clients.leaver] * args.leavers + [clients.slow_reader] * args.slow_readers
    crowd += [clients.nonsense_sender, clients.broken_speaker] * args.nonsense
    tasks = [
        asyncio.create_task(client(address, ledger, random.Random(args.seed + index)))
        for index, client in enumerate(crowd)
    ]
    recoveries: list[float] = []
    end = time.monotonic() + args.duration
    while (left := end - time.monotonic()) > 0:
        await asyncio.sleep(min(args.kill_every or left, left))
        if args.kill_every and left > args.kill_every:
            recoveries.append(await asyncio.to_thread(_kill, server))
    for task in tasks:
        task.cancel()
    for outcome in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(outcome, Exception):
            ledger.lost[f"{type(outcome).__name__} in a client: {outcome}"] += 1
    return ledger, recoveries


def _kill(server: Server) -> float:
    for pid in server.engines():
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    while server.status("/health/ready") == 200:
        time.sleep(0.01)
    return server.wait_ready(START_SECONDS)


def _left_behind(server: Server, num_files: int) -> dict[str, object]:
    """What is still in use once every client is gone; all 0 where nothing leaks."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while True:
        left: dict[str, object] = {
            "left running": server.metric("num_requests_running"),
            "left waiting": server.metric("num_requests_waiting"),
            "left KV blocks (share)": server.metric("kv_cache_usage_perc"),
            "left requests in the server": _load(server),
            "left file descriptors": max(0, server.num_files() - num_files),
            "engines too many": max(0, len(server.engines()) - 1),
        }
        if not any(left.values()) or time.monotonic() > deadline:
            return left
        time.sleep(0.2)


def _load(server: Server) -> int:
    with urllib.request.urlopen(f"{server.url}/load", timeout=5) as answer:
        return int(re.sub(rb"\D", b"", answer.read()))


def _parser() -> argparse.ArgumentParser:
    parser = LineParser(
        prog="jackfield bench chaos",
        description="Load and faults at once. Other options are those of `jackfield serve`, which "
        "it starts.",
    )
    add = parser.add_argument
    add("--duration", type=float, default=60.0, help="seconds of load")
    add("--clients", type=int, default=32, help="well-behaved clients, one request at a time")
    add("--leavers", type=int, default=8, help="clients that leave before their answer")
    add("--slow-readers", type=int, default=4, help="clients that hardly read")
    add("--nonsense", type=int, default=2, help="senders of wrong bodies, and of broken HTTP")
    add("--kill-every", type=float, default=10.0, help="seconds between kills; 0: none")
    add("--seed", type=int, default=0)
    add("--result-filename", help="write the values as JSON")
    return parser
