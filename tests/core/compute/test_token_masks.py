from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.core.compute.paged_model import WIDTH
from tests.core.compute.steps import Driver, ReplayedFunction

from jackfield.compute.token_masks import MaskRoom
from jackfield.contracts.sampling import TokenSampling
from jackfield.contracts.work import PendingStep, ScheduledBatch, TokenMasks


@pytest.mark.parametrize("width", [30, 64, 97])
@pytest.mark.parametrize("in_room", [False, True])
def test_masks_reach_the_rows_that_sample(width: int, in_room: bool) -> None:
    samples = np.array([True, False, True, True])
    bits = np.random.default_rng(0).integers(-(2**31), 2**31, (2, width // 32 + 1))
    places, slots = np.array([0, 3], dtype=np.int32), np.array([1, 0], dtype=np.int32)
    are_new = np.array([True, False])
    masks = TokenMasks(places, slots, are_new, bits.astype(np.int32))
    logits = torch.randn(3, width, dtype=torch.bfloat16)
    expected = logits.clone()
    for row, words in ((0, bits[1]), (2, bits[0])):
        for token_id in range(width):
            if not int(words[token_id // 32]) >> (token_id % 32) & 1:
                expected[row, token_id] = -torch.inf
    cpu = torch.device("cpu")
    room = MaskRoom(4, width, cpu)
    if in_room:
        room.host[:2] = masks.bits
        masks = TokenMasks(places, slots, are_new, room.host)
    room.put(masks, samples)
    room.apply(logits)
    assert torch.equal(logits, expected)


class MaskedDriver(Driver):
    """Samples every step in two halves; row 0 only ids in ``allowed``, others freely."""

    allowed: tuple[int, ...] = tuple(range(WIDTH))

    def execute(self, batch: ScheduledBatch) -> PendingStep:
        places = np.flatnonzero((batch.rows == 0) & batch.samples).astype(np.int32)
        bits = np.zeros((len(places), (WIDTH // 32 + 1) * 32), dtype=np.uint8)
        bits[:, list(self.allowed)] = 1
        words = np.packbits(bits, axis=1, bitorder="little").view(np.int32)
        self.runner.begin(batch)
        slots = np.arange(len(places), dtype=np.int32)
        return self.runner.finish(TokenMasks(places, slots, slots >= 0, words))


PROMPTS = [[5, 17, 40], [1], list(range(30))]


@pytest.mark.parametrize("graphs", [False, True])
def test_a_step_in_two_halves_samples_what_a_whole_one_does(graphs: bool) -> None:
    outputs = []
    for kind in (Driver, MaskedDriver):
        driver = kind(recorder=ReplayedFunction() if graphs else None)
        requests = [driver.request(row, prompt) for row, prompt in enumerate(PROMPTS)]
        driver.run(requests, 9, budget=16)
        outputs.append([request.output for request in requests])
    assert outputs[0] == outputs[1]


@pytest.mark.parametrize("graphs", [False, True])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_only_allowed_ids_are_sampled_and_logprobs_are_the_models(
    graphs: bool, temperature: float
) -> None:
    driver = MaskedDriver(recorder=ReplayedFunction() if graphs else None)
    driver.allowed = (3, 50, 95)
    sampling = TokenSampling(temperature=temperature, logprobs=0, seed=1)
    requests = [driver.request(row, prompt, sampling) for row, prompt in enumerate(PROMPTS)]
    driver.run(requests, 12)
    held, *others = requests
    assert set(held.output) <= {3, 50, 95} < set(held.output) | set(range(WIDTH))
    assert not all(set(other.output) <= {3, 50, 95} for other in others)
    ids = list(held.tokens)
    for token, found in zip(held.output, held.logprobs, strict=True):
        logits = driver.model.logits_of(ids)[-1]
        assert found.output is not None and found.output.token_id == token
        expected = float(logits.log_softmax(-1)[token])
        assert found.output.logprob == pytest.approx(expected, abs=1e-4)
        if temperature == 0.0:
            assert token == max(driver.allowed, key=lambda each: float(logits[each]))
        ids.append(token)


def test_min_tokens_is_left_to_the_masks() -> None:
    driver = MaskedDriver()
    driver.allowed = (7,)
    from jackfield.contracts.grammar import GrammarSpec

    sampling = TokenSampling(
        min_tokens=9, min_tokens_ids=(7,), grammar=GrammarSpec(kind="regex", text="a")
    )
    request = driver.request(0, PROMPTS[0], sampling)
    driver.run([request], 3)
    assert request.output == [7, 7, 7]
