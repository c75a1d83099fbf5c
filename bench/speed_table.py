"""Every speed figure of one model on one GPU, in one run: start, latency, throughput, HTTP load.

    python bench/speed_table.py DIR [--anchors qwen3-0.6b] [--out FILE] [--skip PART]
        [options of jackfield serve]

The server is started with nothing cached (kernels are compiled), then again; the second one takes
the load. Then ``bench/anchors.py`` measures in one engine without a server. ``--anchors`` puts
vLLM 0.26's figures on the same kind of machine (23 November 2026) beside ours.

Every row over HTTP has prompts of its own, and warms up with others, as many at once as it has
clients: nothing measured is in the prefix cache. ``prefix_hits`` in a row is the share of its
prompt tokens that was found there all the same.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from jackfield.cli.bench.chaos import Server

BENCH = Path(__file__).resolve().parent
START_SECONDS = 300
PARTS = ("first-start", "http", "engine")


@dataclass(frozen=True)
class Load:
    """Clients that each wait for an answer before they ask again."""

    name: str
    clients: int
    requests: int
    input_len: int
    output_len: int


LOADS = (
    Load("1 client", 1, 8, 128, 256),
    Load("1 client, long prompt", 1, 8, 4096, 1),
    Load("64 clients", 64, 256, 512, 256),
    Load("256 clients", 256, 1024, 512, 256),
    Load("512 clients", 512, 2048, 32, 256),
)

# Milliseconds where not said; rows over HTTP: output tokens a second, median time to first token.
ANCHORS: dict[str, dict[str, str]] = {
    "qwen3-0.6b": {
        "start, nothing cached, s": "75",
        "ttft_128": "7.7",
        "ttft_1024": "17.2",
        "ttft_8192": "44.8",
        "ttft_32000": "300",
        "decode_b1": "1.58",
        "decode_b8": "1.66",
        "decode_b32": "1.95",
        "decode_b128": "3.15",
        "decode_b256": "5.85",
        "mix256": "23,399",
        "1 client": "- / 10.6",
        "1 client, long prompt": "- / 20.3",
        "64 clients": "17,897 / 78",
        "256 clients": "18,988 / 428",
        "512 clients": "20,104 / 447",
    },
    "qwen3-8b": {
        "start, nothing cached, s": "80",
        "ttft_128": "10.2",
        "ttft_1024": "28.2",
        "ttft_8192": "221",
        "ttft_32000": "1,219",
        "decode_b1": "5.19",
        "decode_b8": "5.50",
        "decode_b32": "5.68",
        "decode_b128": "7.67",
        "decode_b256": "11.69",
        "mix256": "9,444",
        "1 client": "- / 14.6",
        "1 client, long prompt": "- / 106.7",
        "64 clients": "6,368 / 470",
        "256 clients": "9,376 / 1,736",
        "512 clients": "22,282 / 533",
    },
}


@contextmanager
def served(directory: str, options: list[str]) -> Iterator[tuple[float, Server]]:
    """Seconds until a server answered, and the server; it is drained at the end."""
    server = Server([directory, "--max-num-seqs", "512", *options])
    try:
        yield server.wait_ready(START_SECONDS), server
    finally:
        server.process.send_signal(signal.SIGTERM)
        server.process.wait()


def load_row(load: Load, directory: str, server: Server, seed: int) -> dict[str, object]:
    """What ``jackfield bench serve`` finds for one load; ``seed`` is that of its prompts."""
    before = server.metric("prompt_tokens_cached_total")
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.json"
        options = {
            "--base-url": server.url,
            "--model": directory,
            "--max-concurrency": load.clients,
            "--num-prompts": load.requests,
            "--num-warmups": load.clients,
            "--seed": seed,
            "--random-input-len": load.input_len,
            "--random-output-len": load.output_len,
            "--result-filename": result,
        }
        words = [str(word) for pair in options.items() for word in pair]
        command = [sys.executable, "-m", "jackfield", "bench", "serve", "--disable-tqdm", *words]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        found = json.loads(result.read_text())
    cached = server.metric("prompt_tokens_cached_total") - before
    return {
        "row": load.name,
        "tok_per_s": found["output_throughput"],
        "ttft_ms": found["median_ttft_ms"],
        "tpot_ms": found.get("median_tpot_ms"),
        "failed": load.requests - found["completed"],
        "prefix_hits": cached / found["total_input_tokens"],
    }


def rows(directory: str, options: list[str], skip: list[str]) -> Iterator[dict[str, object]]:
    """One dictionary a figure, in the order in which they are measured."""
    with tempfile.TemporaryDirectory() as cache:
        os.environ.update(XDG_CACHE_HOME=cache, TRITON_CACHE_DIR=f"{cache}/triton")
        if "first-start" not in skip:
            with served(directory, options) as (seconds, _):
                yield {"row": "start, nothing cached, s", "s": seconds}
        if "http" not in skip:
            with served(directory, options) as (seconds, server):
                yield {"row": "start, kernels cached, s", "s": seconds}
                for seed, load in enumerate(LOADS):
                    yield load_row(load, directory, server, seed)
        if "engine" not in skip:
            yield from engine_rows(directory, options)


def engine_rows(directory: str, options: list[str]) -> Iterator[dict[str, object]]:
    """What ``bench/anchors.py`` finds but for its start."""
    command = [sys.executable, str(BENCH / "anchors.py"), directory]
    with subprocess.Popen(
        [*command, "--no-enable-prefix-caching", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as engine:
        assert engine.stdout is not None
        for line in engine.stdout:
            row = json.loads(line)
            if row["row"] != "start":
                yield row


def text_of(row: dict[str, object]) -> str:
    """A figure as the table shows it."""
    if "ttft_ms" in row:
        return f"{row['tok_per_s']:,.0f} / {row['ttft_ms']:.1f}"
    (value,) = (row[key] for key in ("s", "ms", "tok_per_s") if key in row)
    assert isinstance(value, float)
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def main() -> int:
    """Prints each row as it is measured, then the table."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("directory")
    parser.add_argument("--anchors", choices=sorted(ANCHORS), default=None)
    parser.add_argument("--out", help="adds the rows to this file, as JSON lines")
    parser.add_argument("--skip", action="append", choices=PARTS, default=[])
    args, options = parser.parse_known_args()
    anchors = ANCHORS.get(args.anchors, {})
    lines = ["| figure | ours | vLLM |", "| --- | --- | --- |"]
    for row in rows(args.directory, options, args.skip):
        print(json.dumps(row), flush=True)
        if args.out:
            with open(args.out, "a", encoding="utf-8") as out:
                out.write(json.dumps({"model": args.directory, **row}) + "\n")
        lines.append(f"| {row['row']} | {text_of(row)} | {anchors.get(str(row['row']), '')} |")
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
