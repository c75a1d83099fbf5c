"""What counts as lost, and a short run against a real server."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from tests.checkpoints import make

from jackfield.cli.bench import chaos
from jackfield.cli.bench.chaos_clients import _answer_outcome, _stream_outcome
from jackfield.cli.bench.garbage import garbage

TOKEN = b'data: {"choices":[{"text":"a"}]}\n\n'
USAGE = b'data: {"choices":[],"usage":{"completion_tokens":2}}\n\n'
DONE = b"data: [DONE]\n\n"


def error(code: str) -> bytes:
    return b"data: " + json.dumps({"error": {"code": code}}).encode() + b"\n\n"


@pytest.mark.parametrize(
    ("stream", "outcome"),
    [
        (TOKEN + USAGE + DONE, "answered"),
        (TOKEN + error("engine_dead") + DONE, "told"),
        (TOKEN + error("other") + DONE, "stream error {'code': 'other'}"),
        (TOKEN + USAGE, "a stream without its end"),
        (TOKEN + USAGE + DONE + TOKEN, "a stream without its end"),
    ],
)
def test_a_stream_is_answered_told_or_lost(stream: bytes, outcome: str) -> None:
    assert _stream_outcome(stream, 2) == outcome


def test_tokens_are_counted() -> None:
    answer = json.dumps({"usage": {"completion_tokens": 3}}).encode()
    assert _answer_outcome(answer, 3) == "answered"
    assert _answer_outcome(answer, 4) == "3 tokens in place of 4"
    assert _stream_outcome(TOKEN + USAGE + DONE, 3) == "2 tokens in place of 3"


def test_garbage_is_repeatable_and_varied() -> None:
    first = [garbage(random.Random(seed)) for seed in range(300)]
    assert first == [garbage(random.Random(seed)) for seed in range(300)]
    assert len(set(first)) > 270 and len({path for path, _ in first}) >= 6


def test_a_short_run_loses_nothing(tmp_path: Path) -> None:
    result = tmp_path / "chaos.json"
    words = [
        str(make("Qwen3ForCausalLM")), "--device", "cpu", "--max-model-len", "512",
        "--cpu-kv-cache-gib", "0.05", "--duration", "5", "--clients", "6", "--leavers", "2",
        "--slow-readers", "1", "--nonsense", "1", "--kill-every", "3",
        "--result-filename", str(result),
    ]  # fmt: skip
    assert chaos.main(words) == 0
    values = json.loads(result.read_text())
    assert values["lost"] == 0 and values["requests answered"] > 0 and values["engines killed"] == 1
