"""What is mixed into a worker, and what may be called of it by name."""

from __future__ import annotations

import pytest
from tests.core.engine.extensions import Extension

from jackfield.config.plan import PluginSetup
from jackfield.errors import BrokenPluginError, ConfigError, PluginError, RequestError
from jackfield.registry.workers import call_worker, make_worker
from jackfield.testing.simulated_worker import SimulatedWorker
from jackfield.testing.workers import class_path, simulated_plan

OF_TESTS = "tests.core.engine.extensions"


def plan(extension: str | None = f"{OF_TESTS}:Extension", **more: object):  # type: ignore[no-untyped-def]
    worker = class_path(SimulatedWorker)
    return simulated_plan(worker=worker, worker_extension=extension, **more)


def test_its_methods_are_the_workers() -> None:
    for path in (f"{OF_TESTS}:Extension", f"{OF_TESTS}.Extension"):
        worker = make_worker(plan(path))
        assert isinstance(worker, SimulatedWorker) and isinstance(worker, Extension)
        assert type(worker).__name__ == "SimulatedWorker"
        assert call_worker(worker, "add", [2], {"b": 3, "scale": 10}) == 50
        assert call_worker(worker, "num_calls", [], {}) == 1
    # The class itself is as it was.
    assert not hasattr(SimulatedWorker, "add")


def test_without_an_extension_there_is_the_worker_alone() -> None:
    assert type(make_worker(plan(None))) is SimulatedWorker


def test_a_name_that_the_worker_has_is_refused_in_one_line() -> None:
    with pytest.raises(ConfigError) as error:
        make_worker(plan(f"{OF_TESTS}:Clashing"))
    text = str(error.value)
    assert text.startswith(f"--worker-extension-cls {OF_TESTS}:Clashing: worker ")
    assert " has execute too; rename" in text and "\n" not in text


@pytest.mark.parametrize(
    ("path", "said"),
    [
        (f"{OF_TESTS}:Missing", "is broken: AttributeError"),
        ("no_such_module_here:Extension", "is broken: ModuleNotFoundError"),
        (f"{OF_TESTS}:NO_CLASS", "is no class"),
    ],
)
def test_what_cannot_be_loaded_is_named_with_the_flag(path: str, said: str) -> None:
    with pytest.raises(BrokenPluginError, match=f"--worker-extension-cls {path} {said}"):
        make_worker(plan(path))


def test_safe_mode_takes_none() -> None:
    with pytest.raises(PluginError, match=f"leave --worker-extension-cls {OF_TESTS}:Extension out"):
        make_worker(
            simulated_plan(
                worker_extension=f"{OF_TESTS}:Extension", plugins=PluginSetup(bundled_only=True)
            )
        )


@pytest.mark.parametrize(
    ("method", "said"),
    [
        ("execute", "execute is called by the engine only"),
        ("stop", "stop is called by the engine only"),
        ("_hidden", "_hidden is no method"),
        ("calls", "calls is no method"),
        ("ad", "ad is no method of worker 'simulated'; did you mean 'add'"),
    ],
)
def test_other_names_are_refused(method: str, said: str) -> None:
    with pytest.raises(RequestError) as error:
        call_worker(make_worker(plan()), method, [], {})
    assert said in str(error.value) and error.value.param == "method"
