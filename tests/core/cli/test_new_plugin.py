"""``jackfield plugins new``: for every kind a package that keeps its laws, builds and is found."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from hatchling.build import build_wheel
from tests.core.cli.distributions import jackfield

from jackfield.cli import main
from jackfield.registry import HOOKS, KINDS
from jackfield.registry.kinds import singular

KINDS_TO_WRITE = [kind.name for kind in KINDS.values() if kind.contract is not None] + [HOOKS]


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A package of each kind, by kind."""
    folder = tmp_path_factory.mktemp("packages")
    made = {}
    for kind in KINDS_TO_WRITE:
        made[kind] = folder / kind
        name = f"scaffolded-{singular(kind).replace('_', '-')}"
        assert main(["plugins", "new", singular(kind), name, str(made[kind])]) == 0
    return made


def test_every_package_passes_its_own_tests(packages: dict[str, Path]) -> None:
    """In one process, so that torch is imported once."""
    sources = [str(package / "src") for package in packages.values()]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sources)}
    tests = [str(package / "tests") for package in packages.values()]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error"]
    command += ["-o", "asyncio_default_fixture_loop_scope=function", "-c", os.devnull]
    folder = packages[HOOKS].parent
    done = subprocess.run(
        [*command, "--rootdir", str(folder), *tests],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout


def test_the_page_that_a_readme_names_is_there(packages: dict[str, Path]) -> None:
    root = Path(__file__).parents[3]
    for package in packages.values():
        (page,) = re.findall(r"Jackfield's (docs/\S+\.md)", (package / "README.md").read_text())
        assert (root / page).is_file(), page


def test_a_kind_without_a_contract_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plugins", "new", "kv-connector", "mine", str(tmp_path / "mine")]) == 2
    error = "jackfield: error: there is no contract for kv_connectors yet\n"
    assert capsys.readouterr().err == error
    assert not (tmp_path / "mine").exists()


def test_the_message_says_what_was_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plugins", "new", "executor", "mine", str(tmp_path)]) == 0
    assert f"{tmp_path}: an executor called mine." in capsys.readouterr().out


def test_every_package_builds_a_wheel_that_the_list_shows(
    packages: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Offline, with hatchling; what is in the wheel is all that is installed."""
    for kind, package in packages.items():
        monkeypatch.chdir(package)
        wheel = build_wheel(str(tmp_path))
        with zipfile.ZipFile(tmp_path / wheel) as archive:
            names = archive.namelist()
            assert any(name.endswith("/plugin.py") for name in names), names
            archive.extractall(tmp_path / "site")
            has_checkpoint = any(name.endswith("checkpoint/config.json") for name in names)
            assert has_checkpoint == (kind == "bundled_models")
    done = jackfield("plugins", "list", "--json", path=tmp_path / "site")
    rows = [row for row in json.loads(done.stdout) if row["distribution"] != "jackfield"]
    shown = {row["kind"]: row for row in rows if "scaffolded" in row["distribution"]}
    assert shown.keys() == packages.keys()
    for kind, row in shown.items():
        assert row["version"] == "0.1.0"
        assert row["api_version"] == ("" if kind == HOOKS else "1")
    names = [row["name"] for row in shown.values()]
    verified = jackfield("plugins", "verify", "--json", *names, path=tmp_path / "site")
    assert verified.returncode == 0, verified.stdout
