"""A GGUF file served by Jackfield and by llama.cpp over HTTP, in turn, with the same load.

    python bench/gguf_beside_llama_cpp.py FILE.gguf --threads 2 \\
        --llama "PYTHON -m llama_cpp.server --model {file} --port {port} --n_threads {threads}
                 --n_threads_batch {threads} --n_ctx {context}"

``--llama`` is the command of a server that has ``/v1/completions`` and ``/v1/models``; without it
that of llama-cpp-python, of this Python, is started. Prints milliseconds a token while so many
clients decode, and milliseconds of a fresh prompt up to its first token: by the clock, and of
processor time of all processes of a server, which other programs on the machine disturb less.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import random
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

LLAMA = (
    f"{sys.executable} -m llama_cpp.server --model {{file}} --port {{port}} "
    "--n_threads {threads} --n_threads_batch {threads} --n_ctx {context}"
)
JACKFIELD = (
    f"{sys.executable} -m jackfield serve {{file}} --port {{port}} --num-threads {{threads}} "
    "--max-model-len {context}"
)
CONTEXT = 2048
FIRST_PORT = 8431
START_SECONDS = 180.0
REQUEST_SECONDS = 300.0
Measured = tuple[float, float]
"""Milliseconds by the clock, milliseconds of processor time."""


class Usage(NamedTuple):
    """Tokens of a request."""

    prompt: int
    completion: int


@dataclass(frozen=True)
class Server:
    """A running one."""

    pid: int
    port: int
    model: str

    def complete(self, prompt: str, tokens: int) -> Usage:
        """Raises RuntimeError where fewer tokens come than asked for. llama-cpp-python gives one
        more where the last one ends inside a character."""
        body = {
            "model": self.model,
            "prompt": prompt,
            "max_tokens": tokens,
            "temperature": 0,
            "ignore_eos": True,
        }
        usage = ask(self.port, "POST", "/v1/completions", body)["usage"]
        found = Usage(int(usage["prompt_tokens"]), int(usage["completion_tokens"]))
        if found.completion < tokens:
            raise RuntimeError(f"port {self.port}: {usage} instead of {tokens} tokens")
        return found

    def timed(self, run: Callable[[], object]) -> Measured:
        """What it takes, and what the server's processes do for it."""
        clock, used = time.perf_counter(), processor_seconds(self.pid)
        run()
        return (
            1e3 * (time.perf_counter() - clock),
            1e3 * (processor_seconds(self.pid) - used),
        )

    def prompt(self, text: str) -> Measured:
        """Of a prompt that the server has not seen."""
        return self.timed(lambda: self.complete(text, 1))

    def decode(self, texts: list[str], tokens: int) -> Measured:
        """Of a token, while each text has a client of its own; prompts are cached before."""

        usages: list[Usage] = []

        def generate(count: int) -> Measured:
            with ThreadPoolExecutor(len(texts)) as pool:
                return self.timed(
                    lambda: usages.extend(pool.map(lambda t: self.complete(t, count), texts))
                )

        generate(1)
        usages.clear()
        once = generate(1)
        before = sum(usage.completion for usage in usages)
        usages.clear()
        whole = generate(1 + tokens)
        more = sum(usage.completion for usage in usages) - before
        return (whole[0] - once[0]) / more, (whole[1] - once[1]) / more


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path)
    parser.add_argument("--llama", default=LLAMA, help="the other server's command")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=24)
    parser.add_argument("--words", type=int, default=12, help="of a prompt, times 9 in tokens")
    parser.add_argument("--clients", type=int, nargs="+", default=[1])
    parser.add_argument("--rounds", type=int, default=6)
    args = parser.parse_args()
    source = random.Random(7)
    found: dict[tuple[str, str], list[Measured]] = {}
    with ExitStack() as stack:
        servers = {
            name: stack.enter_context(serving(command, args.file, FIRST_PORT + place, args.threads))
            for place, (name, command) in enumerate(
                {"jackfield": JACKFIELD, "llama.cpp": args.llama}.items()
            )
        }
        text = text_of(source, args.words)
        sizes = {name: server.complete(text, 1).prompt for name, server in servers.items()}
        print("tokens of a prompt:", sizes)
        for turn in range(args.rounds):
            fresh = text_of(source, args.words)
            texts = [text_of(source, 8) for _ in range(max(args.clients))]
            for name in list(servers)[:: 1 if turn % 2 == 0 else -1]:
                server = servers[name]
                found.setdefault((name, "prompt"), []).append(server.prompt(fresh))
                for count in args.clients:
                    measured = server.decode(texts[:count], args.tokens)
                    found.setdefault((name, f"token, {count} clients"), []).append(measured)
    for (name, what), rounds in sorted(found.items(), key=lambda entry: entry[0][1]):
        columns = zip(("clock", "processor"), zip(*rounds, strict=True), strict=True)
        figures = "  ".join(
            f"{kind}: best {min(each):7.1f} median {statistics.median(each):7.1f}"
            for kind, each in columns
        )
        print(f"{what:18} {name:10} {figures}")


@contextmanager
def serving(command: str, file: Path, port: int, threads: int) -> Iterator[Server]:
    """A server from its command on until it is left; its output goes to the null device."""
    filled = command.format(file=file, port=port, threads=threads, context=CONTEXT)
    with subprocess.Popen(
        shlex.split(filled),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            yield ready(process, port)
        finally:
            process.terminate()


def ready(process: subprocess.Popen[bytes], port: int) -> Server:
    """The server, when it has completed something."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            model = str(ask(port, "GET", "/v1/models")["data"][0]["id"])
            server = Server(process.pid, port, model)
            server.complete("ready", 1)
            return server
        except (OSError, http.client.HTTPException, RuntimeError):
            time.sleep(0.2)
    raise SystemExit(f"{process.args!r} does not answer")


def ask(port: int, method: str, path: str, body: object = None) -> dict[str, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=REQUEST_SECONDS)
    try:
        connection.request(
            method,
            path,
            None if body is None else json.dumps(body),
            {"Content-Type": "application/json"},
        )
        response = connection.getresponse()
        content = response.read()
        if response.status != 200:
            raise RuntimeError(f"{path}: {response.status} {content[:200]!r}")
        answer: dict[str, Any] = json.loads(content)
        return answer
    finally:
        connection.close()


def text_of(source: random.Random, words: int) -> str:
    """A prompt that no other begins like."""
    return " ".join(f"{source.randrange(10_000)} is the number;" for _ in range(words))


def processor_seconds(root: int) -> float:
    """Of a process and all that it started."""
    ticks, waiting = 0, [root]
    while waiting:
        process = Path(f"/proc/{waiting.pop()}")
        fields = (process / "stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
        for listed in process.glob("task/*/children"):
            waiting += map(int, listed.read_text().split())
    return ticks / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
