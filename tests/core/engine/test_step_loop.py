"""The loop over a worker that notices wrong blocks; answers compared with what the prompt alone
determines."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jackfield.contracts.messages import (
    FinishReason,
    RequestLogprobs,
    ResetPrefixCache,
    TokenLogprobs,
)
from jackfield.contracts.sampling import ThinkingBudget, TokenSampling
from jackfield.contracts.scheduling import Blocks, Schedule, SchedulerLimits
from jackfield.contracts.work import ScheduledBatch
from jackfield.engine import admission, outbox
from jackfield.engine.channel import MAX_FRAME_BYTES, FrameEncoder
from jackfield.errors import EngineError
from jackfield.testing.simulated_engine import SimulatedEngine
from jackfield.testing.simulated_worker import SimulatedStep, continuation
from jackfield_schedulers.fcfs import FcfsScheduler
from jackfield_schedulers.priority import PriorityScheduler

LIMITS = SchedulerLimits(max_num_seqs=8, max_num_batched_tokens=16, max_model_len=96)
LARGE_STEP = SchedulerLimits(max_num_seqs=8, max_num_batched_tokens=64, max_model_len=96)
VOCABULARY = 97


def make_engine(
    limits: SchedulerLimits = LIMITS,
    *,
    num_blocks: int = 64,
    steps_in_flight: int = 2,
    hash_algorithm: str | None = "sha256",
    vocabulary: int = VOCABULARY,
    stream_interval: int = 1,
) -> SimulatedEngine:
    return SimulatedEngine(
        FcfsScheduler(limits),
        limits,
        num_blocks=num_blocks,
        steps_in_flight=steps_in_flight,
        hash_algorithm=hash_algorithm,
        vocabulary=vocabulary,
        stream_interval=stream_interval,
    )


both_depths = pytest.mark.parametrize("steps_in_flight", [1, 2])


@st.composite
def workloads(draw: st.DrawFn) -> list[tuple[list[int], int, int]]:
    """(prompt, max_tokens, steps to wait before it comes); prompts share prefixes."""
    stems = [[7] * 40, list(range(40)), [3, 1] * 20]
    item = st.tuples(
        st.builds(
            lambda stem, cut, tail: stem[:cut] + tail,
            st.sampled_from(stems),
            st.integers(0, 40),
            st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=6),
        ),
        st.integers(1, 20),
        st.integers(0, 4),
    )
    return draw(st.lists(item, min_size=1, max_size=14))


@settings(max_examples=300, deadline=None)
@given(
    workload=workloads(),
    steps_in_flight=st.sampled_from([1, 2, 3]),
    hash_algorithm=st.sampled_from([None, "builtin", "sha256"]),
    num_blocks=st.sampled_from([18, 24, 64]),
    budget=st.sampled_from([1, 16, 64]),
    by_priority=st.booleans(),
    num_host_blocks=st.sampled_from([0, 7, 60]),
    stream_interval=st.sampled_from([1, 3]),
    num_first_blocks=st.sampled_from([None, 3, 20]),
)
def test_no_choice_changes_the_tokens(
    workload: list[tuple[list[int], int, int]],
    steps_in_flight: int,
    hash_algorithm: str | None,
    num_blocks: int,
    budget: int,
    by_priority: bool,
    num_host_blocks: int,
    stream_interval: int,
    num_first_blocks: int | None,
) -> None:
    limits = SchedulerLimits(max_num_seqs=6, max_num_batched_tokens=budget, max_model_len=68)
    engine = SimulatedEngine(
        PriorityScheduler(limits) if by_priority else FcfsScheduler(limits),
        limits,
        num_blocks=num_blocks,
        steps_in_flight=steps_in_flight,
        hash_algorithm=hash_algorithm,
        num_host_blocks=num_host_blocks,
        stream_interval=stream_interval,
        num_first_blocks=num_first_blocks,
    )
    for prompt, max_tokens, pause in workload:
        for _ in range(pause):
            engine.step()
        if not engine.core.has_work:
            engine.rest()
        engine.add(prompt, max_tokens, priority=-len(prompt))
    engine.run()
    for (prompt, max_tokens, _), answer in zip(workload, engine.answers.values(), strict=True):
        assert answer.finish == FinishReason.LENGTH
        assert answer.token_ids == continuation(prompt, max_tokens, VOCABULARY)
    engine.check_empty()


@both_depths
def test_preemption_happens_and_changes_nothing(steps_in_flight: int) -> None:
    engine = make_engine(num_blocks=20, steps_in_flight=steps_in_flight)
    prompts = [[start] * 8 for start in range(8)]
    for prompt in prompts:
        engine.add(prompt, 40)
    engine.run()
    assert engine.stats is not None and engine.stats.num_preemptions > 0
    for prompt, answer in zip(prompts, engine.answers.values(), strict=True):
        assert answer.token_ids == continuation(prompt, 40, VOCABULARY)
    engine.check_empty()


@pytest.mark.parametrize("num_host_blocks", [0, 3, 100])
@both_depths
def test_what_was_swapped_out_is_not_computed_again(
    steps_in_flight: int, num_host_blocks: int
) -> None:
    engine = SimulatedEngine(
        FcfsScheduler(LIMITS),
        LIMITS,
        num_blocks=20,
        steps_in_flight=steps_in_flight,
        hash_algorithm=None,
        num_host_blocks=num_host_blocks,
    )
    computed = 0
    execute = engine.worker.execute

    def count(batch: ScheduledBatch) -> SimulatedStep:
        nonlocal computed
        computed += batch.total_tokens
        return execute(batch)

    engine.worker.execute = count  # type: ignore[method-assign]
    for start in range(8):
        engine.add([start] * 8, 40)
    engine.run()
    assert engine.stats is not None and engine.stats.num_preemptions > 0
    for start, answer in enumerate(engine.answers.values()):
        assert answer.token_ids == continuation([start] * 8, 40, VOCABULARY)
    # The last token of each is sampled and not computed.
    once = 8 * (8 + 40 - 1)
    assert (computed == once) == (num_host_blocks == 100)
    engine.check_empty()


@both_depths
def test_an_abort_gives_back_what_was_swapped_out(steps_in_flight: int) -> None:
    for after in range(0, 60, 3):
        engine = SimulatedEngine(
            FcfsScheduler(LIMITS),
            LIMITS,
            num_blocks=20,
            steps_in_flight=steps_in_flight,
            num_host_blocks=40,
        )
        keys = [engine.add([start] * 8, 40) for start in range(8)]
        for _ in range(after):
            engine.step()
        engine.abort(keys[1::2])
        engine.run()
        for start, key in list(enumerate(keys))[::2]:
            assert engine.answers[key].token_ids == continuation([start] * 8, 40, VOCABULARY)
        engine.check_empty()


def test_tokens_of_several_steps_go_out_together_but_first_ones_and_endings_at_once() -> None:
    engine = SimulatedEngine(FcfsScheduler(LIMITS), LIMITS, steps_in_flight=1, stream_interval=4)
    key = engine.add([5], 11)
    told = []
    while engine.core.has_work:
        engine.step()
        told.append(len(engine.answers[key].token_ids))
    assert told == [1, 1, 1, 1, 5, 5, 5, 5, 9, 9, 11]


@both_depths
@pytest.mark.parametrize("at", [0, 1, 5])
def test_a_stop_token_ends_the_request_and_is_its_last_token(steps_in_flight: int, at: int) -> None:
    engine = make_engine(steps_in_flight=steps_in_flight)
    wanted = continuation([5], 20, VOCABULARY)
    at = wanted.index(wanted[at])
    key = engine.add([5], 20, sampling=TokenSampling(stop_token_ids=(wanted[at],)))
    other = engine.add([6], 30)
    engine.run()
    assert engine.answers[key].token_ids == wanted[: at + 1]
    assert engine.answers[key].finish == FinishReason.STOP
    assert engine.answers[other].token_ids == continuation([6], 30, VOCABULARY)
    engine.check_empty()


@both_depths
def test_stop_tokens_count_from_min_tokens_on(steps_in_flight: int) -> None:
    engine = make_engine(steps_in_flight=steps_in_flight)
    every_id = tuple(range(VOCABULARY))
    key = engine.add([5], 20, sampling=TokenSampling(stop_token_ids=every_id, min_tokens=4))
    engine.run()
    assert engine.answers[key].token_ids == continuation([5], 4, VOCABULARY)


def test_a_stop_on_the_last_token_is_a_stop() -> None:
    engine = make_engine()
    last = continuation([5], 3, VOCABULARY)[-1]
    key = engine.add([5], 3, sampling=TokenSampling(stop_token_ids=(last,), min_tokens=3))
    engine.run()
    assert engine.answers[key].finish == FinishReason.STOP


def test_no_step_computes_past_max_tokens() -> None:
    engine = make_engine()
    engine.add([1, 2, 3], 5)
    engine.run()
    assert engine.stats is not None
    assert engine.stats.num_steps == 5


def test_two_steps_are_under_way_before_a_token_is_waited_for() -> None:
    engine = make_engine(steps_in_flight=2)
    key = engine.add([1, 2, 3], 5)
    engine.step()
    assert not engine.answers[key].token_ids
    engine.step()
    assert len(engine.answers[key].token_ids) == 1


def test_rows_and_blocks_of_a_request_are_free_once_its_last_token_is_enqueued() -> None:
    limits = SchedulerLimits(max_num_seqs=1, max_num_batched_tokens=16, max_model_len=96)
    engine = make_engine(limits, steps_in_flight=2)
    one, two = engine.add([1, 2, 3], 1), engine.add([4, 5], 1)
    engine.step()
    engine.step()
    assert engine.answers[one].finish and not engine.answers[two].finish
    engine.step()
    assert engine.answers[two].token_ids == continuation([4, 5], 1, VOCABULARY)
    assert engine.num_steps == 3


@both_depths
def test_two_thousand_requests_aborted_at_random_moments_leave_nothing(
    steps_in_flight: int,
) -> None:
    rng = random.Random(7)
    engine = make_engine(num_blocks=40, steps_in_flight=steps_in_flight)
    prompts: dict[int, Sequence[int]] = {}
    while len(prompts) < 2000 or engine.core.requests:
        for _ in range(min(rng.randrange(8), 2000 - len(prompts))):
            prompt = [rng.randrange(4) for _ in range(rng.randint(1, 40))]
            prompts[engine.add(prompt, rng.randint(1, 30))] = prompt
        alive = list(engine.core.requests)
        engine.abort(rng.sample(alive, k=min(len(alive), rng.choice((0, 0, 1, 7)))))
        engine.step()
    engine.run()
    engine.check_empty()
    for key, answer in engine.answers.items():
        wanted = continuation(prompts[key], len(answer.token_ids), VOCABULARY)
        assert answer.token_ids == wanted
    finishes = [answer.finish for answer in engine.answers.values()]
    assert finishes.count(FinishReason.ABORT) > 500
    assert finishes.count(FinishReason.LENGTH) > 100
    assert len(finishes) == 2000


def test_unknown_keys_are_not_aborted_twice() -> None:
    engine = make_engine()
    key = engine.add([1], 5)
    engine.abort([key, key, 999])
    engine.run()
    assert engine.answers[key].finish == FinishReason.ABORT
    engine.check_empty()


def test_a_prefix_hit_is_told_with_the_first_token() -> None:
    engine = make_engine()
    first = engine.add([1] * 20, 4)
    engine.run()
    second = engine.add([1] * 20 + [2], 4)
    third = engine.add([3] * 20, 4)
    engine.run()
    cached = [engine.answers[key].num_cached for key in (first, second, third)]
    assert cached == [0, 20, 0]
    assert engine.stats is not None
    assert engine.stats.prefix_cache_hits == 20
    assert engine.stats.prefix_cache_queries == 20 + 21 + 20


def test_output_is_cached_as_prompts_are() -> None:
    engine = make_engine()
    first = engine.add([1] * 10, 20)
    engine.run()
    second = engine.add([1] * 10 + engine.answers[first].token_ids + [5], 2)
    engine.run()
    assert engine.answers[second].num_cached == 28


def test_a_prompt_is_shared_from_the_step_after_the_one_that_computes_it() -> None:
    engine = make_engine(LARGE_STEP)
    engine.add([1] * 20, 30)
    engine.step()
    second = engine.add([1] * 20, 30)
    engine.run()
    assert engine.answers[second].num_cached == 16


def test_output_is_shared_while_its_request_runs() -> None:
    engine = make_engine(LARGE_STEP)
    first = engine.add([1] * 6, 60)
    while len(engine.answers[first].token_ids) < 14:
        engine.step()
    second = engine.add([1] * 6 + engine.answers[first].token_ids + [5], 2)
    engine.run()
    assert engine.answers[second].num_cached == 20


def test_long_prompts_are_not_started_to_preempt_each_other() -> None:
    engine = make_engine(num_blocks=17)
    for start in range(4):
        engine.add([start] * 40, 4)
    engine.run()
    assert engine.stats is not None and engine.stats.num_preemptions == 0


def test_a_reset_cache_gives_no_hit() -> None:
    engine = make_engine()
    engine.add([1] * 20, 4)
    engine.run()
    engine.core.take_in(ResetPrefixCache())
    second = engine.add([1] * 20, 4)
    engine.run()
    assert engine.answers[second].num_cached == 0


@both_depths
def test_logprobs_follow_their_tokens(steps_in_flight: int) -> None:
    engine = make_engine(steps_in_flight=steps_in_flight)
    key = engine.add([1] * 5, 6, sampling=TokenSampling(logprobs=1))
    engine.add([2] * 5, 6)
    engine.run()
    answer = engine.answers[key]
    assert [entry.token_id for entry in answer.logprobs] == answer.token_ids
    assert [entry.logprob for entry in answer.logprobs] == [-5.0, -6.0, -7.0, -8.0, -9.0, -10.0]


@both_depths
@pytest.mark.parametrize("num_blocks", [20, 64])
def test_prompt_logprobs_come_once_and_whole(steps_in_flight: int, num_blocks: int) -> None:
    engine = make_engine(num_blocks=num_blocks, steps_in_flight=steps_in_flight)
    prompt = [1] * 20
    engine.add(prompt, 4)
    keys = [engine.add(prompt, 40, sampling=TokenSampling(prompt_logprobs=0)) for _ in range(3)]
    engine.run()
    assert engine.stats is not None and bool(engine.stats.num_preemptions) == (num_blocks == 20)
    for key in keys:
        positions = [-entry.logprob for entry in engine.answers[key].prompt_logprobs]
        assert positions == [float(position) for position in range(1, 20)]


@pytest.mark.parametrize("stream_interval", [1, 100])
def test_more_logprobs_than_a_message_holds_are_their_requests_affair(
    stream_interval: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "MAX_LOGPROBS", 24)
    engine = make_engine(LARGE_STEP, stream_interval=stream_interval)
    long = engine.add([1] * 20, 4, sampling=TokenSampling(prompt_logprobs=0))
    short = engine.add([2] * 5, 40, sampling=TokenSampling(prompt_logprobs=0, logprobs=1))
    engine.run()
    assert engine.answers[long].finish == FinishReason.ERROR
    assert "more than 24 logprobs; ask for fewer" in str(engine.answers[long].message)
    assert len(engine.answers[short].logprobs) == 40
    engine.check_empty()


def test_a_prompt_with_more_logprobs_than_a_message_holds_is_refused_before_they_are_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(admission, "MAX_LOGPROBS", 50)
    engine = make_engine()
    few = engine.add([1] * 20, 2, sampling=TokenSampling(prompt_logprobs=3))
    many = engine.add([1] * 20, 2, sampling=TokenSampling(prompt_logprobs=4))
    engine.run()
    assert engine.answers[few].finish == FinishReason.LENGTH
    assert engine.answers[many].finish == FinishReason.ERROR
    assert not engine.answers[many].prompt_logprobs


def test_the_most_logprobs_fit_into_a_message() -> None:
    count = outbox.MAX_LOGPROBS // 3 - 2
    entry = TokenLogprobs(1 << 17, -1.5, 1 << 17, [1 << 17] * count, [-1.5] * count)
    full = outbox.Outbox()
    full.add_logprobs(RequestLogprobs(1 << 40, [entry], [entry, entry]))
    assert len(FrameEncoder().encode(full.message(None))) < MAX_FRAME_BYTES


@both_depths
def test_a_row_that_fails_ends_alone(steps_in_flight: int) -> None:
    engine = make_engine(steps_in_flight=steps_in_flight)
    tokens = {start: continuation([start], 30, VOCABULARY) for start in range(8)}
    engine.worker.fail_token = tokens[3][4]
    for start in range(8):
        engine.add([start], 30)
    engine.run()
    for start, answer in enumerate(engine.answers.values()):
        if tokens[3][4] in tokens[start]:
            end = tokens[start].index(tokens[3][4])
            assert answer.finish == FinishReason.ERROR
            assert answer.message is not None and "told to fail" in answer.message
            assert answer.token_ids == tokens[start][:end]
        else:
            assert answer.token_ids == tokens[start]
    assert engine.answers[4].finish == FinishReason.ERROR
    engine.check_empty()


def test_the_prefix_of_a_failed_row_is_not_used_again() -> None:
    engine = make_engine()
    engine.worker.fail_token = continuation([1] * 20, 1, VOCABULARY)[0]
    engine.add([1] * 20, 5)
    engine.run()
    engine.worker.fail_token = None
    again = engine.add([1] * 20, 5)
    engine.run()
    assert engine.answers[again].num_cached == 0
    assert engine.answers[again].finish == FinishReason.LENGTH


@pytest.mark.parametrize(
    ("prompt", "max_tokens", "sampling", "message"),
    [
        ([], 5, {}, "prompt"),
        ([1, VOCABULARY], 5, {}, str(VOCABULARY)),
        ([1, -1], 5, {}, "-1"),
        ([1], 0, {}, "max_tokens"),
        ([1] * 90, 7, {}, "context"),
        ([1], 5, {"stop_token_ids": (VOCABULARY,)}, "stop_token_ids"),
        ([1], 5, {"logit_bias": ((-3, 1.0),)}, "logit_bias"),
        ([1], 5, {"allowed_token_ids": (500,)}, "allowed_token_ids"),
        ([1], 5, {"bad_words": ((1, 98),)}, "bad_words"),
        ([1], 5, {"min_tokens_ids": (VOCABULARY,)}, "min_tokens"),
        ([1], 5, {"thinking": ThinkingBudget(1, ((2,),), (3, -1))}, "thinking_token_budget"),
    ],
)
def test_a_request_that_cannot_be_served_fails_alone(
    prompt: list[int], max_tokens: int, sampling: dict[str, object], message: str
) -> None:
    engine = make_engine()
    good = engine.add([1], 5)
    bad = engine.add(prompt, max_tokens, sampling=TokenSampling(**sampling))  # type: ignore[arg-type]
    engine.run()
    assert engine.answers[good].finish == FinishReason.LENGTH
    assert engine.answers[bad].finish == FinishReason.ERROR
    assert message in str(engine.answers[bad].message)
    engine.check_empty()


def test_a_request_larger_than_all_blocks_is_refused() -> None:
    engine = make_engine(num_blocks=8)
    bad = engine.add([1] * 20, 10)
    good = engine.add([1] * 20, 9)
    engine.run()
    assert engine.answers[bad].finish == FinishReason.ERROR
    assert "KV cache" in str(engine.answers[bad].message)
    assert engine.answers[good].token_ids == continuation([1] * 20, 9, VOCABULARY)


class ForgetfulScheduler(FcfsScheduler):
    def schedule(self, blocks: Blocks) -> Schedule:
        return Schedule(())


class GreedyScheduler(FcfsScheduler):
    def schedule(self, blocks: Blocks) -> Schedule:
        schedule = super().schedule(blocks)
        return Schedule(tuple((request, 20) for request, _ in schedule.entries))


@pytest.mark.parametrize("scheduler", [ForgetfulScheduler, GreedyScheduler])
def test_a_scheduler_that_breaks_its_contract_ends_the_engine(
    scheduler: type[FcfsScheduler],
) -> None:
    engine = SimulatedEngine(scheduler(LIMITS), LIMITS)
    engine.add([1] * 40, 5)
    with pytest.raises(EngineError, match="scheduler 'fcfs'"):
        engine.run()


def test_statistics_count_what_happened() -> None:
    engine = make_engine()
    for start in range(12):
        engine.add([start] * 4, 6)
    for _ in range(4):
        engine.step()
    engine.run()
    stats = engine.stats
    assert stats is not None
    assert (stats.num_running, stats.num_waiting, stats.num_blocks_used) == (0, 0, 0)
    assert stats.num_prompt_tokens == 12 * 4
    assert stats.num_generation_tokens == 12 * 6
