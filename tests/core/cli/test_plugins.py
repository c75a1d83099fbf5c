"""``jackfield plugins``: listing imports nothing; checking survives what it imports."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tests.checkpoints import make
from tests.core.cli.distributions import install, jackfield

from jackfield.planning.kernels import DEFAULT_EXECUTOR
from jackfield.planning.plan import _DEFAULT_WORKER
from jackfield.registry import KINDS

PARSER = """
class Parser:
    name = "{name}"
    api_version = 1
    def __init__(self, context): ...
    def feed(self, text): return []
    def finish(self): return []
"""
NUM_DISTRIBUTIONS = 100


def test_listing_a_hundred_distributions_imports_none_of_them(tmp_path: Path) -> None:
    """Every plugin module writes a file when it is imported; and the modules that listing imports
    are few and our own."""
    for number in range(NUM_DISTRIBUTIONS):
        name = f"acme_{number}"
        code = f"open({str(tmp_path / 'imported')!r}, 'a').write('{name}')\n"
        group = ("tool_parsers", "schedulers", "hooks")[number % 3]
        points = {group: {name: f"{name}_code:Plugin [api-1]"}}
        install(tmp_path, name, points, {f"{name}_code": code})
    done = jackfield("plugins", "list", "--json", path=tmp_path)
    rows = {row["name"]: row for row in json.loads(done.stdout)}
    assert sum(name.startswith("acme_") for name in rows) == NUM_DISTRIBUTIONS
    row = rows["acme_2"]
    assert (row["kind"], row["distribution"], row["version"]) == ("hooks", "acme_2", "2.5")
    assert (row["entry_point"], row["chosen"]) == ("acme_2_code:Plugin", "always")
    assert rows["acme_1"]["api_version"] == "1" and rows["acme_1"]["chosen"] == ""
    assert not (tmp_path / "imported").exists()
    code = (
        "import sys; from jackfield.cli import main; main(['plugins', 'list']); "
        "print([name for name in sys.modules if name.startswith('acme_')], file=sys.stderr); "
        "print(len(sys.modules), file=sys.stderr)"
    )
    environment = {"PYTHONPATH": str(tmp_path), "PATH": ""}
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment
    )
    imported, count = found.stderr.splitlines()
    assert imported == "[]" and int(count) < 400


def test_the_defaults_that_the_list_tells_are_those_of_the_plan() -> None:
    defaults = {kind.name: kind.default for kind in KINDS.values() if kind.default}
    assert defaults["workers"] == _DEFAULT_WORKER and defaults["executors"] == DEFAULT_EXECUTOR
    rows = json.loads(jackfield("plugins", "list", "--json").stdout)
    told = {row["kind"]: row["name"] for row in rows if row["chosen"] == "default"}
    told = {kind: name.replace("-", "_") for kind, name in told.items()}
    kinds = {row["kind"] for row in rows}
    assert told == {k: name.replace("-", "_") for k, name in defaults.items() if k in kinds}


def test_a_model_and_options_say_what_is_chosen(tmp_path: Path) -> None:
    install(tmp_path, "acme", {"tool_parsers": {"mine": "acme_code:Parser"}}, {
        "acme_code": PARSER.format(name="mine")
    })  # fmt: skip
    model = str(make("Qwen3ForCausalLM"))
    words = ("plugins", "list", "--json", "--", model, "--tool-call-parser", "mine")
    rows = json.loads(jackfield(*words, path=tmp_path).stdout)
    chosen = {(row["kind"], row["name"]) for row in rows if row["chosen"] == "yes"}
    assert {("tool_parsers", "mine"), ("models", "Qwen3ForCausalLM")} <= chosen
    assert ("schedulers", "fcfs") in chosen and ("schedulers", "priority") not in chosen


def test_why_tells_the_plugin_and_the_reason(tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    config = (make("GPTNeoXForCausalLM") / "config.json").read_text()
    (model / "config.json").write_text(config)
    words = ("plugins", "why", str(model), "--json", "--scheduling-policy", "priority")
    rows = {row["kind"]: row for row in json.loads(jackfield(*words).stdout)}
    assert rows["models"]["name"] == "transformers"
    assert rows["models"]["why"] == "no plugin for GPTNeoXForCausalLM"
    assert rows["schedulers"]["name"] == "priority"
    assert rows["schedulers"]["why"] == "--scheduling-policy"
    assert rows["executors"]["why"] == "default"
    assert rows["attention_backends"]["why"].startswith("the default of platform ")
    assert rows["models"]["from"].startswith("jackfield ")


def test_info_tells_all_without_importing(tmp_path: Path) -> None:
    points = {"tool_parsers": {"mine": "acme_code:Parser [api-3]"}}
    install(tmp_path, "acme", points, {"acme_code": "raise SystemExit(3)"})
    text = jackfield("plugins", "info", "mine", path=tmp_path).stdout
    for part in ("acme 2.5", "of a test", "acme_code:Parser", "api version:", "3", "ToolParser"):
        assert part in text
    assert jackfield("plugins", "info", "acme", path=tmp_path).stdout == text
    done = jackfield("plugins", "info", "min", path=tmp_path)
    assert done.returncode == 2 and "did you mean 'mine'" in done.stderr


def test_verify_survives_what_it_imports(tmp_path: Path) -> None:
    codes = {
        "good": PARSER.format(name="good"),
        "exits": "raise SystemExit(0)",
        "leaves": "import os; os._exit(0)",
        "crashes": "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)",
        "hangs": "import time; time.sleep(100)",
        "prints": "print('\"ok\"')\n" + PARSER.format(name="prints"),
        "lacks": "class Parser:\n    name = 'lacks'\n    api_version = 1\n",
    }
    points = {name: f"verified_{name}:Parser" for name in codes}
    points["old"] = "verified_good:Parser [api-0]"
    modules = {f"verified_{name}": code for name, code in codes.items()}
    install(tmp_path, "acme", {"tool_parsers": points}, modules)
    words = ("plugins", "verify", "acme", "--json", "--timeout", "5")
    done = jackfield(*words, path=tmp_path)
    assert done.returncode == 1
    states = {row["name"]: row["state"] for row in json.loads(done.stdout)}
    assert states["good"] == states["prints"] == "ok"
    for name, part in {
        "exits": "SystemExit: 0",
        "leaves": "ended the process",
        "crashes": "ended the process",
        "hangs": "was not imported in 5 s",
        "lacks": "lacks feed, finish",
        "old": "contract version 0",
    }.items():
        assert part in states[name] and "acme 2.5" in states[name]


def test_verify_of_what_works_is_status_0() -> None:
    done = jackfield("plugins", "verify", "--kind", "queue-policy", "fcfs")
    assert done.returncode == 0


def test_check_runs_the_kit_of_what_is_installed(tmp_path: Path) -> None:
    code = (
        "class Policy:\n    name = 'mine'\n    api_version = 1\n"
        "    def key(self, request): return (request.num_prompt_tokens,)\n"
    )
    points = {"queue_policies": {"mine": "checked_code:Policy"}}
    install(tmp_path, "acme", points, {"checked_code": code})
    done = jackfield("plugins", "check", "acme", path=tmp_path)
    assert done.returncode == 0, done.stdout
    assert "passed" in done.stdout
    (tmp_path / "checked_code.py").write_text(code.replace("(request.num", "('x', request.num"))
    done = jackfield("plugins", "check", "acme", path=tmp_path)
    assert done.returncode == 1 and "failed" in done.stdout


def test_check_of_a_file_needs_to_know_the_kind(tmp_path: Path) -> None:
    file = tmp_path / "my_parser.py"
    file.write_text(PARSER.format(name="mine"))
    done = jackfield("plugins", "check", str(file))
    assert done.returncode == 2
    assert "fits tool_parsers and reasoning_parsers; say which with --kind" in done.stderr
    words = ("plugins", "check", str(file), "--kind", "tool-parser", "-k", "plain or registry")
    done = jackfield(*words)
    assert done.returncode == 1, done.stdout
    assert "test_plain_text_passes_unchanged" in done.stdout


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["lst"], "did you mean 'list'"),
        (["list", "--kind", "tool_parser"], ""),
        (["new", "toolparser", "x"], "did you mean 'tool_parsers'"),
        (["new", "tool-parser", "a.b"], "is no name"),
        (["new", "tool-parser", "parsers", "/"], "not empty"),
        (["info", "acme", "more"], "unrecognized arguments"),
        (["check", "no/such.py"], "error: no/such.py: there is no such file"),
        (["check", "fcfs", "--kind", "tool-parser"], "fcfs has schedulers, and no tool_parsers"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(words: list[str], part: str) -> None:
    done = jackfield("plugins", *words)
    if not part:
        assert done.returncode == 0
        return
    (line,) = done.stderr.splitlines()
    assert done.returncode == 2 and line.startswith("jackfield: error: ") and part in line


def test_a_place_that_cannot_be_written_is_named_in_one_line() -> None:
    for words, line in (
        (["new", "tool-parser", "x", __file__], f"{__file__}: Not a directory"),
        (["lock", "-o", "/no/folder/lock"], "/no/folder/lock: No such file or directory"),
    ):
        done = jackfield("plugins", *words)
        assert (done.returncode, done.stderr) == (1, f"jackfield: error: {line}\n")
