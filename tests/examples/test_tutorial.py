"""docs/tutorial-tool-parser.md: its commands, in the order of the page, in a clean environment."""

from __future__ import annotations

import json
import os
import re
import subprocess
import urllib.request
from pathlib import Path

from tests.checkpoints import make
from tests.examples.conftest import ROOT
from tests.serving import serving

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
    command = ["bash", "-c", f'exec {serve} --num-threads 1 "$@"', "serve"]
    with (
        serving(command, tmp_path / "log", cwd=tmp_path, environment=environment) as url,
        urllib.request.urlopen(f"{url}/version") as answer,
    ):
        plugins = json.load(answer)["plugins"]
    assert {"mine"} == {each["name"] for each in plugins if each["kind"] == "tool_parsers"}
