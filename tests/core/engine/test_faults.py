"""Whatever fails in the engine at whatever call: a request ends by itself, nothing is left."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
from tests.core.engine.test_constrained import PROMPT, engine, held
from tests.faults import Fault, InjectedError, failing

import jackfield.engine.step_loop as step_loop
from jackfield.contracts.messages import FinishReason
from jackfield.contracts.sampling import TokenSampling
from jackfield.engine.constrained import ConstrainedRequests
from jackfield.engine.constraint import Constraint
from jackfield.engine.grammar_compiler import GrammarCompiler
from jackfield.testing.simulated_engine import SimulatedEngine
from jackfield_grammars.xgrammar import XGrammarBackend, XGrammarCompiled
from jackfield_schedulers.fcfs import FcfsScheduler

Injection = Callable[[Fault], AbstractContextManager[None]]

ADMISSION: dict[str, Injection] = {
    "admission": lambda fault: failing(step_loop, "make_request", fault),
    "scheduler": lambda fault: failing(FcfsScheduler, "add", fault),
}
GRAMMAR: dict[str, Injection] = {
    "adding": lambda fault: failing(ConstrainedRequests, "add", fault),
    "compile": lambda fault: failing(XGrammarBackend, "compile", fault),
    "backend": lambda fault: failing(GrammarCompiler, "_backend", fault),
    "matcher": lambda fault: failing(XGrammarCompiled, "matcher", fault),
    "accept": lambda fault: failing(Constraint, "accept", fault),
}


def crowd(made: SimulatedEngine) -> list[int]:
    """Requests of both kinds, each grammar its own, so that each is compiled."""
    keys = [made.add([*PROMPT, index], 12) for index in range(4)]
    for index in range(4):
        pattern = f"[a-c]{{2,{index + 4}}}"
        keys.append(made.add([*PROMPT, 50 + index], 12, sampling=held(pattern)))
    return keys


def check(made: SimulatedEngine, keys: list[int], most_failed: int) -> int:
    """Every request has one end, at most so many a bad one; nothing is held. How many failed."""
    made.run()
    answers = [made.answers[key] for key in keys]
    assert all(answer.finish for answer in answers)
    failed = [answer for answer in answers if answer.finish == FinishReason.ERROR]
    assert len(failed) <= most_failed
    made.check_empty()
    return len(failed)


@pytest.mark.parametrize("at", [1, 2, 5, 8])
@pytest.mark.parametrize("point", ADMISSION)
def test_a_fault_in_admission_costs_its_request_alone(point: str, at: int) -> None:
    made = engine()
    fault = Fault(at, forever=False)
    with ADMISSION[point](fault):
        keys = crowd(made)
        assert check(made, keys, most_failed=1) == 1
    assert fault.happened
    # What a grammar's compiler says is told; an inner error is not.
    assert not any("injected" in (made.answers[key].message or "") for key in keys)
    assert check(made, crowd(made), most_failed=0) == 0


@pytest.mark.parametrize("point", ADMISSION)
def test_admission_that_fails_for_ever_fails_what_comes_then(point: str) -> None:
    made = engine()
    with ADMISSION[point](Fault(4, forever=True)):
        assert check(made, crowd(made), most_failed=5) == 5
    assert check(made, crowd(made), most_failed=0) == 0


@pytest.mark.parametrize("at", [1, 2, 4])
@pytest.mark.parametrize("point", GRAMMAR)
def test_a_fault_of_a_grammar_costs_its_request_alone(point: str, at: int) -> None:
    made = engine()
    fault = Fault(at, forever=False)
    with GRAMMAR[point](fault):
        assert check(made, crowd(made), most_failed=1) == 1
    assert fault.happened
    assert check(made, crowd(made), most_failed=0) == 0


@pytest.mark.parametrize("point", GRAMMAR)
def test_grammars_that_fail_for_ever_cost_no_request_without_one(point: str) -> None:
    made = engine()
    with GRAMMAR[point](Fault(1, forever=True)):
        keys = crowd(made)
        assert check(made, keys, most_failed=4) == 4
        assert all(len(made.answers[key].token_ids) == 12 for key in keys[:4])
    # What failed was not kept: the same grammars are compiled again.
    assert check(made, crowd(made), most_failed=0) == 0


def test_a_request_that_fails_while_it_ends_is_no_lost_request() -> None:
    """Nobody knows what the scheduler holds then: the engine ends, and every stream with it."""
    made = engine()
    made.add([*PROMPT, 1], 12, sampling=TokenSampling(stop_token_ids=tuple(range(97))))
    with failing(FcfsScheduler, "finish", Fault(1, forever=False)), pytest.raises(InjectedError):
        made.run(max_steps=100)
