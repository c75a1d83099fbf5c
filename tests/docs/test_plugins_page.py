"""docs/plugins.md: every kind and hook is there, and the examples work."""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from jackfield.config.plan import PluginSource
from jackfield.contracts.generation import RequestRecord
from jackfield.hooks import Hooks, HookSpecs
from jackfield.registry import KINDS, PluginEntry, Registry

PAGE = (Path(__file__).parents[2] / "docs" / "plugins.md").read_text(encoding="utf-8")
ROWS = [line for line in PAGE.splitlines() if line.startswith("| `")]


def example(name: str) -> str:
    """The code block that begins with the comment ``# name``."""
    blocks = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    (code,) = [block for block in blocks if block.startswith(f"# {name}\n")]
    return str(code)


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.name)
def test_every_kind_has_its_row(kind: Any) -> None:
    (row,) = [row for row in ROWS if row.startswith(f"| `{kind.name}` |")]
    assert f"`{kind.flag}`" in row and f"`{kind.plugin_flag}`" in row
    assert f"`{kind.contract}`" in row if kind.contract else "not yet" in row


def test_every_hook_has_its_row() -> None:
    hooks = {row.partition("(")[0].removeprefix("| `") for row in ROWS if "()`" in row[:40]}
    hooks |= {row.partition("(")[0].removeprefix("| `") for row in ROWS if ")` |" in row[:50]}
    assert hooks == {name for name in vars(HookSpecs) if not name.startswith("_")}


def test_the_first_plugin_works_and_keeps_the_laws(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "my_parser.py"
    file.write_text(example("my_parser.py"))
    loaded = Registry([PluginSource("tool_parsers", str(file))]).load("tool_parsers", "call-line")
    assert loaded.name == "call_line"
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    test_module = types.ModuleType("test_my_parser")
    exec(example("test_my_parser.py"), vars(test_module))
    kit = test_module.TestCallLine()
    laws = [name for name in dir(kit) if name.startswith("test_")]
    assert len(laws) > 5
    for law in laws:
        getattr(kit, law)()
    sys.modules.pop("my_parser", None)


def test_the_example_of_options_works(tmp_path: Path) -> None:
    file = tmp_path / "my_policy.py"
    file.write_text(example("my_policy.py"))
    source = PluginSource("queue_policies", str(file))
    registry = Registry([source], options={"short_first": {"max_tokens": "100"}})
    policy = registry.make("queue_policies", "short-first")
    assert policy.options.max_tokens == 100


def test_the_example_of_a_hook_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "my_hooks.py").write_text(example("my_hooks.py"))
    monkeypatch.syspath_prepend(str(tmp_path))
    hooks = Hooks([PluginEntry("hooks", "my_hooks", "mine", "1", "my_hooks")])
    hooks.request_finished(RequestRecord("r1", 0.0, None, None, None, 2, 7, 0, "stop", 1, 16))
    assert capsys.readouterr().out == "r1 7 stop\n"
    sys.modules.pop("my_hooks", None)
