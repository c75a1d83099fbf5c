"""A thinking budget over a whole engine: exact counts, and nobody else's output changes.

The engine runs in this process, as in ``test_greedy_equals_transformers``: every third of 64
requests has a budget; what it must say is what transformers' model says with the end forced.
"""

from __future__ import annotations

import time
from functools import cache

import numpy as np
import pytest
import torch
from tests.checkpoints import make, reference
from tests.core.compute.steps import Driver, ReplayedFunction
from tests.core.test_greedy_equals_transformers import Setup, engine, expected, prompts

from jackfield.contracts.messages import AddRequest
from jackfield.contracts.sampling import ThinkingBudget, TokenSampling

NUM_TOKENS = 48
ENDS = ((11,), (7, 8))
CLOSE = (9, 11)


def budget_of(index: int) -> int | None:
    return None if index % 3 else index % 8


def sampling_of(budget: int | None, seed: int | None = None) -> TokenSampling:
    thinking = None if budget is None else ThinkingBudget(budget, ENDS, CLOSE)
    drawn = {} if seed is None else {"temperature": 1.0, "top_k": 20, "seed": seed}
    return TokenSampling(
        reasoning_end_ids=ENDS[0],
        starts_in_reasoning=True,
        thinking=thinking,
        **drawn,  # type: ignore[arg-type]
    )


def ended_by_itself(ids: list[int], budget: int) -> bool:
    thought = ids[:budget]
    return 11 in thought or any(thought[at : at + 2] == [7, 8] for at in range(len(thought)))


@cache
def wanted() -> dict[int, list[int]]:
    """What transformers' model says of each prompt, with the end forced where it is due."""
    directory = make("Qwen3ForCausalLM")
    model = reference(directory)
    said = {index: list(right.ids) for index, right in expected(directory).items()}
    for index, ids in said.items():
        budget = budget_of(index)
        if budget is None or ended_by_itself(ids, budget):
            continue
        begun = [*ids[:budget], *CLOSE]
        inputs = torch.tensor([[*prompts()[index], *begun]])
        with torch.inference_mode():
            out = model.generate(
                inputs,
                attention_mask=torch.ones_like(inputs),
                max_new_tokens=NUM_TOKENS - len(begun),
                do_sample=False,
                eos_token_id=None,
            )
        said[index] = out[0, len(prompts()[index]) :].tolist()
    return said


def run(setup: Setup, seed: int | None = None) -> dict[int, list[int]]:
    ids: dict[int, list[int]] = {index: [] for index in range(len(prompts()))}
    for core, _ in engine(make("Qwen3ForCausalLM"), setup):
        for index, prompt in enumerate(prompts()):
            core.take_in(
                AddRequest(
                    key=index,
                    prompt=np.array(prompt, dtype="<i4").tobytes(),
                    sampling=sampling_of(budget_of(index), seed and seed + index),
                    max_tokens=NUM_TOKENS,
                    arrival=time.monotonic(),
                )
            )
        while core.has_work:
            message = core.step()
            if message is None:
                continue
            assert not message.failed
            keys = np.frombuffer(message.keys, "<i8").tolist()
            for key, token in zip(keys, np.frombuffer(message.token_ids, "<i4"), strict=True):
                ids[key].append(int(token))
            stats = message.stats
        if setup.few_blocks:
            assert stats is not None and stats.num_preemptions > 0
    return ids


@pytest.mark.parametrize(
    "setup",
    [
        Setup(clients=1, prefix_cache=False),
        Setup(clients=32),
        Setup(chunked=True, few_blocks=True),
        Setup(few_blocks=True, steps_in_flight=1),
    ],
    ids=str,
)
def test_the_budget_is_exact_and_others_are_left_alone(setup: Setup) -> None:
    right = wanted()
    assert sum(tuple(right[i]) != expected(make("Qwen3ForCausalLM"))[i].ids for i in right) > 15
    assert run(setup) == right


def test_drawn_thoughts_end_at_their_budget() -> None:
    for index, ids in run(Setup(clients=32), seed=7).items():
        budget = budget_of(index)
        if budget is not None and not ended_by_itself(ids, budget):
            assert tuple(ids[budget : budget + len(CLOSE)]) == CLOSE


def test_steps_by_graphs_force_the_end_too() -> None:
    prompt, close = [3, 5, 8, 13], (40, 41)
    thinking = ThinkingBudget(4, (close,), close)
    sampling = TokenSampling(starts_in_reasoning=True, thinking=thinking)
    driver = Driver(recorder=(recorder := ReplayedFunction()))
    requests = [driver.request(0, prompt), driver.request(1, prompt, sampling)]
    driver.run(requests, 12)
    alone = Driver()
    plain = alone.request(0, prompt)
    alone.run([plain], 12)
    assert requests[0].output == plain.output
    assert requests[1].output[:6] == [*plain.output[:4], *close]
    after = Driver()
    rest = after.request(0, [*prompt, *requests[1].output[:6]])
    after.run([rest], 6)
    assert requests[1].output[6:] == rest.output
    assert recorder.replayed > 0
