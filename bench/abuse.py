"""A hostile client, class by class, against a server of its own: what does not hold?

    python bench/abuse.py [MODEL] [options of jackfield serve]

Each case must be refused with a status that fits and an error object (or be answered, where it is
odd and no mistake): no 5xx but 503, no traceback and no path of a file in the text. After each a
request that is right must be answered, and so must others all the while, none later than
``WAIT_SECONDS``. Prints what was tried and what did not hold; the exit status is 1 where anything
did not.
"""

from __future__ import annotations

import json
import re
import signal
import socket
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

from abuse_cases import CLASSES, KEY, TEXT, Case, text

from jackfield.cli.bench.chaos import START_SECONDS, Server
from jackfield.cli.bench.http_client import Address

SECONDS = 10.0
"""The longest that any answer may take; a grammar that is hard to compile has two."""
WAIT_SECONDS = 3.0
RIGHT = Case(TEXT, b'{"prompt": "a", "max_tokens": 1, "temperature": 0}', allowed=frozenset((200,)))
LEAKS = ("Traceback", "site-packages", str(Path(__file__).parents[1]), ".py")


def send(address: Address, case: Case) -> tuple[int, bytes]:
    """The status of the answer and its body; 0 where the connection ended without one. Raises
    ``TimeoutError`` where it does not end."""
    with socket.create_connection((address.host, address.port), timeout=SECONDS) as connection:
        # A server may close before it has read everything.
        with suppress(ConnectionError):
            connection.sendall(case.raw if case.raw is not None else written(address, case))
            if not case.reads:
                time.sleep(0.01)
                return 0, b""
            if case.raw is not None:
                connection.shutdown(socket.SHUT_WR)
        answer = b""
        with suppress(ConnectionError):
            while piece := connection.recv(65536):
                answer += piece
    head, _, body = answer.partition(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head)
    status = re.match(rb"HTTP/1.1 (\d+)", head)
    return int(status[1]) if status else 0, body[: int(length[1])] if length else body


def written(address: Address, case: Case) -> bytes:
    lines = [f"{case.method} {case.path} HTTP/1.1", f"Host: {address.host}:{address.port}"]
    lines += [f"{name}: {value}" for name, value in case.headers.items()]
    lines += ["Content-Type: application/json", f"Content-Length: {len(case.body)}"]
    return "\r\n".join([*lines, "Connection: close\r\n\r\n"]).encode("latin-1") + case.body


def complaint(case: Case, status: int, body: bytes) -> str:
    """What is wrong with an answer; empty where it is right."""
    if not case.reads or (case.raw is not None and status == 0):
        return ""
    if status not in case.allowed:
        return f"status {status}"
    said = body.decode(errors="replace")
    if status >= 400 and case.method != "HEAD":
        try:
            if not json.loads(said)["error"]["message"]:
                return "no message"
        except (ValueError, KeyError, TypeError):
            return "no error object"
        if any(leak in said for leak in LEAKS):
            return "a path or a traceback in the text"
    return ""


class Bystander(threading.Thread):
    """A client that does nothing wrong, and measures how long it waits."""

    def __init__(self, address: Address) -> None:
        super().__init__(daemon=True)
        self._address = address
        self._over = threading.Event()
        self.slowest = 0.0

    def run(self) -> None:
        while not self._over.wait(0.05):
            began = time.monotonic()
            with suppress(TimeoutError):
                send(self._address, RIGHT)
            self.slowest = max(self.slowest, time.monotonic() - began)

    def end(self) -> None:
        self._over.set()
        self.join()


def run(address: Address) -> int:
    """How many cases did not hold, and classes in which others waited for too long."""
    wrong = 0
    # An engine loads the grammars' libraries once, soon after its start: not what is measured here.
    for grammar in ({"json": {"type": "boolean"}}, {"regex": "a|b"}):
        send(address, text(structured_outputs=grammar))
    for name, cases in CLASSES.items():
        tried, bystander = 0, Bystander(address)
        bystander.start()
        for case in cases():
            tried += 1
            try:
                status, body = send(address, case)
                fault = complaint(case, status, body)
                alive, _ = send(address, RIGHT)
                fault = fault or ("" if alive == 200 else f"then a right request had {alive}")
            except TimeoutError:
                status, body, fault = 0, b"", "no end"
            if fault:
                wrong += 1
                sent = case.raw if case.raw is not None else case.body
                print(
                    f"  {name}: {fault}: {case.method} {case.path} {sent[:150]!r}: {body[:200]!r}"
                )
        bystander.end()
        waited = bystander.slowest
        print(f"{name}: {tried} tried, others waited for {waited:.2f} s at most", flush=True)
        wrong += waited > WAIT_SECONDS
    return wrong


def main() -> int:
    """Starts the server and tries every class."""
    server = Server([*sys.argv[1:], "--api-key", KEY])
    try:
        server.wait_ready(START_SECONDS)
        engines = server.engines()
        wrong = run(Address.parse(server.url))
        replaced = server.engines() != engines
    finally:
        server.process.send_signal(signal.SIGTERM)
        status = server.process.wait(timeout=60)
    print(f"not held: {wrong}; engine replaced: {replaced}; exit status {status}")
    return 1 if wrong or replaced or status else 0


if __name__ == "__main__":
    raise SystemExit(main())
