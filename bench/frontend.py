"""How many requests and tokens a second the service itself can do: a tiny model, 64 clients.

    python bench/frontend.py DIR [--clients 64] [--seconds 5] [--rounds 3] [--no-model]
        [options of serve]

DIR holds a model so small that computing it hardly counts; with --no-model nothing is computed at
all, and what is left is the service alone. Prints a line for whole one-token
completions, streamed ones, and long streams: the rate by the clock, and the CPU time that each
process spent on a request or token. On a machine with other work the CPU time is what can be
compared.
"""

from __future__ import annotations

import argparse
import json
import os
import selectors
import signal
import socket
import time
from dataclasses import dataclass, field
from pathlib import Path

from jackfield.cli.bench.chaos import START_SECONDS, Server

TICKS = os.sysconf("SC_CLK_TCK")
STREAM_END = b"data: [DONE]\n\n"


@dataclass
class Traffic:
    """One kind of request, and how to see the end of its answer."""

    name: str
    tokens: int
    stream: bool
    body: bytes = field(init=False)

    def __post_init__(self) -> None:
        body = {"prompt": [7, 8, 9, 10], "max_tokens": self.tokens, "temperature": 0}
        body |= {"ignore_eos": True, "stream": self.stream}
        data = json.dumps(body).encode()
        head = b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
        self.body = head + b"Content-Length: %d\r\n\r\n" % len(data) + data

    def is_over(self, answer: bytearray) -> bool:
        """Whether the answer is complete."""
        if self.stream:
            return answer.endswith(b"\r\n0\r\n\r\n")
        return answer.endswith(b"}") and b"\r\n\r\n" in answer


class Clients:
    """Connections that each send one request after the other. As little work as can be: what
    these cost is taken from the server on the same cores."""

    def __init__(self, port: int, count: int, traffic: Traffic) -> None:
        self._traffic = traffic
        self._selector = selectors.EpollSelector()
        self._answers: dict[socket.socket, bytearray] = {}
        self.num_tokens = 0
        for _ in range(count):
            connection = socket.create_connection(("127.0.0.1", port))
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.setblocking(False)
            self._selector.register(connection, selectors.EVENT_READ)
            self._answers[connection] = bytearray()

    def run(self, seconds: float) -> float:
        """Loads the server for so long; returns the seconds it really took."""
        begin = time.perf_counter()
        for connection in self._answers:
            connection.send(self._traffic.body)
        while (now := time.perf_counter()) - begin < seconds:
            for key, _ in self._selector.select(1.0):
                assert isinstance(key.fileobj, socket.socket)
                self._read(key.fileobj)
        return now - begin

    def _read(self, connection: socket.socket) -> None:
        answer = self._answers[connection]
        data = connection.recv(65536)
        if not data:
            raise ConnectionError("the server closed a connection")
        answer += data
        if self._traffic.is_over(answer):
            if not answer.startswith(b"HTTP/1.1 200"):
                raise ValueError(f"not answered: {bytes(answer[:300])!r}")
            if self._traffic.stream and STREAM_END not in answer[-40:]:
                raise ValueError(f"a stream without its end: {bytes(answer[-300:])!r}")
            answer.clear()
            # Not the events: a server that is behind puts several tokens into one.
            self.num_tokens += self._traffic.tokens
            connection.send(self._traffic.body)

    def close(self) -> None:
        """Leaves; the server aborts what it was computing."""
        for connection in self._answers:
            connection.close()
        self._selector.close()


def cpu_seconds(pid: int) -> float:
    """CPU time that a process and its ended children have used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def measure(server: Server, port: int, clients: int, traffic: Traffic, seconds: float) -> None:
    """Runs one kind of traffic and prints its line."""
    crowd = Clients(port, clients, traffic)
    crowd.run(0.5)
    processes = {"API": server.api_processes(), "engine": server.engines()}
    before = {name: sum(map(cpu_seconds, pids)) for name, pids in processes.items()}
    own, count = time.process_time(), crowd.num_tokens
    took = crowd.run(seconds)
    own = time.process_time() - own
    count = crowd.num_tokens - count
    spent = {name: sum(map(cpu_seconds, pids)) - before[name] for name, pids in processes.items()}
    crowd.close()
    if not count:
        raise ValueError(f"{traffic.name}: no token came in {took:.1f} s")
    costs = ", ".join(f"{name} {1e6 * value / count:.1f}" for name, value in spent.items())
    print(
        f"{traffic.name:<24} {count / took:8.0f} /s   CPU us each: {costs}, "
        f"clients {1e6 * own / count:.1f}",
        flush=True,
    )
    time.sleep(0.5)


def main() -> None:
    """Starts the server and measures in rounds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=100)
    parser.add_argument("--no-model", action="store_true", help="see no_model.py")
    args, words = parser.parse_known_args()
    if args.no_model:
        os.environ["PYTHONPATH"] = f"{Path(__file__).parent}:{os.environ.get('PYTHONPATH', '')}"
        words += ["--worker-cls", "no_model:NoModelWorker"]
    kinds = (
        Traffic("one-token completions", 1, stream=False),
        Traffic("the same, streamed", 1, stream=True),
        Traffic("streamed tokens", args.tokens, stream=True),
    )
    server = Server(words)
    try:
        server.wait_ready(START_SECONDS)
        port = int(server.url.rpartition(":")[2])
        for _ in range(args.rounds):
            for traffic in kinds:
                measure(server, port, args.clients, traffic, args.seconds)
    finally:
        server.process.send_signal(signal.SIGTERM)
        server.process.wait(timeout=60)


if __name__ == "__main__":
    main()
