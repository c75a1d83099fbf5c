"""docs/tutorial-tool-parser.md: its commands, in the order of the page, in a clean environment."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import urllib.request
from pathlib import Path

from tests.checkpoints import make
from tests.examples.serving import ROOT, wait_until_ready

PAGE = (ROOT / "docs" / "tutorial-tool-parser.md").read_text(encoding="utf-8")


def test_the_commands_lead_to_a_server_that_uses_the_parser(python: Path, tmp_path: Path) -> None:
    commands = "".join(re.findall(r"```sh\n(.*?)```", PAGE, flags=re.DOTALL))
    *before, serve = commands.strip().splitlines()
    assert serve == 'jackfield serve "$MODEL" --tool-call-parser mine'
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment["PATH"] = f"{python.parent}{os.pathsep}{environment['PATH']}"
    environment["MODEL"] = str(make("Qwen3ForCausalLM"))
    script = "set -e\n" + "\n".join(before)
    done = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^\d+ passed", done.stdout, flags=re.M)
    assert re.search(r"^tool_parsers +mine +jackfield-mine +0\.1\.0", done.stdout, flags=re.M)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with open(tmp_path / "log", "w") as log:
        words = f"exec {serve} --host 127.0.0.1 --port {port} --num-threads 1"
        server = subprocess.Popen(
            ["bash", "-c", words], cwd=tmp_path, env=environment, stdout=log, stderr=log
        )
        try:
            url = f"http://127.0.0.1:{port}"
            wait_until_ready(f"{url}/health", server, tmp_path / "log")
            with urllib.request.urlopen(f"{url}/version") as answer:
                plugins = json.load(answer)["plugins"]
        finally:
            server.terminate()
            server.wait(20)
    assert {"mine"} == {each["name"] for each in plugins if each["kind"] == "tool_parsers"}
