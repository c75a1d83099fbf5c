"""``jackfield run-batch`` as a whole: the model in the box answers a file."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from jackfield.cli.main import main

ENGINE = ["--num-threads", "1", "--cpu-kv-cache-gib", "0.125"]


def request(custom_id: str, url: str, **body: Any) -> str:
    entry = {"custom_id": custom_id, "method": "POST", "url": url, "body": body}
    return json.dumps(entry)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    hello = [{"role": "user", "content": "Hello!"}]
    lines = [
        request("chat", "/v1/chat/completions", messages=hello, max_tokens=4, temperature=0),
        "nonsense",
        request("text", "/v1/completions", prompt="Once", max_tokens=3),
    ]
    path = tmp_path / "in.jsonl"
    path.write_text("\n".join(lines))
    return path


def test_a_file_is_answered_line_by_line(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.jsonl"
    words = [sys.executable, "-m", "jackfield", "run-batch", "-i", str(source), "-o", str(target)]
    # An option that only a server has an effect of, as a config file for both may have it.
    words += ["--api-server-count", "2"]
    done = subprocess.run([*words, *ENGINE], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert "--api-server-count has no effect" in done.stderr
    chat, bad, text = map(json.loads, target.read_text().splitlines())
    assert (chat["custom_id"], bad["custom_id"], text["custom_id"]) == ("chat", None, "text")
    assert chat["response"]["body"]["usage"]["completion_tokens"] == 4
    assert text["response"]["body"]["choices"][0]["finish_reason"] == "length"
    assert bad["error"]["code"] == "invalid_json_line"


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ("-i {in}", "-o/--output-file"),
        ("-i {in} -o {in}", "same file"),
        ("-i {in}.no -o {out}", "cannot be read"),
        ("--input_file {in} --output_file {out} --max-model-length 3", "did you mean"),
    ],
)
def test_what_cannot_work_is_said_before_a_model_is_loaded(
    words: str, complaint: str, source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = {"in": str(source), "out": str(source.parent / "out.jsonl")}
    assert main(["run-batch", *words.format(**places).split()]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("jackfield: error: ") and complaint in said
