"""Grammars that work beside the step loop: the same outputs, and no request waits for another."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from typing import ClassVar

import pytest

import jackfield.engine.constrained as constrained
from jackfield.contracts.grammar import (
    CompiledGrammar,
    GrammarMatcher,
    GrammarSpec,
    Masks,
    Vocabulary,
)
from jackfield.contracts.messages import FinishReason
from jackfield.contracts.sampling import TokenSampling
from jackfield.contracts.scheduling import SchedulerLimits
from jackfield.engine.grammar_compiler import GrammarCompiler
from jackfield.testing.simulated_engine import Answer, SimulatedEngine
from jackfield_grammars.auto import AutoBackend
from jackfield_schedulers.fcfs import FcfsScheduler

STOP, THINK, ANSWER, WIDTH = 256, 257, 258, 261
SCHEMA = json.dumps(
    {
        "type": "object",
        "properties": {
            "customer_identification": {"type": "integer", "minimum": 0, "maximum": 99},
            "labels": {"type": "array", "items": {"enum": ["north", "south"]}, "uniqueItems": True},
        },
        "required": ["customer_identification", "labels"],
        "additionalProperties": False,
    }
)
SPECS = (
    GrammarSpec(kind="json_schema", text=SCHEMA, whitespace=""),
    GrammarSpec(kind="regex", text="[a-f]{3,9}"),
    GrammarSpec(kind="choice", text='["an answer of some length", "an answer of no length"]'),
)


def encode(text: str) -> list[int]:
    return list(text.encode())


VOCABULARY = Vocabulary(
    (*(bytes((byte,)) for byte in range(256)), *[b""] * (WIDTH - 256)), {}, encode
)
BACKEND = AutoBackend(VOCABULARY)


class Watched:
    """The backends that are installed, and who asks them beside the step loop."""

    name: ClassVar[str] = "watched"
    api_version: ClassVar[int] = 1

    def __init__(self, vocabulary: Vocabulary = VOCABULARY) -> None:
        self.threads: set[int] = set()
        self.refuses = b""
        self.error: BaseException | None = None

    def compile(self, spec: GrammarSpec) -> CompiledGrammar:
        return BACKEND.compile(spec)

    def fill_bitmasks(
        self, matchers: Sequence[GrammarMatcher], masks: Masks, indices: Sequence[int]
    ) -> None:
        BACKEND.fill_bitmasks(matchers, masks, indices)

    def accept_beside(
        self, matchers: Sequence[GrammarMatcher], token_ids: Sequence[int]
    ) -> Sequence[bool]:
        self.threads.add(threading.get_ident())
        if self.error is not None:
            raise self.error
        taken = BACKEND.accept_beside(matchers, token_ids)
        return [
            is_taken and token not in self.refuses
            for is_taken, token in zip(taken, token_ids, strict=True)
        ]

    def fill_beside(
        self, matchers: Sequence[GrammarMatcher], masks: Masks, indices: Sequence[int]
    ) -> None:
        self.threads.add(threading.get_ident())
        BACKEND.fill_beside(matchers, masks, indices)


@pytest.fixture
def _beside(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(constrained, "MIN_BESIDE", 1)
    yield


def engine(backend: Watched, *, num_blocks: int = 200, steps_in_flight: int = 2) -> SimulatedEngine:
    limits = SchedulerLimits(max_num_seqs=8, max_num_batched_tokens=64, max_model_len=160)
    return SimulatedEngine(
        FcfsScheduler(limits),
        limits,
        num_blocks=num_blocks,
        steps_in_flight=steps_in_flight,
        vocabulary=WIDTH,
        grammars=GrammarCompiler(lambda: VOCABULARY, lambda name, vocabulary: backend, "any"),
    )


def held(place: int) -> TokenSampling:
    if place % 4 == 3:
        return TokenSampling()
    return TokenSampling(
        grammar=SPECS[place % 4],
        stop_token_ids=(STOP,),
        reasoning_start_ids=(THINK,) if place % 2 else (),
        reasoning_end_ids=(ANSWER,) if place % 2 else (),
    )


def run(made: SimulatedEngine, num_requests: int = 12, max_tokens: int = 100) -> list[Answer]:
    keys = [
        made.add([1, 2, 3, place], max_tokens, sampling=held(place))
        for place in range(num_requests)
    ]
    made.run()
    made.check_empty()
    return [made.answers[key] for key in keys]


def ids(answers: Sequence[Answer]) -> list[tuple[list[int], FinishReason]]:
    return [(answer.token_ids, answer.finish) for answer in answers]


@pytest.mark.parametrize("num_blocks", [200, 60])
def test_outputs_are_those_of_grammars_that_work_in_the_step_loop(
    num_blocks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = Watched()
    wanted = run(engine(alone, num_blocks=num_blocks))
    assert not alone.threads
    monkeypatch.setattr(constrained, "MIN_BESIDE", 1)
    backend = Watched()
    made = engine(backend, num_blocks=num_blocks)
    assert ids(run(made)) == ids(wanted)
    assert len(backend.threads) == 1 and threading.get_ident() not in backend.threads
    assert made.stats is not None
    assert (made.stats.num_preemptions > 0) == (num_blocks == 60)
    for answer in wanted[::4]:
        if answer.finish == FinishReason.STOP:
            value = json.loads(bytes(i for i in answer.token_ids if i < 256))
            assert len(set(value["labels"])) == len(value["labels"])


@pytest.mark.usefixtures("_beside")
def test_where_the_device_does_not_compute_meanwhile_nothing_is_done_beside() -> None:
    backend = Watched()
    run(engine(backend, steps_in_flight=1))
    assert not backend.threads


@pytest.mark.usefixtures("_beside")
def test_an_id_that_is_refused_costs_its_request_alone() -> None:
    backend = Watched()
    backend.refuses = b"a"
    answers = run(engine(backend))
    failed = [answer for answer in answers if answer.finish == FinishReason.ERROR]
    assert failed and all("does not allow token 97" in (each.message or "") for each in failed)
    assert any(answer.finish == FinishReason.STOP for answer in answers)
    assert all(len(answer.token_ids) == 100 for answer in answers[3::4])


@pytest.mark.usefixtures("_beside")
def test_a_backend_that_raises_costs_its_requests() -> None:
    backend = Watched()
    backend.error = ValueError("broken")
    answers = run(engine(backend))
    assert {answer.finish for answer in answers[::4]} == {FinishReason.ERROR}
    assert all(len(answer.token_ids) == 100 for answer in answers[3::4])


@pytest.mark.usefixtures("_beside")
def test_what_is_no_backends_fault_ends_the_engine() -> None:
    backend = Watched()
    backend.error = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        run(engine(backend))


@pytest.mark.usefixtures("_beside")
def test_a_client_may_leave_while_its_grammar_works() -> None:
    made = engine(Watched())
    keys = [made.add([1, 2, 3, place], 100, sampling=held(place)) for place in range(8)]
    while not all(made.answers[key].token_ids for key in keys):
        made.step()
    made.abort(keys[:4])
    made.run()
    made.check_empty()
    assert {made.answers[key].finish for key in keys[:4]} == {FinishReason.ABORT}
    assert FinishReason.ERROR not in {made.answers[key].finish for key in keys[4:]}
