"""What a serving engine does with the messages of its clients, in which order."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import cast

import msgspec
import numpy as np
import pytest
from tests.core.engine.test_constrained import PROMPT, engine, held

from jackfield.contracts.grammar import CompiledGrammar, GrammarSpec
from jackfield.contracts.messages import (
    AbortRequests,
    AddRequest,
    CallAnswer,
    CallWorkers,
    FinishReason,
    Sleep,
    SleepState,
    StepTokens,
    StopEngine,
    ToEngine,
    WakeUp,
)
from jackfield.contracts.sampling import TokenSampling
from jackfield.contracts.work import Executor
from jackfield.engine.clients import Clients
from jackfield.engine.pulse import Pulse
from jackfield.engine.serving_loop import ServingLoop
from jackfield.engine.sleeping import Sleeper
from jackfield.testing.simulated_engine import SimulatedEngine
from jackfield_grammars.xgrammar import XGrammarBackend

Script = Iterator[list[tuple[int, ToEngine]]]


class ScriptedClients:
    """Sends what the script has at each turn, and keeps what it is sent."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self.closed = False
        self.gone: list[int] = []
        self.answers: list[tuple[int, SleepState | CallAnswer]] = []
        self.finish: dict[int, FinishReason] = {}

    def poll(self) -> list[tuple[int, ToEngine]]:
        return next(self._script, [(0, StopEngine())])

    def wait(self, timeout_seconds: float | None = None) -> None:
        time.sleep(min(timeout_seconds or 0.0, 0.001))

    def drain(self, timeout_seconds: float) -> None:
        pass

    def send_step(self, step: StepTokens) -> None:
        keys = np.frombuffer(step.keys, "<i8").tolist()
        ends = np.frombuffer(step.finish, np.int8).tolist()
        self.finish |= {key: FinishReason(end) for key, end in zip(keys, ends, strict=True) if end}

    def send_sleep_state(self, client: int, state: SleepState) -> None:
        self.answers.append((client, state))

    def send_answer(self, client: int, answer: CallAnswer) -> None:
        self.answers.append((client, answer))


class SleepyExecutor:
    """Can sleep, and notes whose requests were there then."""

    name = "sleepy"

    def __init__(self, made: SimulatedEngine) -> None:
        self._made = made
        self.slept_over: list[int] = []
        self.num_sleeps = 0

    def sleep(self, level: int) -> None:
        self.num_sleeps += 1
        self.slept_over += self._made.core.requests

    def wake_up(self) -> None:
        pass

    def collective_rpc(self, method: str, *arguments: object) -> list[object]:
        return [method]


class Turns:
    """A ``Pulse`` that beats nowhere."""

    turns = 0
    is_idle = True


def serve(made: SimulatedEngine, clients: ScriptedClients) -> tuple[SleepyExecutor, Turns]:
    executor, pulse = SleepyExecutor(made), Turns()
    sleeper = Sleeper(made.core, cast(Executor, executor))
    loop = ServingLoop(
        made.core, cast(Clients, clients), cast(Pulse, pulse), sleeper, loads_early=False
    )
    loop.run()
    return executor, pulse


def add(key: int, max_tokens: int, sampling: TokenSampling | None = None) -> tuple[int, AddRequest]:
    ids = np.array(PROMPT, dtype="<i4").tobytes()
    return 1, AddRequest(key, ids, sampling or TokenSampling(), max_tokens, 0.0)


def turns(ends: Callable[[], bool], *first: list[tuple[int, ToEngine]]) -> Script:
    """These messages, one list a turn, and none until it is over."""
    yield from first
    deadline = time.monotonic() + 20
    while not ends():
        assert time.monotonic() < deadline, "it never comes to its end"
        yield []


def test_sleep_waits_for_the_requests_of_others_and_meanwhile_the_engine_listens() -> None:
    made = engine()
    script = turns(
        lambda: bool(clients.answers),
        [add(1, 40), add(2, 40)],
        [],
        [(2, Sleep(1))],
        [(1, AbortRequests([2]))],
        [add(3, 4)],
    )
    clients = ScriptedClients(script)
    executor, pulse = serve(made, clients)
    assert clients.answers == [(2, SleepState(True))] and executor.slept_over == []
    ends = {1: FinishReason.LENGTH, 2: FinishReason.ABORT, 3: FinishReason.ABORT}
    assert clients.finish == ends
    # The watch sees that steps end.
    assert pulse.turns >= 40


def test_nobody_sleeps_over_a_request_whose_grammar_is_being_compiled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    may_go_on = threading.Event()
    compile_grammar = XGrammarBackend.compile

    def slow(backend: XGrammarBackend, spec: GrammarSpec) -> CompiledGrammar:
        assert may_go_on.wait(20)
        return compile_grammar(backend, spec)

    monkeypatch.setattr(XGrammarBackend, "compile", slow)

    def script() -> Script:
        yield [add(1, 12, held("[ab]{3}"))]
        yield [(2, Sleep(1))]
        yield []
        may_go_on.set()
        yield from turns(lambda: bool(clients.answers))

    clients = ScriptedClients(script())
    executor, _ = serve(engine(), clients)
    assert clients.answers == [(2, SleepState(True))] and executor.slept_over == []
    assert clients.finish == {1: FinishReason.STOP}


def test_questions_are_answered_in_their_order_and_wake_up_waits_for_nobody() -> None:
    nothing = msgspec.msgpack.encode([]), msgspec.msgpack.encode({})
    call = CallWorkers("add", *nothing)
    script = turns(
        lambda: len(clients.answers) == 5,
        [add(1, 60)],
        [(1, call), (1, WakeUp())],
        [(1, Sleep(1)), (1, call), (1, WakeUp())],
    )
    clients = ScriptedClients(script)
    executor, _ = serve(engine(), clients)
    called = CallAnswer(msgspec.msgpack.encode(["add"]))
    wanted = [called, SleepState(False), SleepState(True), called, SleepState(False)]
    assert [answer for _, answer in clients.answers] == wanted
    assert executor.num_sleeps == 1 and clients.finish == {1: FinishReason.LENGTH}
