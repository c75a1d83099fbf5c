"""The registry against real distributions, made in a folder of their own."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from jackfield.config.plan import PluginSetup, PluginSource, WorkerPlan
from jackfield.errors import (
    AmbiguousPluginError,
    BrokenPluginError,
    IncompatiblePluginError,
    PluginError,
    UnknownPluginError,
)
from jackfield.registry import KINDS, Registry

GOOD = """
class Parser:
    name = "{name}"
    api_version = {version}
    def __init__(self, context): ...
    def feed(self, text): return []
    def finish(self): return []
"""
Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Makes an importable distribution with one tool parser."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def make(
        distribution: str,
        name: str,
        code: str | None = None,
        version: int = 1,
        kind: str = "tool_parsers",
        extras: str = "",
    ) -> None:
        module = f"plugin_{distribution}"
        info = tmp_path / f"{distribution}-2.5.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 2.5\n"
        )
        (info / "entry_points.txt").write_text(
            f"[jackfield.{kind}]\n{name} = {module}:Parser {extras}\n"
        )
        source = GOOD.format(name=name, version=version) if code is None else code
        (tmp_path / f"{module}.py").write_text(source)
        sys.modules.pop(module, None)

    return make


def one_line(error: pytest.ExceptionInfo[PluginError]) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


def test_listing_imports_nothing(install: Install) -> None:
    install("acme", "acme_tools", code="raise RuntimeError('imported')")
    entries = {entry.name: entry for entry in Registry().list("tool_parsers")}
    entry = entries["acme_tools"]
    assert (entry.distribution, entry.version) == ("acme", "2.5")
    assert entry.value == "plugin_acme:Parser"
    assert Registry().find("tool_parsers", "acme-tools") == entry
    assert "plugin_acme" not in sys.modules


def test_a_plugin_says_what_it_is_before_it_is_imported(install: Install) -> None:
    code = "raise RuntimeError('imported')"
    install("acme", "AcmeModel", code=code, kind="models", extras="[api-1,encoder]")
    install("other", "OtherModel", code=code, kind="models", extras="[api-1]")
    registry = Registry()
    entries = {entry.name: entry for entry in registry.list("models")}
    assert entries["AcmeModel"].traits == {"encoder"} and entries["AcmeModel"].api_version == 1
    assert entries["OtherModel"].traits == frozenset()
    assert registry.has_trait("models", "AcmeModel", "encoder")
    assert not registry.has_trait("models", "OtherModel", "encoder")
    assert not registry.has_trait("models", "NoModel", "encoder")


def test_a_class_that_was_never_packaged_says_what_it_is(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "class Mine:\n    name = 'MineModel'\n    api_version = 1\n    traits = ('encoder',)\n"
    )
    registry = Registry((PluginSource("models", str(file)),))
    assert registry.has_trait("models", "MineModel", "encoder")
    assert not registry.has_trait("models", "MineModel", "other")


def test_hyphens_and_underscores_are_the_same(install: Install) -> None:
    install("acme", "acme_tools")
    loaded = Registry().load("tool_parsers", "acme-tools")
    assert loaded is Registry().load("tool_parsers", "acme_tools")
    assert loaded.name == "acme_tools"


def test_an_unknown_name_gets_a_suggestion_and_the_way_out(install: Install) -> None:
    install("acme", "acme_tools")
    with pytest.raises(UnknownPluginError) as error:
        Registry().load("tool_parsers", "acme_tool")
    text = one_line(error)
    for part in (
        "tool_parsers",
        "'acme_tool'",
        "did you mean 'acme_tools'?",
        "jackfield.tool_parsers",
        "--tool-parser-plugin",
    ):
        assert part in text


def test_a_name_that_two_distributions_offer_is_refused(install: Install) -> None:
    install("acme", "tools")
    install("globex", "tools")
    for choose in (Registry().load, Registry().find):
        with pytest.raises(AmbiguousPluginError) as error:
            choose("tool_parsers", "tools")
        text = one_line(error)
        assert "acme 2.5" in text and "globex 2.5" in text and "plugin_acme:Parser" in text
    assert Registry().load("tool_parsers", "plugin_globex:Parser").__module__ == "plugin_globex"


def test_another_contract_version_is_refused(install: Install) -> None:
    install("acme", "tools", version=7)
    with pytest.raises(IncompatiblePluginError) as error:
        Registry().load("tool_parsers", "tools")
    text = one_line(error)
    assert "acme 2.5" in text and "version 7" in text and "takes 1" in text


def test_a_parser_of_another_engine_is_told_where_to_read(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text("from vllm.tool_parsers import ToolParserManager\n")
    with pytest.raises(BrokenPluginError, match=r"written for vllm: docs/plugins\.md says how"):
        Registry([PluginSource("tool_parsers", str(path))]).load("tool_parsers", "mine")


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import no_such_module_at_all", "ModuleNotFoundError"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("raise BaseException('first\\nsecond')", "BaseException: first"),
        ("class Other: ...", "AttributeError"),
        ("Parser = 3", "no class"),
        ("class Parser:\n    name = 'tools'", "no api_version"),
        (GOOD.format(name="tools", version=1).replace("def finish", "def finnish"), "lacks finish"),
        (
            "from jackfield.contracts.text import ToolParser\n"
            "class Parser(ToolParser):\n    name = 'tools'\n    api_version = 1\n",
            "lacks feed, finish",
        ),
    ],
)
def test_a_broken_plugin_is_named_with_its_cause(install: Install, code: str, reason: str) -> None:
    install("acme", "tools", code=code)
    with pytest.raises(BrokenPluginError) as error:
        Registry().load("tool_parsers", "tools")
    text = one_line(error)
    assert reason in text and "acme 2.5" in text and "tool_parsers" in text


def test_ctrl_c_during_an_import_is_not_swallowed(install: Install) -> None:
    install("acme", "tools", code="raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        Registry().load("tool_parsers", "tools")


def test_a_broken_plugin_that_nobody_chose_does_no_harm(install: Install) -> None:
    install("acme", "tools")
    install("globex", "others", code="raise SystemExit(1)")
    assert Registry().load("tool_parsers", "tools").name == "tools"


def test_a_file_is_imported_when_its_kind_is_loaded_and_not_before(tmp_path: Path) -> None:
    file = tmp_path / "lazy.py"
    file.write_text(GOOD.format(name="my_tools", version=1) + "\nprint('ran')")
    registry = Registry([PluginSource("tool_parsers", str(file))])
    assert not any("_jackfield_lazy" in name for name in sys.modules)
    registry.list("tool_parsers")
    registry.load("schedulers", "fcfs")
    assert not any("_jackfield_lazy" in name for name in sys.modules)
    assert registry.find("tool_parsers", "my-tools") is None
    assert registry.load("tool_parsers", "my-tools").name == "my_tools"
    assert "lazy" not in sys.modules


def test_what_the_user_gave_goes_before_what_is_installed(install: Install, tmp_path: Path) -> None:
    install("acme", "tools")
    file = tmp_path / "mine.py"
    file.write_text(GOOD.format(name="tools", version=1))
    source = PluginSource("tool_parsers", str(file))
    assert "mine" in Registry([source]).load("tool_parsers", "tools").__module__
    module = PluginSource("tool_parsers", "plugin_acme")
    with pytest.raises(AmbiguousPluginError):
        Registry([source, module]).load("tool_parsers", "tools")


def test_what_a_file_imports_is_not_offered(install: Install, tmp_path: Path) -> None:
    install("acme", "tools")
    file = tmp_path / "mine.py"
    file.write_text("from plugin_acme import Parser as Base\nclass Mine(Base):\n    name = 'mine'")
    registry = Registry([PluginSource("tool_parsers", str(file))])
    assert registry.load("tool_parsers", "mine").__name__ == "Mine"
    assert registry.load("tool_parsers", "tools").__module__ == "plugin_acme"


@pytest.mark.parametrize(
    ("text", "reason"), [(None, "no such file"), ("def f(:", "SyntaxError"), ("1 / 0", "Zero")]
)
def test_a_broken_file_is_named(tmp_path: Path, text: str | None, reason: str) -> None:
    file = tmp_path / "defect.py"
    if text is not None:
        file.write_text(text)
    with pytest.raises(PluginError) as error:
        Registry([PluginSource("tool_parsers", str(file))]).load("tool_parsers", "mine")
    text = one_line(error)
    assert reason in text and str(file) in text and "--tool-parser-plugin" in text
    assert not any("_jackfield_defect" in name for name in sys.modules)


def test_safe_mode_offers_bundled_plugins_only(install: Install) -> None:
    install("acme", "tools")
    safe = Registry(bundled_only=True)
    assert {entry.distribution for entry in safe.list("tool_parsers")} == {"jackfield"}
    with pytest.raises(UnknownPluginError):
        safe.load("tool_parsers", "tools")
    with pytest.raises(PluginError, match="--safe-mode"):
        safe.load("tool_parsers", "plugin_acme:Parser")
    with pytest.raises(PluginError, match="--safe-mode"):
        Registry([PluginSource("tool_parsers", "plugin_acme")], bundled_only=True)


def test_an_engine_looks_plugins_up_as_its_server_does() -> None:
    plan = WorkerPlan(
        model="M",
        config={},
        device="cpu",
        dtype="float32",
        max_model_len=8,
        max_num_seqs=1,
        max_num_batched_tokens=8,
        block_size=8,
        plugins=PluginSetup(sources=(PluginSource("tool_parsers", "a.py"),)),
    )
    assert Registry.for_plan(plan).setup == plan.plugins
    safe = msgspec.structs.replace(plan, plugins=PluginSetup(bundled_only=True))
    with pytest.raises(PluginError, match="--safe-mode"):
        Registry.for_plan(safe).load("tool_parsers", "any.module:Class")


def test_every_kind_has_two_flags_of_its_own() -> None:
    flags = [flag for kind in KINDS.values() for flag in (kind.flag, kind.plugin_flag)]
    assert len(set(flags)) == len(flags) == 2 * len(KINDS)
    assert all(kind.plugin_flag.endswith("-plugin") for kind in KINDS.values())
