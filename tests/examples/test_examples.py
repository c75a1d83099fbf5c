"""The example packages: their wheels beside Jackfield's, in a clean environment, serving."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file
from tests.checkpoints import make
from tests.examples.conftest import EXAMPLES, ROOT
from tests.serving import serving

DISTRIBUTIONS = {f"jackfield-{path.name}" for path in EXAMPLES}
CALL = 'CALL weather {"city": "Bern"}'


def test_there_are_five_and_each_passes_its_own_tests() -> None:
    assert len(EXAMPLES) == 5
    sources = [str(path / "src") for path in EXAMPLES]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sources)}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull]
    command += ["-W", "error", "-o", "asyncio_default_fixture_loop_scope=function"]
    command += ["--rootdir", str(ROOT / "examples"), *(str(path / "tests") for path in EXAMPLES)]
    done = subprocess.run(
        command, env=environment, cwd=ROOT / "examples", capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model whose weights are in the format of the example."""
    directory = tmp_path_factory.mktemp("model")
    source = make("Qwen3ForCausalLM")
    for file in source.iterdir():
        if file.suffix != ".safetensors":
            shutil.copy(file, directory)
    tensors = load_file(source / "model.safetensors")
    arrays: dict[str, Any] = {name: tensor.numpy() for name, tensor in tensors.items()}
    np.savez(directory / "weights.npz", **arrays)
    return directory


@pytest.fixture(scope="module")
def url(python: Path, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server that uses all five."""
    command = [
        *(str(python.parent / "jackfield"), "serve", str(checkpoint)),
        *("--served-model-name", "tiny", "--max-model-len", "256", "--num-threads", "1"),
        *("--load-format", "npz"),
        *("--quantization", "int8_rows", "--plugin-option", "int8_rows.skip=[]"),
        *("--scheduler-cls", "shortest-first"),
        *("--tool-call-parser", "call_line"),
        *("--middleware", "rate_limit", "--plugin-option", "rate_limit.per_minute=1"),
        *("--plugin-option", "rate_limit.burst=3"),
    ]
    folder = tmp_path_factory.mktemp("server")
    environment = {name: v for name, v in os.environ.items() if name != "PYTHONPATH"}
    with serving(command, folder / "log", cwd=folder, environment=environment) as url:
        yield url


def post(url: str, key: str, **body: object) -> dict[str, Any]:
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request) as answer:
        result: dict[str, Any] = json.load(answer)
        return result


def test_the_server_says_that_it_uses_all_five(url: str) -> None:
    with urllib.request.urlopen(f"{url}/version") as answer:
        plugins = json.load(answer)["plugins"]
    used = {each["distribution"]: each for each in plugins}
    assert used.keys() == {"jackfield", *DISTRIBUTIONS}
    parser = used["jackfield-call-line"]
    assert (parser["kind"], parser["name"]) == ("tool_parsers", "call_line")
    assert (parser["version"], parser["api_version"]) == ("0.1.0", 1)
    assert len(parser["sha256"]) == 64
    with urllib.request.urlopen(f"{url}/metrics") as answer:
        metrics = answer.read().decode()
    assert "jackfield:plugin_info{" in metrics and 'distribution="jackfield-npz"' in metrics


def test_a_model_of_its_format_answers_with_its_quantization_and_scheduler(url: str) -> None:
    texts = [
        post(f"{url}/v1/completions", f"key-{n}", model="tiny", prompt="Hello", temperature=0)
        for n in range(2)
    ]
    assert texts[0]["choices"][0]["text"] == texts[1]["choices"][0]["text"] != ""
    assert texts[0]["usage"]["completion_tokens"] == 16


def test_its_tool_parser_finds_the_call(url: str) -> None:
    tool = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
    answer = post(
        f"{url}/v1/chat/completions",
        "key-tools",
        model="tiny",
        messages=[{"role": "user", "content": "How is the weather?"}],
        tools=[tool],
        structured_outputs={"choice": [CALL]},
        max_tokens=100,
    )
    (choice,) = answer["choices"]
    (call,) = choice["message"]["tool_calls"]
    assert choice["finish_reason"] == "tool_calls"
    assert call["function"]["name"] == "weather"
    assert json.loads(call["function"]["arguments"]) == {"city": "Bern"}


def test_its_middleware_limits_a_key_and_no_other(url: str) -> None:
    def ask(key: str) -> int:
        try:
            post(f"{url}/v1/completions", key, model="tiny", prompt="Hi", max_tokens=1)
        except urllib.error.HTTPError as error:
            assert error.headers["retry-after"] and json.load(error)["error"]["code"]
            return error.code
        return 200

    assert [ask("ann") for _ in range(4)] == [200, 200, 200, 429]
    assert ask("bob") == 200
