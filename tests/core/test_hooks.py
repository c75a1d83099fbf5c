"""Hooks: collected once, called in order, and none can hurt a request it only observes."""

from __future__ import annotations

import logging
import sys
import types
from collections.abc import Callable, Iterator

import pytest

from jackfield.config.settings import make_settings
from jackfield.contracts.generation import ChoiceDelta, GenerationRequest, RequestRecord
from jackfield.contracts.messages import EngineStats
from jackfield.contracts.sampling import SamplingParams
from jackfield.errors import BrokenPluginError, EngineError, PluginError, RequestError
from jackfield.hooks import Hooks, HookSpecs, hookimpl
from jackfield.registry import PluginEntry, Registry

REQUEST = GenerationRequest("r1", (1, 2), SamplingParams())
DELTA = ChoiceDelta(0, "hello", (5,))
RECORD = RequestRecord("r1", 0.0, None, None, None, 2, 0, 0, "abort", 1, 16)
STATISTICS = EngineStats(1, 2, 3, 4, 5, 6, 7, 8, 9)
Make = Callable[..., PluginEntry]


@pytest.fixture
def plugin() -> Iterator[Make]:
    """Makes an importable plugin module out of functions."""
    made: list[str] = []

    def make(name: str, *functions: Callable[..., object]) -> PluginEntry:
        module = types.ModuleType(f"hook_plugin_{name}")
        for function in functions:
            setattr(module, function.__name__, function)
        sys.modules[module.__name__] = module
        made.append(module.__name__)
        return PluginEntry("hooks", name, f"dist-{name}", "1.0", module.__name__)

    yield make
    for each in made:
        sys.modules.pop(each, None)


def test_without_plugins_every_list_is_empty() -> None:
    hooks = Hooks.installed(Registry(bundled_only=True))
    assert hooks.middleware == hooks.routes == hooks.request_filters == hooks.collectors() == []
    assert hooks.filter_request(REQUEST) is REQUEST
    assert hooks.filter_delta(REQUEST, DELTA) is DELTA
    with hooks.running(make_settings({})):
        pass


def test_plugins_are_called_by_name_and_tryfirst_goes_before(plugin: Make) -> None:
    def named(value: str) -> Callable[[], object]:
        @hookimpl
        def asgi_middleware() -> object:
            return value

        return asgi_middleware

    @hookimpl(tryfirst=True)
    def asgi_middleware() -> list[str]:
        return ["first", "second"]

    entries = [plugin("b", named("b")), plugin("a", named("a")), plugin("z", asgi_middleware)]
    assert Hooks(entries).middleware == ["first", "second", "a", "b"]


def test_every_observer_is_told_and_names_only_what_it_wants(plugin: Make) -> None:
    told: list[object] = []

    @hookimpl
    def request_finished(record: RequestRecord) -> None:
        told.append(record)

    @hookimpl
    def step_statistics(statistics: EngineStats) -> None:
        told.append(statistics)

    @hookimpl
    def startup() -> None:
        told.append("startup")

    @hookimpl
    def shutdown() -> None:
        told.append("shutdown")

    @hookimpl
    def metrics() -> object:
        return "collector"

    functions = (request_finished, step_statistics, startup, shutdown, metrics)
    hooks = Hooks([plugin("a", *functions)])
    with hooks.running(make_settings({})):
        hooks.request_finished(RECORD)
        hooks.step_statistics(STATISTICS)
    assert told == ["startup", RECORD, STATISTICS, "shutdown"]
    with pytest.raises(EngineError), hooks.running(make_settings({})):
        raise EngineError("it died")
    assert told[4:] == ["startup", "shutdown"]
    assert hooks.collectors() == ["collector"]


def test_an_observer_that_raises_is_logged_once_and_the_others_are_told(
    plugin: Make, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[object] = []

    def bad() -> Callable[..., object]:
        @hookimpl
        def request_finished() -> None:
            raise ValueError("bad")

        return request_finished

    @hookimpl
    def request_finished(record: object) -> None:
        told.append(record)

    hooks = Hooks([plugin("a", bad()), plugin("b", request_finished)])
    with caplog.at_level(logging.ERROR):
        for _ in range(3):
            hooks.request_finished(RECORD)
    assert told == [RECORD] * 3
    assert len(caplog.records) == 1 and "dist-a 1.0" in caplog.text


@pytest.mark.parametrize("hook", ["asgi_middleware", "routes", "request_filter", "startup"])
def test_what_must_not_be_skipped_ends_the_start(plugin: Make, hook: str) -> None:
    def fail() -> None:
        raise ValueError("no key\nat all")

    fail.__name__ = hook
    with pytest.raises(BrokenPluginError) as error:
        Hooks([plugin("a", hookimpl(fail))]).running(make_settings({})).__enter__()
    text = str(error.value)
    assert "dist-a 1.0" in text and "ValueError: no key" in text and "\n" not in text


def test_a_plugin_that_cannot_be_imported_ends_the_start() -> None:
    with pytest.raises(BrokenPluginError, match=r"dist 1\.0 is broken: ModuleNotFoundError"):
        Hooks([PluginEntry("hooks", "a", "dist", "1.0", "no_such_module_at_all")])


def test_an_unknown_hook_gets_a_suggestion(plugin: Make) -> None:
    @hookimpl
    def request_finnished() -> None: ...

    with pytest.raises(BrokenPluginError, match="did you mean 'request_finished'"):
        Hooks([plugin("a", request_finnished)])


def test_an_argument_that_no_hook_has_is_refused(plugin: Make) -> None:
    @hookimpl
    def request_finished(recrod: object) -> None: ...

    with pytest.raises(BrokenPluginError, match="recrod"):
        Hooks([plugin("a", request_finished)])


def test_filters_change_and_refuse_and_a_broken_one_fails_that_request_alone(plugin: Make) -> None:
    def change(request: GenerationRequest) -> GenerationRequest:
        if request.priority == 9:
            raise RequestError("not today", param="priority")
        if request.priority == 8:
            raise ZeroDivisionError("secret detail")
        return GenerationRequest("changed", request.prompt_token_ids, request.sampling)

    def shout(request: GenerationRequest, delta: ChoiceDelta) -> ChoiceDelta:
        if delta.index == 9:
            raise ZeroDivisionError("secret detail")
        return ChoiceDelta(delta.index, delta.text.upper(), delta.token_ids)

    @hookimpl
    def request_filter() -> object:
        return change

    @hookimpl
    def response_filter() -> object:
        return shout

    hooks = Hooks([plugin("a", request_filter, response_filter)])
    assert hooks.filter_request(REQUEST).request_id == "changed"
    assert hooks.filter_delta(REQUEST, DELTA).text == "HELLO"
    with pytest.raises(RequestError, match="not today"):
        hooks.filter_request(GenerationRequest("r", (1,), SamplingParams(), priority=9))
    failures: list[Callable[[], object]] = [
        lambda: hooks.filter_request(GenerationRequest("r", (1,), SamplingParams(), priority=8)),
        lambda: hooks.filter_delta(REQUEST, ChoiceDelta(9, "", ())),
    ]
    for failing in failures:
        with pytest.raises(RequestError) as error:
            failing()
        assert error.value.status == 500 and "secret" not in str(error.value)


def test_two_plugins_cannot_offer_one_command(plugin: Make) -> None:
    def offer() -> Callable[..., object]:
        @hookimpl
        def commands() -> object:
            return {"greet": lambda words: 7}

        return commands

    assert Hooks([plugin("a", offer())]).commands["greet"]([]) == 7
    with pytest.raises(PluginError, match="'greet'"):
        _ = Hooks([plugin("a", offer()), plugin("b", offer())]).commands


def test_every_hook_says_what_it_is() -> None:
    for name, hook in vars(HookSpecs).items():
        assert name.startswith("_") or hook.__doc__
