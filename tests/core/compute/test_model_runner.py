"""The runner against the same network computed without pages, steps or batches."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.core.compute.paged_model import HIDDEN, WIDTH, PlainModel
from tests.core.compute.steps import Driver, ReplayedFunction, Request, plan
from torch import Tensor

from jackfield.compute.kernels import hopper_linear
from jackfield.compute.kernels.linear_config import linear_config
from jackfield.compute.model_runner import ModelRunner
from jackfield.compute.pooling_runner import PoolingRunner
from jackfield.contracts.sampling import TokenSampling
from jackfield.contracts.work import ScheduledBatch
from jackfield.errors import ConfigError

PROMPTS = [[5, 17, 40], [1], list(range(30)), [90, 3, 3, 8, 12, 77, 41, 2, 60], [33, 34]]


def greedy(model: PlainModel, prompt: list[int], num_tokens: int) -> list[int]:
    ids = list(prompt)
    for _ in range(num_tokens):
        ids.append(int(model.logits_of(ids)[-1].argmax()))
    return ids[len(prompt) :]


@pytest.mark.parametrize("budget", [1000, 16, 3])
@pytest.mark.parametrize("graphs", [False, True])
def test_greedy_tokens_are_those_of_the_network_computed_whole(budget: int, graphs: bool) -> None:
    recorder = ReplayedFunction() if graphs else None
    driver = Driver(recorder=recorder)
    requests = [driver.request(row, prompt) for row, prompt in enumerate(PROMPTS)]
    driver.run(requests, 12, budget)
    for request, prompt in zip(requests, PROMPTS, strict=True):
        assert request.output == greedy(driver.model, prompt, 12)
    assert recorder is None or recorder.replayed > 0


def test_steps_longer_than_what_is_captured_run_without_graphs() -> None:
    recorder = ReplayedFunction()
    driver = Driver(plan(max_graph_seq_len=8, graph_sizes=(1, 4, 900)), recorder)
    request = driver.request(0, PROMPTS[0])
    driver.run([request], 12)
    # The prompt of 3 tokens and decodes up to 8, each with its sampling.
    assert recorder.replayed == 2 * 6
    assert request.output == greedy(driver.model, PROMPTS[0], 12)


def test_what_idle_time_prepares_is_not_captured_when_it_is_needed() -> None:
    driver = Driver(plan(graph_sizes=(1, 2, 3, 4)), recorder := ReplayedFunction())
    # Decodes of two sizes are there, and their sampling.
    assert recorder.recorded == 2 * 2
    while driver.runner.use_idle_time():
        assert recorder.recorded < 200
    captured = recorder.recorded
    # Two sizes more; prompts alone of up to 16, 32 and 64 tokens; and some beside decodes.
    assert captured > 2 * 7
    requests = [driver.request(row, prompt) for row, prompt in enumerate(PROMPTS)]
    driver.run(requests, 12, 64)
    driver.run([driver.request(6, PROMPTS[2]), *requests], 14, 20)
    for request, prompt in zip(requests, PROMPTS, strict=True):
        assert request.output == greedy(driver.model, prompt, len(request.output))
    assert recorder.recorded == captured


@pytest.mark.parametrize(("most", "idle"), [(0, False), (1, True), (4, False), (6, True)])
def test_steps_that_cannot_be_captured_run_without_graphs(
    most: int, idle: bool, caplog: pytest.LogCaptureFixture
) -> None:
    # The first at the start, its sampling there, a prompt's when it comes, one of idle time.
    recorder = ReplayedFunction()
    recorder.most = most
    driver = Driver(plan(graph_sizes=(1, 2, 3, 4)), recorder)
    while idle and driver.runner.use_idle_time():
        assert recorder.recorded <= most
    requests = [driver.request(row, prompt) for row, prompt in enumerate(PROMPTS)]
    driver.run(requests, 12, 16)
    for request, prompt in zip(requests, PROMPTS, strict=True):
        assert request.output == greedy(driver.model, prompt, 12)
    assert recorder.recorded == most
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "as with --enforce-eager: this one waits for the device" in caplog.text


def test_without_room_idle_time_captures_nothing() -> None:
    driver = Driver(plan(graph_sizes=(1, 2, 3, 4)), recorder := ReplayedFunction())
    recorder.room = False
    assert not driver.runner.use_idle_time()
    recorder.room = True
    assert driver.runner.use_idle_time()


def test_a_row_taken_again_continues_as_if_never_interrupted() -> None:
    driver = Driver()
    requests = [driver.request(row, prompt) for row, prompt in enumerate(PROMPTS)]
    driver.run(requests, 5)
    again = Request(7, PROMPTS[2] + requests[2].output, TokenSampling(), len(PROMPTS[2]))
    again.output = list(requests[2].output)
    other = driver.request(2, [9, 9, 9])
    driver.run([again, other, requests[0]], 11)
    assert again.output == greedy(driver.model, PROMPTS[2], 11)
    assert other.output == greedy(driver.model, [9, 9, 9], 11)


def test_a_chunk_that_samples_nothing_computes_no_logits() -> None:
    driver = Driver()
    request = driver.request(0, PROMPTS[2])
    before = driver.model.num_head_rows
    driver.step([(request, 10)])
    driver.step([(request, 19)])
    assert driver.model.num_head_rows == before
    driver.step([(request, 1)])
    assert driver.model.num_head_rows == before + 1
    assert request.output == greedy(driver.model, PROMPTS[2], 1)


def test_a_step_of_one_token_that_does_not_sample_leaves_the_prompt_alone() -> None:
    driver = Driver(recorder=ReplayedFunction())
    one, two = driver.request(0, PROMPTS[3]), driver.request(1, PROMPTS[0])
    driver.step([(one, 1), (two, 3)])
    for _ in range(8):
        driver.step([(one, 1), (two, 1)])
    assert one.output == greedy(driver.model, PROMPTS[3], 1)
    assert two.output == greedy(driver.model, PROMPTS[0], 9)


def test_blocks_of_a_cached_prefix_are_read_and_not_computed() -> None:
    driver = Driver(recorder=ReplayedFunction())
    first = driver.request(0, PROMPTS[2])
    driver.run([first], 1)
    second = driver.request(1, [*PROMPTS[2][:28], 50])
    second.blocks = first.blocks[:7]
    second.computed = 28
    driver.run([second], 6)
    assert second.output == greedy(driver.model, [*PROMPTS[2][:28], 50], 6)


def test_seeded_tokens_do_not_depend_on_the_batch_or_on_graphs() -> None:
    sampling = TokenSampling(temperature=1.2, top_k=20, top_p=0.95, seed=42)
    outputs = []
    for others, recorder in ((0, None), (4, None), (4, ReplayedFunction())):
        driver = Driver(recorder=recorder)
        mine = driver.request(6, PROMPTS[3], sampling)
        rest = [
            driver.request(row, PROMPTS[row], TokenSampling(temperature=row * 0.5, seed=row))
            for row in range(others)
        ]
        driver.run([*rest, mine], 10)
        outputs.append(mine.output)
    assert outputs[0] == outputs[1] == outputs[2]


def test_rows_with_rare_features_sample_from_the_logits_of_a_graph() -> None:
    recorder = ReplayedFunction()
    driver = Driver(recorder=recorder)
    plain = driver.request(0, PROMPTS[0])
    ruled = driver.request(1, PROMPTS[0], TokenSampling(logit_bias=((41, 100.0),)))
    driver.run([plain, ruled], 4)
    assert recorder.replayed == 4
    assert ruled.output == [41] * 4
    assert plain.output == greedy(driver.model, PROMPTS[0], 4)


def test_min_tokens_hold_until_reached() -> None:
    driver = Driver(recorder=(recorder := ReplayedFunction()))
    stops = tuple(greedy(driver.model, PROMPTS[0], 1))
    held = driver.request(0, PROMPTS[0], TokenSampling(min_tokens=4, min_tokens_ids=stops))
    driver.run([held], 9)
    ids = list(PROMPTS[0])
    for i in range(9):
        logits = driver.model.logits_of(ids)[-1]
        if i < 4:
            logits[list(stops)] = -torch.inf
        ids.append(int(logits.argmax()))
    assert held.output == ids[3:]
    # Nine steps; the last five are sampled by graphs too.
    assert recorder.replayed == 9 + 5


@pytest.mark.parametrize("budget", [1000, 4])
def test_logprobs_are_those_of_the_unmodified_distribution(budget: int) -> None:
    driver = Driver()
    sampling = TokenSampling(
        temperature=1.5, top_k=10, seed=3, logit_bias=((3, 5.0),), logprobs=4, prompt_logprobs=2
    )
    request = driver.request(0, PROMPTS[3], sampling)
    other = driver.request(1, PROMPTS[2], TokenSampling(logprobs=0))
    driver.run([request, other], 6, budget)
    for each, num_top in ((request, 4), (other, 0)):
        ids = each.tokens + each.output
        expected = driver.model.logits_of(ids).log_softmax(-1)
        outputs = [entry.output for entry in each.logprobs if entry.output is not None]
        assert len(outputs) == 6
        for i, value in enumerate(outputs):
            row = expected[each.num_prompt + i - 1]
            assert value.token_id == each.output[i]
            assert value.logprob == pytest.approx(float(row[value.token_id]), abs=1e-5)
            assert value.rank == int((row > row[value.token_id]).sum()) + 1
            assert value.top_ids == row.topk(num_top).indices.tolist()
            assert value.top_logprobs == pytest.approx(row.topk(num_top).values, abs=1e-5)
    positions = []
    for entry in request.logprobs:
        for offset, value in enumerate(entry.prompt):
            position = entry.prompt_start + offset
            positions.append(position)
            row = driver.model.logits_of(PROMPTS[3]).log_softmax(-1)[position - 1]
            assert value.token_id == PROMPTS[3][position]
            assert value.logprob == pytest.approx(float(row[value.token_id]), abs=1e-5)
            assert value.top_ids == row.topk(2).indices.tolist()
    assert positions == list(range(1, len(PROMPTS[3])))
    assert not any(entry.prompt for entry in other.logprobs)


def test_a_row_whose_logits_are_not_finite_fails_alone() -> None:
    for recorder in (None, ReplayedFunction()):
        driver = Driver(recorder=recorder)
        requests = [driver.request(row, prompt) for row, prompt in enumerate(PROMPTS)]
        driver.run(requests, 1)
        driver.model.poisoned = requests[1].output[-1]
        driver.step([(r, 1) for r in requests])
        poisoned = [r.output[0] == driver.model.poisoned for r in requests]
        assert [r.failed is not None for r in requests] == poisoned
        for request, prompt in zip(requests, PROMPTS, strict=True):
            if request.failed is None:
                assert request.output == greedy(driver.model, prompt, 2)


def test_rules_that_forbid_every_token_fail_one_row() -> None:
    driver = Driver()
    rules = TokenSampling(allowed_token_ids=(7,), min_tokens=2, min_tokens_ids=(7,))
    bad, good = driver.request(0, PROMPTS[0], rules), driver.request(1, PROMPTS[1])
    driver.run([bad, good], 1)
    assert bad.failed is not None
    assert good.output == greedy(driver.model, PROMPTS[1], 1)


def test_an_empty_step_returns_nothing() -> None:
    empty = np.empty(0, dtype=np.int32)
    batch = ScheduledBatch(
        1, (), empty, empty, empty, empty.astype(np.bool_), np.empty((0, 3), dtype=np.int32)
    )
    pending = Driver().runner.execute(batch)
    assert len(pending.wait().token_ids) == 0


def test_the_last_token_of_a_full_context_is_sampled() -> None:
    driver = Driver(recorder=ReplayedFunction())
    request = driver.request(0, [t % WIDTH for t in range(60)])
    driver.run([request], 5)
    assert request.output == greedy(driver.model, request.tokens, 5)


def test_capacity_says_what_was_found() -> None:
    driver = Driver(plan(max_num_seqs=2))
    assert driver.capacity.num_blocks == 2 * 16 + 1
    assert driver.capacity.logits_width == WIDTH
    assert driver.capacity.steps_in_flight == 1


def test_a_context_that_does_not_fit_is_refused_with_the_one_that_does() -> None:
    with pytest.raises(ConfigError, match="--max-model-len to at most 36"):
        Driver(plan(num_blocks_override=10))


@pytest.mark.parametrize("runner", [ModelRunner, PoolingRunner])
def test_a_start_traces_each_cut_of_products_of_few_rows(
    runner: type[ModelRunner], monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = Driver(plan(max_num_seqs=8, max_model_len=2048, max_num_batched_tokens=2048))
    rows: set[int] = set()

    def noted(ids: Tensor, *rest: object) -> Tensor:
        rows.add(len(ids))
        return torch.zeros(len(ids), HIDDEN)

    monkeypatch.setattr(driver.model, "forward", noted)
    with torch.inference_mode():
        driver.runner._run_dummy(1, 0)
        runner._trace(driver.runner)
    for n, k in ((4096, 1024), (1024, 2048), (6144, 4096), (4096, 12288)):
        few = (m for m in range(1, 2048) if hopper_linear.takes(m, n, k, torch.bfloat16))
        cuts = {linear_config(m, n, k) for m in few}
        assert cuts <= {linear_config(m, n, k) for m in rows}
