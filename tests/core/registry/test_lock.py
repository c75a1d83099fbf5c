"""A lock file lets the code run that it names, and no other."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.core.cli.distributions import install, jackfield

from jackfield.cli import main
from jackfield.config.plan import PluginSource
from jackfield.errors import ConfigError, PluginError
from jackfield.hooks import Hooks
from jackfield.registry import HOOKS, Registry

POLICY = """
class Policy:
    name = "locked"
    api_version = 1
    def key(self, request): return (1.0,)
"""


@pytest.fixture
def lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The lock of one distribution with a policy and a hook, and of a file."""
    monkeypatch.syspath_prepend(str(tmp_path))
    points = {"queue_policies": {"locked": "locked_code:Policy"}, HOOKS: {"locked": "locked_code"}}
    install(tmp_path, "acme", points, {"locked_code": POLICY})
    (tmp_path / "my_policy.py").write_text(POLICY)
    path = str(tmp_path / "plugins.lock")
    assert main(["plugins", "lock", str(tmp_path / "my_policy.py"), "-o", path]) == 0
    importlib.invalidate_caches()
    yield path
    sys.modules.pop("locked_code", None)


def test_what_was_locked_runs(lock: str, tmp_path: Path) -> None:
    registry = Registry(lock=lock)
    assert registry.load("queue_policies", "locked").name == "locked"
    assert registry.load("queue_policies", "locked_code:Policy").name == "locked"
    assert registry.load("schedulers", "fcfs").name == "fcfs"
    assert registry.load("schedulers", "jackfield_schedulers.fcfs:FcfsScheduler").name == "fcfs"
    Hooks.installed(registry)
    source = PluginSource("queue_policies", str(tmp_path / "my_policy.py"))
    assert Registry([source], lock=lock).load("queue_policies", "locked").name == "locked"


def test_what_has_changed_is_refused_before_it_is_imported(lock: str, tmp_path: Path) -> None:
    (tmp_path / "locked_code.py").write_text("raise AssertionError('imported')")
    registry = Registry(lock=lock)
    for name in ("locked", "locked_code:Policy"):
        with pytest.raises(PluginError, match=r"files of package locked_code of .* have changed"):
            registry.load("queue_policies", name)
    with pytest.raises(PluginError, match="have changed"):
        Hooks.installed(registry)
    with pytest.raises(PluginError, match="have changed"):
        registry.find("queue_policies", "locked")
    (tmp_path / "my_policy.py").write_text("raise AssertionError('imported')")
    source = PluginSource("queue_policies", str(tmp_path / "my_policy.py"))
    with pytest.raises(PluginError, match=r"my_policy.py is not in it, or has changed"):
        Registry([source], lock=lock).load("queue_policies", "locked")


def test_what_is_not_in_it_is_refused(lock: str, tmp_path: Path) -> None:
    modules = {"jackfield_foreign": POLICY}
    points = {"queue_policies": {"foreign": "jackfield_foreign:Policy"}}
    install(tmp_path, "globex", points, modules)
    registry = Registry(lock=lock)
    with pytest.raises(PluginError, match=r"'foreign' of globex 2\.5 is not in it"):
        registry.load("queue_policies", "foreign")
    with pytest.raises(PluginError, match=r"package jackfield_foreign of .* is not in it"):
        registry.load("queue_policies", "jackfield_foreign:Policy")


def test_another_version_is_refused(lock: str, tmp_path: Path) -> None:
    text = Path(lock).read_text().replace('version = "2.5"', 'version = "2.4"')
    Path(lock).write_text(text)
    with pytest.raises(PluginError, match=r"was locked at version 2\.4"):
        Registry(lock=lock).load("queue_policies", "locked")


@pytest.mark.parametrize("text", [None, "= nonsense", '[distributions.a]\nversion = "1"\n'])
def test_a_file_that_is_no_lock_is_refused_in_one_line(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "plugins.lock"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigError, match="--plugins-lock") as error:
        Registry(lock=str(path))
    assert "\n" not in str(error.value)


def test_a_server_refuses_to_start_with_changed_code(lock: str, tmp_path: Path) -> None:
    (tmp_path / "locked_code.py").write_text("raise AssertionError('imported')")
    words = ("serve", "/no/model", "--port", "0", "--plugins-lock", lock)
    done = jackfield(*words, path=tmp_path)
    (line,) = done.stderr.splitlines()
    assert done.returncode == 2 and "have changed since" in line and "acme 2.5" in line
