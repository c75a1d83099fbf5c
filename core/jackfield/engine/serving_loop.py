"""The loop of an engine that serves: messages in, a step, tokens out."""

from __future__ import annotations

import time
from collections import deque

from jackfield.contracts.messages import (
    AbortRequests,
    AddRequest,
    CallWorkers,
    Question,
    ResetPrefixCache,
    Sleep,
    StopEngine,
    WakeUp,
)
from jackfield.engine.clients import KEY_BITS, Clients, Message
from jackfield.engine.idle import Idle
from jackfield.engine.pulse import Pulse
from jackfield.engine.sleeping import Sleeper
from jackfield.engine.step_clock import IDLE, RECEIVE, SEND
from jackfield.engine.step_loop import EngineCore
from jackfield.engine.worker_calls import answer_call
from jackfield.errors import EngineError

LAST_WORDS_SECONDS = 2.0
GRAMMAR_POLL_SECONDS = 0.002


class ServingLoop:
    """One thread's. ``loads_early``: what requests may need that have not come yet."""

    def __init__(
        self,
        core: EngineCore,
        clients: Clients,
        pulse: Pulse,
        sleeper: Sleeper,
        *,
        loads_early: bool,
    ) -> None:
        self._core, self._clients = core, clients
        self._pulse, self._sleeper = pulse, sleeper
        warm_up = core.warm_up if loads_early else None
        self._idle = Idle(warm_up, sleeper.give_back_memory, sleeper.use_idle_time)
        self._questions: deque[tuple[int, Question]] = deque()
        """With who asked; answered in their order."""

    def run(self) -> None:
        """Until told to stop, or the parent is gone. Sleeps in the kernel while there is nothing
        to do."""
        core, clients, pulse = self._core, self._clients, self._pulse
        pulse.is_idle = False
        while not clients.closed:
            for client, message in clients.poll():
                if isinstance(message, StopEngine):
                    self._stop()
                    return
                self._take_in(client, message)
            if clients.closed:
                return
            if clients.gone:
                self._end_requests_of_gone()
            if self._questions:
                self._answer()
            core.clock.mark(RECEIVE)
            if core.has_work:
                tokens = core.step()
                if tokens is not None:
                    clients.send_step(tokens)
                core.clock.mark(SEND)
                pulse.turns += 1
                self._idle.has_worked = True
            else:
                self._wait()

    def _wait(self) -> None:
        self._pulse.is_idle = True
        began = time.monotonic()
        is_compiling = self._core.is_compiling
        self._clients.wait(GRAMMAR_POLL_SECONDS if is_compiling else self._idle.patience_seconds)
        self._idle.waited(time.monotonic() - began)
        self._core.clock.mark(IDLE)
        self._pulse.is_idle = False

    def _stop(self) -> None:
        self._core.abort_all()
        tokens = self._core.take_output()
        if tokens is not None:
            self._clients.send_step(tokens)
        self._clients.drain(LAST_WORDS_SECONDS)

    def _take_in(self, client: int, message: Message) -> None:
        if isinstance(message, AddRequest | AbortRequests | ResetPrefixCache):
            self._core.take_in(message)
            if isinstance(message, AddRequest) and self._goes_to_sleep():
                # Sent by a client that did not know yet.
                self._core.take_in(AbortRequests([message.key]))
        elif isinstance(message, Question):
            self._questions.append((client, message))
        else:
            raise EngineError("the engine was started twice")

    def _goes_to_sleep(self) -> bool:
        asked = any(isinstance(question, Sleep) for _, question in self._questions)
        return asked or self._sleeper.is_asleep

    def _end_requests_of_gone(self) -> None:
        """Nobody waits for the tokens of a client that has left."""
        gone = frozenset(self._clients.gone)
        self._clients.gone.clear()
        keys = [key for key in self._core.requests if key >> KEY_BITS in gone]
        self._core.take_in(AbortRequests(keys))

    def _answer(self) -> None:
        """All questions whose time has come: an engine sleeps once its requests have ended."""
        core, pulse = self._core, self._pulse
        while self._questions:
            client, question = self._questions[0]
            if isinstance(question, Sleep) and (core.has_work or core.requests):
                return
            self._questions.popleft()
            # It may take as long as it likes.
            pulse.is_idle = True
            if isinstance(question, CallWorkers):
                self._clients.send_answer(client, answer_call(self._sleeper.executor, question))
            else:
                self._clients.send_sleep_state(client, self._sleeper.obey(question))
            pulse.is_idle = False
            if isinstance(question, WakeUp):
                self._idle.prepare_again()
