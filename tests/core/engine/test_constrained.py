"""Requests under a grammar in the real step loop, over a worker without a device."""

from __future__ import annotations

import json
import re
import sys
import threading
import time
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
from tests.waiting import PATIENCE_SECONDS

import jackfield.engine.grammar_compiler as grammar_compiler
from jackfield.contracts.grammar import (
    COMPILE_SECONDS,
    CompiledGrammar,
    GrammarBackend,
    GrammarKind,
    GrammarMatcher,
    GrammarSpec,
    Masks,
    Vocabulary,
)
from jackfield.contracts.messages import FinishReason
from jackfield.contracts.sampling import TokenSampling
from jackfield.contracts.scheduling import Scheduler, SchedulerLimits
from jackfield.engine.constraint import Constraint
from jackfield.engine.grammar_compiler import GrammarCompiler, ReadyGrammar
from jackfield.engine.mask_filler import MaskFiller
from jackfield.engine.request import Request
from jackfield.testing.simulated_engine import SimulatedEngine
from jackfield.testing.simulated_worker import SimulatedWorker
from jackfield_grammars.xgrammar import XGrammarBackend
from jackfield_schedulers.fcfs import FcfsScheduler
from jackfield_schedulers.priority import PriorityScheduler

STOP, THINK, ANSWER, WIDTH = 256, 257, 258, 261
VOCABULARY = Vocabulary((*(bytes((byte,)) for byte in range(256)), *[b""] * (WIDTH - 256)), {})
PROMPT = [1, 2, 3, 4, 5]
_BACKEND = XGrammarBackend(VOCABULARY)


def compiler(make: Callable[[], GrammarBackend] = lambda: _BACKEND) -> GrammarCompiler:
    return GrammarCompiler(lambda: VOCABULARY, lambda name, vocabulary: make(), "any")


def engine(
    scheduler: type[Scheduler] = FcfsScheduler,
    grammars: GrammarCompiler | None = None,
    *,
    num_blocks: int = 64,
    max_num_seqs: int = 8,
    steps_in_flight: int = 2,
) -> SimulatedEngine:
    limits = SchedulerLimits(
        max_num_seqs=max_num_seqs, max_num_batched_tokens=64, max_model_len=120
    )
    return SimulatedEngine(
        scheduler(limits),
        limits,
        num_blocks=num_blocks,
        steps_in_flight=steps_in_flight,
        vocabulary=WIDTH,
        grammars=grammars or compiler(),
    )


def held(
    text: str, kind: GrammarKind = "regex", *, stop: Sequence[int] = (STOP,), **others: object
) -> TokenSampling:
    spec = GrammarSpec(kind=kind, text=text)
    return TokenSampling(grammar=spec, stop_token_ids=tuple(stop), **others)  # type: ignore[arg-type]


def text_of(made: SimulatedEngine, key: int) -> str:
    return bytes(i for i in made.answers[key].token_ids if i < 256).decode()


@pytest.mark.parametrize("steps_in_flight", [1, 2])
def test_outputs_keep_to_their_grammars_and_end_where_they_must(steps_in_flight: int) -> None:
    made = engine(steps_in_flight=steps_in_flight)
    patterns = ["[a-f]{3,9}", "x(yz)*", r"\d+(\.\d\d)?", "(yes|no)"]
    keys = [
        made.add([*PROMPT, i], 60, sampling=held(pattern)) for i, pattern in enumerate(patterns)
    ]
    free = made.add(PROMPT, 20)
    made.run()
    for key, pattern in zip(keys, patterns, strict=True):
        answer = made.answers[key]
        assert answer.finish == FinishReason.STOP or len(answer.token_ids) == 60
        if answer.finish == FinishReason.STOP:
            assert re.fullmatch(pattern, text_of(made, key)), text_of(made, key)
            assert answer.token_ids[-1] == STOP
    assert len(made.answers[free].token_ids) == 20
    made.check_empty()


def test_the_last_token_counts_at_max_tokens() -> None:
    made = engine()
    key = made.add(PROMPT, 4, sampling=held("[ab]{10}"))
    made.run()
    assert made.answers[key].finish == FinishReason.LENGTH
    assert re.fullmatch("[ab]{4}", text_of(made, key))


def test_an_output_without_stop_ids_ends_when_its_grammar_does() -> None:
    made = engine()
    key = made.add(PROMPT, 50, sampling=held("[ab]{5}", stop=()))
    made.run()
    assert made.answers[key].finish == FinishReason.STOP
    assert re.fullmatch("[ab]{5}", text_of(made, key))
    made.check_empty()


def test_min_tokens_holds_while_the_grammar_can_go_on() -> None:
    made = engine()
    long = made.add(PROMPT, 60, sampling=held("a*", min_tokens=12))
    short = made.add(PROMPT, 60, sampling=held("a{3}", min_tokens=12))
    made.run()
    assert len(made.answers[long].token_ids) >= 12
    assert text_of(made, short) == "aaa"
    assert made.answers[short].finish == FinishReason.STOP


@pytest.mark.parametrize("scheduler", [FcfsScheduler, PriorityScheduler])
def test_preemption_keeps_the_place_in_the_grammar(scheduler: type[Scheduler]) -> None:
    made = engine(scheduler, num_blocks=14, max_num_seqs=4)
    keys = [
        made.add([*PROMPT, i], 40, sampling=held("([a-c][0-9]){12}"), priority=i) for i in range(4)
    ]
    made.run()
    assert made.stats is not None and made.stats.num_preemptions > 0
    for key in keys:
        assert re.fullmatch("([a-c][0-9]){12}", text_of(made, key))
    made.check_empty()


def test_a_grammar_begins_behind_the_reasoning() -> None:
    made = engine()
    thinking = held("b+", reasoning_end_ids=(ANSWER,), starts_in_reasoning=True)
    made.worker.forced = [ord("t"), ord("u"), ANSWER]
    key = made.add(PROMPT, 12, sampling=thinking)
    made.run()
    ids = made.answers[key].token_ids
    assert ids[:3] == [ord("t"), ord("u"), ANSWER]
    assert re.fullmatch("b+", bytes(i for i in ids[3:] if i < 256).decode())


def test_an_output_may_open_the_reasoning_itself() -> None:
    sampling = held("b{2}", reasoning_start_ids=(THINK,), reasoning_end_ids=(ANSWER,))
    made = engine()
    made.worker.forced = [THINK, ord("t"), ANSWER]
    key = made.add(PROMPT, 12, sampling=sampling)
    made.run()
    assert made.answers[key].token_ids == [THINK, ord("t"), ANSWER, ord("b"), ord("b"), STOP]
    made = engine()
    made.worker.forced = [ord("b")]
    key = made.add(PROMPT, 12, sampling=sampling)
    made.run()
    assert made.answers[key].token_ids == [ord("b"), ord("b"), STOP]


@pytest.mark.parametrize(
    ("kind", "text"), [("regex", "("), ("json_schema", '{"uniqueItems": true, "type": "array"}')]
)
def test_a_bad_grammar_fails_its_request_alone(kind: GrammarKind, text: str) -> None:
    made = engine()
    bad = made.add(PROMPT, sampling=held(text, kind))
    good = made.add(PROMPT, 8)
    made.run()
    assert made.answers[bad].finish == FinishReason.ERROR
    assert "structured_outputs" in (made.answers[bad].message or "")
    assert len(made.answers[good].token_ids) == 8
    made.check_empty()


def test_best_effort_goes_on_without_a_grammar() -> None:
    made = engine()
    spec = GrammarSpec(kind="regex", text="(", best_effort=True)
    key = made.add(PROMPT, 8, sampling=TokenSampling(grammar=spec))
    made.run()
    assert len(made.answers[key].token_ids) == 8


class SlowBackend:
    """Takes its time."""

    name: ClassVar[str] = "slow"
    api_version: ClassVar[int] = 1

    def __init__(self, take_time: Callable[[], object] = lambda: time.sleep(0.05)) -> None:
        self.take_time = take_time
        self.num_compiled = 0

    def compile(self, spec: GrammarSpec) -> CompiledGrammar:
        self.num_compiled += 1
        self.take_time()
        return _BACKEND.compile(spec)

    def fill_bitmasks(
        self, matchers: Sequence[GrammarMatcher], masks: Masks, indices: Sequence[int]
    ) -> None:
        _BACKEND.fill_bitmasks(matchers, masks, indices)


def test_steps_go_on_while_a_grammar_compiles_and_equal_ones_compile_once() -> None:
    may_end = threading.Event()
    backend = SlowBackend(lambda: may_end.wait(PATIENCE_SECONDS))
    made = engine(grammars=compiler(lambda: backend))
    keys = [made.add(PROMPT, 6, sampling=held("[ab]{3}")) for _ in range(3)]
    free = made.add(PROMPT, 6)
    for _ in range(9):
        made.step()
    assert made.answers[free].finish == FinishReason.LENGTH
    assert not made.answers[keys[0]].token_ids
    may_end.set()
    made.run()
    assert backend.num_compiled == 1
    assert all(re.fullmatch("[ab]{3}", text_of(made, key)) for key in keys)


def test_a_grammar_that_compiles_too_long_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grammar_compiler, "COMPILE_SECONDS", 0.01)
    made = engine(grammars=compiler(SlowBackend))
    key = made.add(PROMPT, sampling=held("a"))
    made.run()
    assert made.answers[key].finish == FinishReason.ERROR
    assert "longer than" in (made.answers[key].message or "")
    made.check_empty()


def test_a_client_that_leaves_while_its_grammar_compiles_leaves_nothing() -> None:
    made = engine(grammars=compiler(SlowBackend))
    key = made.add(PROMPT, sampling=held("a"))
    made.step()
    made.abort([key])
    made.run()
    assert made.answers[key].finish == FinishReason.ABORT
    made.check_empty()


def test_a_client_that_leaves_while_its_step_waits_for_masks_leaves_nothing() -> None:
    made = engine()
    left, stays = (made.add(PROMPT, 40, sampling=held("[ab]{20}")) for _ in range(2))
    while not made.answers[left].token_ids:
        made.step()
    made.abort([left])
    made.run()
    assert made.answers[left].finish == FinishReason.ABORT
    assert re.fullmatch("[ab]{20}", text_of(made, stays))
    made.check_empty()


def test_a_sampling_is_followed_by_the_next_forward_pass_before_its_tokens_are_read() -> None:
    made = engine()
    told: list[str] = []
    for name in ("begin", "finish"):
        function = getattr(made.worker, name)
        setattr(made.worker, name, _told(told, name, function))
    made.add(PROMPT, 20, sampling=held("[ab]{9}"))
    for _ in range(400):
        made.step()
        told.append("tokens read")
        if len(told) > 12:
            break
        time.sleep(0.001)
    turns = " ".join(told[told.index("begin") :])
    assert turns.startswith("begin tokens read finish begin tokens read finish begin")


def _told(told: list[str], name: str, function: Callable[..., object]) -> Callable[..., object]:
    def call(*values: object) -> object:
        told.append(name)
        return function(*values)

    return call


class BrokenMatcher:
    """Fails at its third mask."""

    def __init__(self) -> None:
        self._matcher = _BACKEND.compile(GrammarSpec(kind="regex", text="a{9}")).matcher()
        self._num_masks = 0

    def fill_bitmask(self, masks: Masks, index: int) -> None:
        self._num_masks += 1
        if self._num_masks > 2:
            raise ValueError("broken")
        self._matcher.fill_bitmask(masks, index)

    def accept(self, token_id: int) -> bool:
        return self._matcher.accept(token_id)

    def rollback(self, num_tokens: int) -> None:
        self._matcher.rollback(num_tokens)

    def jump(self) -> list[int]:
        return []


class BrokenBackend(SlowBackend):
    """Every other matcher of it breaks."""

    def compile(self, spec: GrammarSpec) -> CompiledGrammar:
        if spec.text != "broken":
            return _BACKEND.compile(spec)

        class Compiled:
            num_bytes = 0

            def matcher(self) -> BrokenMatcher:
                return BrokenMatcher()

        return Compiled()

    def fill_bitmasks(
        self, matchers: Sequence[GrammarMatcher], masks: Masks, indices: Sequence[int]
    ) -> None:
        for matcher, index in zip(matchers, indices, strict=True):
            matcher.fill_bitmask(masks, index)


def test_a_backend_that_raises_costs_one_request() -> None:
    backend = BrokenBackend()
    made = engine(grammars=compiler(lambda: backend))
    broken = made.add(PROMPT, 20, sampling=held("broken"))
    whole = made.add(PROMPT, 20, sampling=held("[ab]{9}"))
    made.run()
    assert made.answers[broken].finish == FinishReason.ERROR
    assert re.fullmatch("[ab]{9}", text_of(made, whole))
    made.check_empty()


def test_a_prefix_is_shared_by_choices_with_grammars() -> None:
    made = engine()
    schema = json.dumps({"enum": ["red", "green"]})
    keys = [
        made.add(list(range(1, 17)), 30, sampling=held(schema, "json_schema", seed=i))
        for i in range(4)
    ]
    made.run()
    assert all(json.loads(text_of(made, key)) in ("red", "green") for key in keys)


def test_an_engine_without_a_tokenizer_refuses() -> None:
    limits = SchedulerLimits(max_num_seqs=2, max_num_batched_tokens=16, max_model_len=32)
    made = SimulatedEngine(FcfsScheduler(limits), limits, vocabulary=WIDTH)
    key = made.add(PROMPT, sampling=held("a"))
    made.run()
    assert "tokenizer" in (made.answers[key].message or "")


def test_masks_of_many_rows_are_one_array() -> None:
    compiled = _BACKEND.compile(GrammarSpec(kind="regex", text="[ab]"))
    ready = ReadyGrammar(compiled, _BACKEND)
    requests = [Request(i, b"", held("[ab]"), 9) for i in range(3)]
    for request in requests:
        request.constraint = Constraint(ready, request.sampling)
    slots = [4, 0, 2]
    room, are_new, stuck = MaskFiller(WIDTH).fill(requests, slots)
    assert all(are_new) and not stuck
    masks = room[slots]
    bits = np.unpackbits(masks.view(np.uint8), axis=1, bitorder="little")
    assert [np.flatnonzero(row).tolist() for row in bits] == [[ord("a"), ord("b")]] * 3


def test_after_a_sleep_masks_are_filled_where_the_executor_says_then(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rooms = [np.zeros((1, WIDTH // 32 + 1), dtype=np.int32) for _ in range(2)]
    others = iter(rooms)
    monkeypatch.setattr(SimulatedWorker, "mask_room", lambda _: next(others), raising=False)
    made = engine()
    for room in rooms:
        assert not room.any()
        made.add(PROMPT, sampling=held("[ab]"))
        made.run()
        assert room.any()
        made.core.forget_device_memory()


def test_a_grammar_that_is_ready_a_moment_after_another_is_not_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = engine()
    keys = [made.add(PROMPT, 20, sampling=held(pattern)) for pattern in ("[ab]{3}", "[cd]{3}")]
    asked: list[grammar_compiler.Compilation] = []

    def is_over(compilation: grammar_compiler.Compilation) -> bool:
        assert compilation.future is not None
        compilation.future.result()
        is_new = compilation not in asked
        asked.append(compilation)
        return compilation is asked[0] or not is_new

    monkeypatch.setattr(grammar_compiler.Compilation, "is_over", property(is_over))
    made.run()
    assert [text_of(made, key)[0] in "ab" for key in keys] == [True, False]
    made.check_empty()


def test_an_idle_engine_loads_once_what_grammars_need() -> None:
    loaded: list[GrammarBackend] = []

    def make() -> GrammarBackend:
        loaded.append(_BACKEND)
        return _BACKEND

    made = engine(grammars=compiler(make))
    made.core.warm_up()
    assert not made.core.has_work and not made.core.is_compiling
    key = made.add(PROMPT, 20, sampling=held("[ab]{3}"))
    made.run()
    assert re.fullmatch("[ab]{3}", text_of(made, key))
    assert len(loaded) == 1


def test_what_a_grammar_needs_loaded_does_not_count_as_compiling(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kinds: list[str] = []
    now = 0.0
    clock = SimpleNamespace(monotonic=lambda: now)
    monkeypatch.setattr(grammar_compiler, "time", clock)

    class LateBackend(SlowBackend):
        def load(self, spec: GrammarSpec) -> None:
            nonlocal now
            kinds.append(spec.kind)
            now += COMPILE_SECONDS + 1

        def compile(self, spec: GrammarSpec) -> CompiledGrammar:
            return _BACKEND.compile(spec)

    before = sys.getswitchinterval()
    made = engine(grammars=compiler(LateBackend))
    key = made.add(PROMPT, 20, sampling=held("[ab]{3}"))
    made.run()
    assert kinds == ["regex"] and made.answers[key].message is None
    assert re.fullmatch("[ab]{3}", text_of(made, key))
    assert sys.getswitchinterval() == before


def test_bounds_that_no_answer_comes_to_do_not_reach_a_backend() -> None:
    seen: list[str] = []

    class SeeingBackend(SlowBackend):
        def compile(self, spec: GrammarSpec) -> CompiledGrammar:
            seen.append(spec.text)
            return _BACKEND.compile(spec)

    grammars = GrammarCompiler(
        lambda: VOCABULARY, lambda name, vocabulary: SeeingBackend(), "any", max_model_len=120
    )
    made = engine(grammars=grammars)
    schema = {"type": "string", "maxLength": 10**9}
    kept = made.add(PROMPT, 20, sampling=held(json.dumps(schema), "json_schema"))
    schema = {"type": "string", "minLength": 121}
    refused = made.add(PROMPT, 20, sampling=held(json.dumps(schema), "json_schema"))
    made.run()
    assert seen == ['{"type": "string"}']
    assert made.answers[kept].message is None
    assert "minLength 121 is more" in (made.answers[refused].message or "")
    made.check_empty()


class LastingMatcher:
    """Allows an "a" for ever, and says so. Counts the masks it fills."""

    keeps_mask = True

    def __init__(self) -> None:
        self.num_filled = 0

    def fill_bitmask(self, masks: Masks, index: int) -> None:
        self.num_filled += 1
        masks[index] = 0
        masks[index, ord("a") // 32] = 1 << ord("a") % 32

    def accept(self, token_id: int) -> bool:
        return token_id == ord("a")

    def rollback(self, num_tokens: int) -> None:
        raise AssertionError

    def jump(self) -> list[int]:
        return []


class LastingBackend(BrokenBackend):
    """Makes them."""

    def __init__(self) -> None:
        self.made: list[LastingMatcher] = []

    def compile(self, spec: GrammarSpec) -> CompiledGrammar:
        backend = self

        class Compiled:
            num_bytes = 0

            def matcher(self) -> LastingMatcher:
                backend.made.append(LastingMatcher())
                return backend.made[-1]

        return Compiled()


def test_a_mask_that_stays_is_filled_once_for_each_row_that_its_request_has() -> None:
    backend = LastingBackend()
    made = engine(grammars=compiler(lambda: backend), num_blocks=14, max_num_seqs=4)
    keys = [made.add([*PROMPT, i], 25, sampling=held("a"), priority=i) for i in range(4)]
    made.run()
    assert made.stats is not None and made.stats.num_preemptions > 0
    assert {text_of(made, key) for key in keys} == {"a" * 25}
    num_filled = sum(matcher.num_filled for matcher in backend.made)
    assert num_filled <= len(keys) + made.stats.num_preemptions
    made.check_empty()
