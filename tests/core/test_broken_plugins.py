"""Broken plugins of every kind: one clear line or one failed request, never a dead server.

docs/plugins.md says what each fault costs. A call that never returns cannot be stopped; where that
can be told (``plugins verify``, a step of the engine, a grammar) there is a deadline, tested there.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from tests.core.cli.distributions import install
from tests.core.llm.test_supervision import POLICY, request, serving_plan, tokens, until_ready
from tests.core.server.fake_llm import FakeLLM
from tests.waiting import PATIENCE_SECONDS

from jackfield.contracts.generation import GenerationRequest, RequestRecord
from jackfield.contracts.sampling import SamplingParams
from jackfield.errors import JackfieldError, PluginError
from jackfield.hooks import Hooks
from jackfield.llm import AsyncLLM
from jackfield.llm.parsers import ParserPlugin
from jackfield.registry import HOOKS, KINDS, Registry
from jackfield.registry.conformance import required_members
from jackfield.server.app import build_app
from jackfield.server.door import Frontend
from jackfield.server.options import ServerOptions
from jackfield.testing.simulated_worker import continuation

log = logging.getLogger(__name__)

WRITABLE = [kind.name for kind in KINDS.values() if kind.contract is not None]
Install = Callable[..., Registry]


@pytest.fixture
def acme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Makes a distribution with one plugin, and a registry that sees it."""
    monkeypatch.syspath_prepend(str(tmp_path))
    made: list[str] = []

    def make(kind: str, code: str, extra: str = "", distribution: str = "acme") -> Registry:
        module = f"broken_{distribution}_{kind}"
        points = {kind: {"broken": f"{module}:Plugin{extra}"}}
        install(tmp_path, distribution, points, {module: code})
        importlib.invalidate_caches()
        sys.modules.pop(module, None)
        made.append(module)
        return Registry()

    yield make
    for module in made:
        sys.modules.pop(module, None)


def good(kind: str, **changes: object) -> list[str]:
    """The lines of a class that has all its kind asks for."""
    contract = KINDS[kind].contract
    assert contract is not None
    module = importlib.import_module(contract.partition(":")[0])
    members = required_members(getattr(module, KINDS[kind].contract_name))
    values: dict[str, object] = {"name": "broken", "api_version": 1, **changes}
    lines = ["class Plugin:", "    def __init__(self, *arguments, **named): pass"]
    lines += [f"    {name} = {value!r}" for name, value in values.items()]
    for member in members:
        if member not in values:
            lines.append(f"    def {member}(self, *arguments, **named): return None")
    return lines


def faults(kind: str) -> dict[str, tuple[str, str]]:
    """What is wrong: the module's code, and what the line must say."""
    lines = good(kind)
    return {
        "missing import": ("import no_such_module_at_all", "No module named"),
        "sys.exit": ("import sys; sys.exit(4)", "SystemExit: 4"),
        "no class": ("Plugin = 3", "no class"),
        "no attribute": ("Plugins = 3", "has no attribute 'Plugin'"),
        "wrong version": ("\n".join(good(kind, api_version=99)), "contract version 99"),
        "no version": ("\n".join(lines[:3]), "no api_version"),
        "wrong base": ("\n".join(good(kind)[:4]), "lacks"),
        "options not taken": (
            "\n".join([*lines, "    class Options: pass", "    def __init__(self): pass"]),
            "no parameter options",
        ),
    }


def one_line(error: pytest.ExceptionInfo[PluginError]) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize("kind", WRITABLE)
@pytest.mark.parametrize("fault", list(faults("tool_parsers")))
def test_one_that_cannot_be_loaded_is_named_in_one_line(
    kind: str, fault: str, acme: Install
) -> None:
    importlib.import_module(str(KINDS[kind].contract).partition(":")[0])
    code, part = faults(kind)[fault]
    if fault == "wrong base" and not [m for m in good(kind)[4:] if "def" in m]:
        pytest.skip("the kind asks for nothing but a name")
    registry = acme(kind, code)
    with pytest.raises(PluginError) as error:
        registry.load(kind, "broken")
    text = one_line(error)
    assert part in text and kind in text and "'broken' of acme 2.5" in text


@pytest.mark.parametrize("kind", WRITABLE)
def test_a_version_that_the_entry_point_states_is_refused_unimported(
    kind: str, acme: Install
) -> None:
    registry = acme(kind, "raise AssertionError('imported')", extra=" [api-99]")
    for choose in (registry.find, registry.load):
        with pytest.raises(PluginError) as error:
            choose(kind, "broken")
        assert "contract version 99" in one_line(error) and "acme 2.5" in one_line(error)


@pytest.mark.parametrize("kind", WRITABLE)
def test_a_name_that_two_offer_is_refused_and_one_can_be_left_out(kind: str, acme: Install) -> None:
    code = "\n".join(good(kind))
    acme(kind, code)
    registry = acme(kind, code, distribution="globex")
    with pytest.raises(PluginError) as error:
        registry.load(kind, "broken")
    text = one_line(error)
    assert "acme 2.5" in text and "globex 2.5" in text and "--disable-plugin" in text
    assert Registry(disabled=["Acme"]).load(kind, "broken").__module__ == f"broken_globex_{kind}"


@pytest.mark.parametrize("kind", WRITABLE)
@pytest.mark.parametrize("code", ["raise ValueError('no')", "import sys; sys.exit(4)"])
def test_a_constructor_that_fails_is_named_in_one_line(kind: str, code: str, acme: Install) -> None:
    lines = good(kind)
    lines[1] = f"    def __init__(self, *arguments, **named): {code}"
    registry = acme(kind, "\n".join(lines))
    with pytest.raises(PluginError) as error:
        registry.make(kind, "broken")
    text = one_line(error)
    assert "its constructor raised" in text and "'broken' of acme 2.5" in text


# --- in an engine ----------------------------------------------------------------------

ENGINE_PLUGINS = {
    "schedulers": "from jackfield_schedulers.fcfs import FcfsScheduler as Base\n",
    "executors": "from jackfield_executors.uni import UniExecutor as Base\n",
    "workers": "from tests.core.engine.workers_for_tests import NotedWorker as Base\n",
}
FATAL = [
    ("schedulers", "schedule", "import sys; sys.exit(3)"),
    ("executors", "execute", "raise ValueError('no')"),
    ("workers", "execute", "return None"),
]
"""The step's own plugins: what they raise ends the engine, which is replaced."""
BAD_LENGTH = 13


def failing(kind: str, method: str, code: str) -> str:
    """Fails when a prompt of ``BAD_LENGTH`` tokens is about; else does what its base does."""
    bad, noting = f"any(len(r.token_ids) == {BAD_LENGTH} for r in a[0].admitted)", ""
    if kind == "schedulers":
        bad = "self.was_bad"
        noting = (
            "    was_bad = False\n    def add(self, request):\n"
            f"        self.was_bad |= request.num_prompt_tokens == {BAD_LENGTH}\n"
            "        super().add(request)\n"
        )
    return (
        f"{ENGINE_PLUGINS[kind]}class Plugin(Base):\n    name = 'broken'\n{noting}"
        f"    def {method}(self, *a):\n        if {bad}:\n            {code}\n"
        f"        return super().{method}(*a)\n"
    )


@asynccontextmanager
async def engine(kind: str) -> AsyncIterator[AsyncLLM]:
    worker = "broken" if kind == "workers" else "NotedWorker"
    plan = serving_plan(worker, max_num_batched_tokens=32)
    chosen = plan.engine
    if kind == "schedulers":
        chosen = msgspec.structs.replace(chosen, scheduler="broken")
    changes = {"executor": "broken"} if kind == "executors" else {}
    if kind == "workers":
        changes = {"worker": "broken"}
    chosen = msgspec.structs.replace(
        chosen, worker=msgspec.structs.replace(chosen.worker, **changes)
    )
    llm = AsyncLLM(replace(plan, engine=chosen), Registry(), POLICY)
    await llm.start()
    try:
        yield llm
    finally:
        await llm.stop()


@pytest.mark.parametrize(("kind", "method", "code"), FATAL)
async def test_the_engine_that_a_plugin_ends_is_replaced(
    kind: str,
    method: str,
    code: str,
    acme: Install,
    caplog: pytest.LogCaptureFixture,
) -> None:
    acme(kind, failing(kind, method, code))
    async with engine(kind) as llm:
        bad = await asyncio.wait_for(llm.collect(request([1] * BAD_LENGTH, 3)), PATIENCE_SECONDS)
        assert bad[-1].finish is not None and bad[-1].finish.reason == "error"
        await until_ready(llm)
        deltas = await asyncio.wait_for(llm.collect(request([5, 6], 4)), PATIENCE_SECONDS)
        assert tokens(deltas) == continuation([5, 6], 4, 97)
        assert llm.num_restarts
    if "return" not in code:
        assert f"{kind} plugin 'broken' of acme 2.5" in caplog.text


async def test_a_request_that_the_scheduler_does_not_take_fails_alone(
    acme: Install,
) -> None:
    code = (
        f"{ENGINE_PLUGINS['schedulers']}import sys\nclass Plugin(Base):\n    name = 'broken'\n"
        f"    def add(self, request):\n        if request.num_prompt_tokens == {BAD_LENGTH}:\n"
        "            sys.exit(3)\n        super().add(request)\n"
    )
    acme("schedulers", code)
    async with engine("schedulers") as llm:
        bad, fine = await asyncio.gather(
            llm.collect(request([1] * BAD_LENGTH, 3)), llm.collect(request([5, 6], 4))
        )
        assert bad[-1].finish is not None and bad[-1].finish.reason == "error"
        assert tokens(fine) == continuation([5, 6], 4, 97)
        assert llm.num_restarts == 0


# --- in the API process ----------------------------------------------------------------

BYTES = """
from tests.core.server.fake_llm import ByteTokenizer
class Plugin:
    name = 'broken'
    api_version = 1
    def load(self, directory, *, trust_remote_code=False): return ByteTokenizer()
"""
PARSER_FAULTS = {
    "the constructor": ("__init__(self, context)", "raise ValueError('no')"),
    "the constructor exits": ("__init__(self, context)", "import sys; sys.exit(3)"),
    "feed": ("feed(self, text)", "raise ValueError('no')"),
    "feed exits": ("feed(self, text)", "import sys; sys.exit(3)"),
    "feed returns nothing": ("feed(self, text)", "return None"),
    "feed returns text": ("feed(self, text)", "return [text]"),
    "finish": ("finish(self)", "raise OSError('no')"),
    "finish returns junk": ("finish(self)", "return [3]"),
}


async def test_a_parser_that_fails_costs_its_own_request(
    acme: Install, caplog: pytest.LogCaptureFixture
) -> None:
    """Both kinds and every fault, on one engine."""
    acme("tokenizers", BYTES)
    plan = serving_plan("NotedWorker", tokenizer_mode="broken", chat_template="{{ messages }}")
    llm = AsyncLLM(plan, Registry(), POLICY)
    await llm.start()
    parsed = GenerationRequest(
        "r", (5, 6), SamplingParams(max_tokens=3, ignore_eos=True), parse=True, tools=({},)
    )
    before: list[str] = []
    try:
        for number, (fault, (method, code)) in enumerate(PARSER_FAULTS.items()):
            for kind in ("tool_parsers", "reasoning_parsers"):
                lines = [*good(kind), f"    def {method}: {code}"]
                lines = [line for line in lines if "return None" not in line or code in line]
                for other in ("feed(self, text)", "finish(self)"):
                    if other != method:
                        lines.append(f"    def {other}: return []")
                name = f"acme{number}-{kind}"
                acme(kind, "\n".join(lines), distribution=name)
                plugin: Any = ParserPlugin(Registry(disabled=before), kind, "broken")
                if kind == "tool_parsers":
                    llm._text._tool_parser = plugin
                else:
                    llm._text._reasoning_parser = plugin
                await expect_failure(llm, parsed, fault)
                assert f"{kind} plugin 'broken' of {name} 2.5" in caplog.text, fault
                llm._text._tool_parser = llm._text._reasoning_parser = None
                before.append(name)
                fine = await llm.collect(replace(parsed, parse=False))
                assert fine[-1].finish is not None and fine[-1].finish.reason == "length"
    finally:
        await llm.stop()


async def expect_failure(llm: AsyncLLM, wanted: GenerationRequest, fault: str) -> None:
    try:
        deltas = await llm.collect(wanted)
    except JackfieldError as error:
        assert "constructor" in fault, fault
        log.error("%s", error)
        return
    assert deltas[-1].finish is not None and deltas[-1].finish.reason == "error", fault


MIDDLEWARE = {
    "raises": "raise ValueError('a secret')",
    "exits": "import sys; sys.exit(3)",
    "answers nothing": "return None",
    "sends junk": "await send({'type': 'nonsense'})",
}


@pytest.mark.parametrize("fault", list(MIDDLEWARE))
async def test_a_middleware_that_fails_costs_its_own_request(fault: str, acme: Install) -> None:
    code = (
        "class Plugin:\n    name = 'broken'\n    api_version = 1\n"
        "    def __init__(self, app): self.app = app\n"
        "    async def __call__(self, scope, receive, send):\n"
        "        if (b'x-bad', b'1') not in scope['headers']:\n"
        "            return await self.app(scope, receive, send)\n"
        f"        {MIDDLEWARE[fault]}\n"
    )
    registry = acme("middleware", code)
    options = ServerOptions(middleware=("broken",))
    app = build_app(Frontend(FakeLLM(), options), Hooks(), registry)
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    async with httpx.AsyncClient(base_url="http://server", transport=transport) as http:
        body = {"prompt": "a", "max_tokens": 2}
        try:
            answer = await http.post("/v1/completions", json=body, headers={"x-bad": "1"})
            assert answer.status_code >= 500 and "secret" not in answer.text
        except (AssertionError, httpx.HTTPError):
            assert fault in ("answers nothing", "sends junk")
        assert (await http.post("/v1/completions", json=body)).status_code == 200


HOOKED = """
import sys
import fastapi
from jackfield.hooks import hookimpl
router = fastapi.APIRouter()
@router.get('/exits')
def exits(): sys.exit(3)
class Collector:
    def collect(self): sys.exit(3)
@hookimpl
def routes(): return router
@hookimpl
def metrics(): return Collector()
@hookimpl
def request_filter():
    def change(request):
        if request.priority == 8: sys.exit(3)
        return 3 if request.priority == 9 else request
    return change
@hookimpl
def request_finished(record): sys.exit(3)
"""


async def test_hooks_that_exit_cost_their_own_request(
    acme: Install, caplog: pytest.LogCaptureFixture
) -> None:
    registry = acme(HOOKS, HOOKED.replace("class Plugin", ""))
    (entry,) = [each for each in registry.list(HOOKS) if each.name == "broken"]
    hooks = Hooks([replace(entry, value=entry.value.partition(":")[0])], registry)
    llm = FakeLLM()
    app = build_app(Frontend(llm, ServerOptions()), hooks, registry)
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    async with httpx.AsyncClient(base_url="http://server", transport=transport) as http:
        assert (await http.get("/exits")).status_code >= 500
        assert "jackfield:request_success_total" in (await http.get("/metrics")).text
        for priority, status in ((8, 500), (9, 500), (0, 200)):
            body = {"prompt": "a", "max_tokens": 2, "priority": priority}
            assert (await http.post("/v1/completions", json=body)).status_code == status
    for observer in llm.observers:
        observer.request_finished(record())
    assert "'broken' of acme 2.5" in caplog.text


def record() -> RequestRecord:
    return RequestRecord("r1", 0.0, None, None, None, 2, 0, 0, "abort", 1, 16)
