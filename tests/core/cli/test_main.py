"""The command line as a user meets it: real processes, one line for an error, light imports."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jackfield import __version__
from jackfield.cli import main
from jackfield.cli.main import COMMANDS
from jackfield.errors import EngineError
from jackfield.registry import KINDS, Registry
from jackfield.registry.files import plugin_file

HEAVY = ("torch", "transformers", "fastapi", "uvicorn", "tokenizers", "numpy", "huggingface_hub")


def run(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "jackfield", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    ("words", "light"),
    [
        (["--version"], ("pydantic", "importlib_metadata", "argparse")),
        (["--help"], ("pydantic", "importlib_metadata")),
        (["plugins", "list"], ("pydantic", "pluggy", "yaml")),
        (["serve", "--help"], ("pluggy",)),
        (["bench", "--help"], ("pydantic",)),
    ],
)
def test_what_only_tells_imports_nothing_heavy(words: list[str], light: tuple[str, ...]) -> None:
    code = f"""
import sys
from jackfield.cli import main
try:
    status = main({words!r})
except SystemExit as ended:
    status = ended.code
heavy = set({(*HEAVY, *light)!r}) & set(sys.modules)
assert not heavy, heavy
assert status == 0, status
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_help_about_a_part_is_the_whole_help() -> None:
    done = run("serve", "--help=max-num-seqs")
    assert done.returncode == 0 and "--max-num-seqs" in done.stdout


def test_version_and_help() -> None:
    assert run("--version").stdout == f"jackfield {__version__}\n"
    text = run().stdout
    assert all(f"\n  {name}" in text for name in COMMANDS)


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["serv"], "did you mean 'serve'?"),
        (["serve", "--max-model-ln", "3"], "did you mean --max-model-len?"),
        (["serve", "/no/such/model"], "/no/such/model"),
        (["serve", "~nobody-of-this-name/model"], "no directory ~nobody-of-this-name/model"),
        (["serve", "--config", "~nobody-of-this-name/a"], "cannot read --config ~nobody-of"),
        (["serve", "/no/model", "--tool-parser-plugin", "a.py", "--safe-mode"], "--safe-mode runs"),
        (["serve", "/no/model", "--scheduler-plugin", "a.py"], "--scheduler-plugin a.py: there is"),
        (["plugins", "list", "--kind", "x"], "there is no kind 'x'"),
    ],
)
def test_an_error_is_one_line_and_status_2(words: list[str], part: str) -> None:
    ports = ["--port", "0"] if words[0] == "serve" else []
    done = run(*words, *ports)
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("jackfield: error: ") and part in line


def test_verbose_adds_the_traceback_and_the_line_stays_last() -> None:
    lines = run("serve", "/no/such/model", "--port", "0", "-v").stderr.splitlines()
    assert any(line.startswith("Traceback") for line in lines)
    assert lines[-1].startswith("jackfield: error: ")


def test_a_port_in_use_is_refused_before_the_model_is_looked_at() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = run("serve", "/no/such/model", "--host", "127.0.0.1", "--port", port)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert port in line and "in use" in line


def test_only_a_server_needs_the_key_that_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_API_KEY", "secret")
    done = run("serve", "/no/such/model", "--port", "0")
    assert done.returncode == 2 and "secret" not in done.stderr
    assert done.stderr.startswith("jackfield: error: VLLM_API_KEY is not read")
    assert "VLLM_API_KEY" not in run("plugins", "why", "/no/such/model").stderr


def test_a_note_comes_before_everything_else() -> None:
    lines = run("serve", "/no/such/model", "--port", "0", "--enable-reasoning").stderr.splitlines()
    assert len(lines) == 2 and "--enable-reasoning has no effect" in lines[0]


def test_other_failures_are_status_1_and_ctrl_c_is_130(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for error, status in ((EngineError("it died"), 1), (KeyboardInterrupt(), 130)):

        def fail(words: list[str], error: BaseException = error) -> int:
            raise error

        monkeypatch.setattr("jackfield.cli.plugins.main", fail)
        assert main(["plugins"]) == status
    assert capsys.readouterr().err == "jackfield: error: it died\n"


def test_plugins_list_shows_every_bundled_plugin_and_its_origin() -> None:
    rows = json.loads(run("plugins", "list", "--json").stdout)
    shown = {(row["kind"], row["name"]) for row in rows}
    registry = Registry()
    assert shown >= {(kind, entry.name) for kind in KINDS for entry in registry.list(kind)}
    fcfs = next(row for row in rows if row["name"] == "fcfs")
    assert fcfs["distribution"] == "jackfield" and fcfs["version"] == __version__
    assert fcfs["entry_point"] == "jackfield_schedulers.fcfs:FcfsScheduler"
    assert len(fcfs["sha256"]) == 64
    table = run("plugins", "list", "--kind", "schedulers").stdout.splitlines()
    assert table[0].split() == [
        "kind", "name", "distribution", "version", "entry_point", "chosen", "sha256"
    ]  # fmt: skip
    assert table[1].split()[:2] == ["schedulers", "fcfs"] and fcfs["sha256"][:12] in table[1]


def test_a_plugins_file_is_found_without_importing_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "unimported_package"
    (package / "inner").mkdir(parents=True)
    for file in (package / "__init__.py", package / "inner" / "__init__.py", package / "one.py"):
        file.write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert plugin_file("unimported_package.one:C") == package / "one.py"
    assert plugin_file("unimported_package.inner:C") == package / "inner" / "__init__.py"
    assert plugin_file("unimported_package:C") == package / "__init__.py"
    assert plugin_file("unimported_package.none:C") is None
    assert plugin_file("no_such_package_at_all.x:C") is None


@pytest.mark.parametrize("words", [["verify"], ["list", "--verify"]])
def test_verify_tells_a_broken_plugin_from_a_good_one(
    words: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    info = tmp_path / "acme-3.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 3.1\n")
    (info / "entry_points.txt").write_text("[jackfield.schedulers]\nbroken = acme_broken:S\n")
    (tmp_path / "acme_broken.py").write_text("raise SystemExit(0)")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert main(["plugins", *words, "--kind", "schedulers", "--json"]) == 1
    states = {row["name"]: row["state"] for row in json.loads(capsys.readouterr().out)}
    assert states["fcfs"] == states["priority"] == "ok"
    assert "acme 3.1 is broken: SystemExit: 0" in states["broken"]


def test_a_reader_that_has_enough_ends_the_command_quietly() -> None:
    command = f"{sys.executable} -m jackfield plugins list | head -n 1"
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.count("\n") == 1
    assert done.stderr == ""


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="looks at its files in /proc")
def test_no_standard_stream_stays_closed(tmp_path: Path) -> None:
    """Not in children either; a socket with one of their numbers would end the server."""
    found = tmp_path / "found"
    look = f"readlink /proc/self/fd/0 /proc/self/fd/1 /proc/self/fd/2 > {found}"
    script = tmp_path / "script.py"
    script.write_text(f"""
import subprocess, sys
from jackfield.cli import main
status = main(["--version"])
subprocess.run({look!r}, shell=True)
sys.exit(status)
""")
    command = f"exec {sys.executable} {script} <&- >&- 2>&-"
    assert subprocess.run(["bash", "-c", command], timeout=60).returncode == 0
    stdin, _, stderr = found.read_text().split()
    assert stdin == stderr == "/dev/null"


def test_sigterm_in_the_middle_of_a_start_leaves_nothing_behind(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "jackfield", "serve", "--port", "0"]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, env=environment) as server:
        while not any(tmp_path.glob("*/engine")):
            time.sleep(0.01)
        server.terminate()
    assert server.returncode == 0
    assert not any(tmp_path.iterdir())
