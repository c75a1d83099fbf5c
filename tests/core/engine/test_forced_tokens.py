"""Tokens that a grammar forces: as many as without jumping over them, in fewer steps."""

from __future__ import annotations

import json
from typing import Any

import pytest

import jackfield.engine.constrained as constrained
from jackfield.contracts.grammar import GrammarSpec, Vocabulary
from jackfield.contracts.messages import FinishReason
from jackfield.contracts.sampling import TokenSampling
from jackfield.contracts.scheduling import Scheduler, SchedulerLimits
from jackfield.engine.constraint import Constraint
from jackfield.engine.grammar_compiler import GrammarCompiler, ReadyGrammar
from jackfield.testing.simulated_engine import Answer, SimulatedEngine
from jackfield_grammars.auto import AutoBackend
from jackfield_schedulers.fcfs import FcfsScheduler
from jackfield_schedulers.priority import PriorityScheduler

STOP, WIDTH = 256, 260
SCHEMA = {
    "type": "object",
    "properties": {
        "customer_identification": {"type": "integer", "minimum": 0, "maximum": 99},
        "preferred_language": {"enum": ["norwegian", "northern sami"]},
        "active": {"type": "boolean"},
    },
    "required": ["customer_identification", "preferred_language", "active"],
    "additionalProperties": False,
}
SPEC = GrammarSpec(kind="json_schema", text=json.dumps(SCHEMA), whitespace="")


def encode(text: str) -> list[int]:
    return list(text.encode())


VOCABULARY = Vocabulary(
    (*(bytes((byte,)) for byte in range(256)), *[b""] * (WIDTH - 256)), {}, encode
)
BACKEND = AutoBackend(VOCABULARY)


def engine(
    scheduler: type[Scheduler] = FcfsScheduler, *, num_blocks: int = 200, steps_in_flight: int = 2
) -> SimulatedEngine:
    limits = SchedulerLimits(max_num_seqs=6, max_num_batched_tokens=24, max_model_len=160)
    return SimulatedEngine(
        scheduler(limits),
        limits,
        num_blocks=num_blocks,
        vocabulary=WIDTH,
        grammars=GrammarCompiler(lambda: VOCABULARY, lambda name, vocabulary: BACKEND, "any"),
        steps_in_flight=steps_in_flight,
    )


def held(logprobs: int | None = None) -> TokenSampling:
    return TokenSampling(grammar=SPEC, stop_token_ids=(STOP,), logprobs=logprobs)


def run(made: SimulatedEngine, max_tokens: int = 150, num_requests: int = 6) -> list[Answer]:
    keys = [
        made.add(
            [1, 2, 3, i], max_tokens, sampling=held() if i % 3 else TokenSampling(), priority=i
        )
        for i in range(num_requests)
    ]
    made.run()
    made.check_empty()
    return [made.answers[key] for key in keys]


def num_steps(made: SimulatedEngine) -> int:
    assert made.stats is not None
    return made.stats.num_steps


@pytest.mark.parametrize("steps_in_flight", [1, 2])
@pytest.mark.parametrize("max_tokens", [150, 40, 17, 3])
def test_outputs_are_those_without_jumps(
    steps_in_flight: int, max_tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    jumping = engine(steps_in_flight=steps_in_flight)
    found = run(jumping, max_tokens)
    monkeypatch.setattr(constrained, "MIN_JUMP", 1000)
    plain = engine(steps_in_flight=steps_in_flight)
    expected = run(plain, max_tokens)
    assert [each.token_ids for each in found] == [each.token_ids for each in expected]
    assert [each.finish for each in found] == [each.finish for each in expected]
    for answer in (found[1], found[2], found[4]):
        text = bytes(each for each in answer.token_ids if each < 256)
        assert answer.finish == FinishReason.LENGTH or set(json.loads(text)) == set(
            SCHEMA["properties"]  # type: ignore[call-overload]
        )


def test_forced_tokens_cost_few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    jumping, plain = engine(), engine()
    for made in (jumping, plain):
        monkeypatch.setattr(constrained, "MIN_JUMP", 2 if made is jumping else 1000)
        made.add([1, 2, 3], 150, sampling=held())
        made.run()
    assert jumping.answers[1].token_ids == plain.answers[1].token_ids
    assert num_steps(plain) >= len(plain.answers[1].token_ids)
    assert 3 * num_steps(jumping) < num_steps(plain)


@pytest.mark.parametrize("scheduler", [FcfsScheduler, PriorityScheduler])
@pytest.mark.parametrize("steps_in_flight", [1, 2])
def test_preemption_keeps_what_was_forced(
    scheduler: type[Scheduler], steps_in_flight: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    roomy = run(engine(scheduler, steps_in_flight=steps_in_flight))
    tight = engine(scheduler, num_blocks=60, steps_in_flight=steps_in_flight)
    found = run(tight)
    assert tight.stats is not None and tight.stats.num_preemptions > 0
    assert [each.token_ids for each in found] == [each.token_ids for each in roomy]


def test_a_request_that_asks_for_logprobs_gets_those_of_every_token() -> None:
    made = engine()
    with_logprobs = made.add([1, 2, 3], 150, sampling=held(logprobs=1))
    without = made.add([1, 2, 3], 150, sampling=held())
    made.run()
    answer = made.answers[with_logprobs]
    assert answer.token_ids == made.answers[without].token_ids
    assert [each.token_id for each in answer.logprobs] == answer.token_ids
    assert [each.logprob for each in answer.logprobs] == [
        -float(3 + i) for i in range(len(answer.token_ids))
    ]


def test_a_client_may_leave_while_tokens_are_given() -> None:
    for after in range(1, 12):
        made = engine()
        left, stays = (made.add([1, 2, i], 150, sampling=held()) for i in range(2))
        while not made.answers[left].token_ids:
            made.step()
        for _ in range(after):
            made.step()
        made.abort([left])
        made.run()
        made.check_empty()
        assert made.answers[stays].finish == FinishReason.STOP


def test_a_forced_token_that_ends_the_output_is_sampled() -> None:
    made = engine()
    sampling = TokenSampling(grammar=SPEC, stop_token_ids=(STOP, ord("_")))
    key = made.add([1, 2, 3], 150, sampling=sampling)
    made.run()
    assert bytes(made.answers[key].token_ids) == b'{"customer_'
    assert made.answers[key].finish == FinishReason.STOP


@pytest.mark.parametrize(
    "rules", [{"bad_words": ((7,),)}, {"allowed_token_ids": (1, 2)}, {"logit_bias": ((3, -100.0),)}]
)
def test_nothing_is_forced_on_a_request_that_may_forbid_it(rules: dict[str, Any]) -> None:
    ready = ReadyGrammar(BACKEND.compile(SPEC), BACKEND)
    assert bytes(Constraint(ready, TokenSampling()).forced) == b'{"customer_identification":'
    assert not Constraint(ready, TokenSampling(**rules)).forced
