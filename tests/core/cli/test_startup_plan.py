"""What `jackfield serve` prints before it serves: one short plan."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from importlib.metadata import version

from tests.checkpoints import make
from tests.serving import free_port

SECONDS = 60


def test_a_start_tells_its_plan_in_at_most_15_lines() -> None:
    directory = make("Qwen3ForCausalLM")
    port = free_port()
    words = [str(directory), "--device", "cpu", "--port", str(port), "--host", "127.0.0.1"]
    more = ["--use-v2-block-manager", "--reasoning-parser", "qwen3", "--max-model-len", "256"]
    command = [sys.executable, "-m", "jackfield", "serve", *words, *more]
    lines: list[str] = []
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        for line in server.stderr:
            lines.append(line.rstrip())
            if ": serving " in line:
                break
        server.send_signal(signal.SIGINT)
        server.communicate(timeout=SECONDS)
    told = [line for line in lines if not line.startswith("Loading weights")]
    assert len(told) <= 15, told
    text = "\n".join(told)
    for part in (
        f"model {directory}",
        "Qwen3ForCausalLM, float32 on cpu, attention: cpu, quantization: none, matrix products: ",
        "--use-v2-block-manager has no effect: there is one block manager; leave it out",
        f"(jackfield {version('jackfield')})",
        "reasoning_parsers qwen3",
        f"http://127.0.0.1:{port}",
    ):
        assert part in text, part
    assert re.search(r"KV cache: \d+ tokens in \d+ blocks", text)
    assert re.search(r"context 256 tokens, [\d,]+ KV blocks of 16", text)
