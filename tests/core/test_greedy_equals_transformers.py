"""Greedy ids equal transformers' own model, however the engine schedules, caches or preempts.

64 prompts of mixed length, half of them with a common prefix, 48 tokens each, in float32. The
engine runs in this process: the real scheduler, block manager, step loop and worker.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.checkpoints import VOCAB_SIZE, make, reference

from jackfield.config.settings import make_settings
from jackfield.contracts.messages import AddRequest, FinishReason, TokenLogprobs
from jackfield.contracts.sampling import TokenSampling
from jackfield.contracts.work import Executor
from jackfield.engine.serving import make_core
from jackfield.engine.step_loop import EngineCore
from jackfield.planning import make_plan
from jackfield.registry import Registry

NUM_TOKENS = 48
LENGTHS = (1, 3, 7, 16, 17, 33, 64, 100)
COMMON_PREFIX = 48
OURS = (
    "Qwen3ForCausalLM",
    "Qwen2ForCausalLM",
    "LlamaForCausalLM",
    "MistralForCausalLM",
    "GptOssForCausalLM",
)
ONLY_TRANSFORMERS = ("Gemma2ForCausalLM",)


@dataclass(frozen=True)
class Setup:
    """One way to run the same prompts."""

    prefix_cache: bool = True
    chunked: bool = False
    few_blocks: bool = False
    clients: int = 32
    steps_in_flight: int = 2
    logprobs: int | None = None

    @property
    def options(self) -> dict[str, object]:
        return {
            "device": "cpu",
            "dtype": "float32",
            "max_model_len": 160,
            "block_size": 16,
            # Each sequence of a step needs a token of the budget.
            "max_num_seqs": min(self.clients, 16) if self.chunked else self.clients,
            "max_num_batched_tokens": 16 if self.chunked else 2048,
            # Room for two and a half of the longest sequences.
            "num_gpu_blocks_override": 26 if self.few_blocks else 512,
            "enable_prefix_caching": self.prefix_cache,
            "num_scheduler_steps": self.steps_in_flight,
            "num_threads": 1,
            "use_tqdm_on_load": False,
        }


ALL_SETUPS = [
    Setup(*values)
    for values in itertools.product((False, True), (False, True), (False, True), (1, 32))
]
HARDEST = Setup(prefix_cache=True, chunked=True, few_blocks=True)


@cache
def prompts() -> tuple[tuple[int, ...], ...]:
    """64 prompts; of two of a length one begins like the others."""
    rng = np.random.default_rng(5)
    common = rng.integers(3, VOCAB_SIZE, COMMON_PREFIX)
    made = []
    for index in range(64):
        ids = rng.integers(3, VOCAB_SIZE, LENGTHS[index % len(LENGTHS)])
        if index % 16 >= len(LENGTHS):
            shared = min(len(common), len(ids))
            ids[:shared] = common[:shared]
        made.append(tuple(ids.tolist()))
    return tuple(made)


@dataclass(frozen=True)
class Expected:
    ids: tuple[int, ...]
    logprobs: tuple[float, ...]


@cache
def expected(directory: Path) -> dict[int, Expected]:
    """What transformers' model continues each prompt with, and the logprob of each token."""
    model = reference(directory)
    found: dict[int, Expected] = {}
    for length in LENGTHS:
        members = [i for i, prompt in enumerate(prompts()) if len(prompt) == length]
        inputs = torch.tensor([prompts()[i] for i in members])
        with torch.inference_mode():
            out = model.generate(
                inputs,
                attention_mask=torch.ones_like(inputs),
                max_new_tokens=NUM_TOKENS,
                do_sample=False,
                eos_token_id=None,
                output_logits=True,
                return_dict_in_generate=True,
            )
        ids = out.sequences[:, length:]
        scores = torch.stack(out.logits, dim=1).double().log_softmax(-1)
        logprobs = scores.gather(2, ids[:, :, None])[:, :, 0]
        for place, index in enumerate(members):
            found[index] = Expected(
                tuple(ids[place].tolist()),
                tuple(logprobs[place].tolist()),
            )
    return found


def engine(directory: Path, setup: Setup) -> Iterator[tuple[EngineCore, Executor]]:
    settings = make_settings({"model": str(directory), **setup.options})
    registry = Registry(settings.plugin_sources)
    plan = make_plan(settings, registry).engine
    executor: Executor = registry.load("executors", plan.worker.executor)()
    scheduler = registry.load("schedulers", plan.scheduler)
    capacity = executor.start(plan.worker)
    core, _ = make_core(plan, executor, scheduler, capacity, [])
    yield core, executor
    executor.stop()


def run(
    directory: Path, setup: Setup
) -> tuple[dict[int, list[int]], dict[int, list[TokenLogprobs]]]:
    """Ids and logprobs of every prompt, and the engine left empty."""
    ids: dict[int, list[int]] = {index: [] for index in range(len(prompts()))}
    logprobs: dict[int, list[TokenLogprobs]] = {index: [] for index in ids}
    for core, _ in engine(directory, setup):
        free_rows = core.num_free_rows
        for index, prompt in enumerate(prompts()):
            core.take_in(
                AddRequest(
                    key=index,
                    prompt=np.array(prompt, dtype="<i4").tobytes(),
                    sampling=TokenSampling(logprobs=setup.logprobs),
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
            tokens = np.frombuffer(message.token_ids, "<i4").tolist()
            for key, token in zip(keys, tokens, strict=True):
                ids[key].append(token)
            for entry in message.logprobs:
                logprobs[entry.key] += entry.output
            stats = message.stats
            last = FinishReason(message.finish[-1]) if message.finish else FinishReason.RUNNING
            assert last in (FinishReason.RUNNING, FinishReason.LENGTH)
        assert core.num_free_rows == free_rows
        if setup.few_blocks and setup.clients > 1:
            assert stats is not None and stats.num_preemptions > 0
        if setup.prefix_cache:
            assert stats is not None and stats.prefix_cache_hits > 0
    return ids, logprobs


def check_ids(directory: Path, setup: Setup) -> None:
    ids, _ = run(directory, setup)
    for index, right in expected(directory).items():
        assert tuple(ids[index]) == right.ids, f"prompt {index} of {len(prompts()[index])} tokens"


@pytest.mark.parametrize("setup", ALL_SETUPS, ids=str)
def test_every_combination_gives_the_same_ids(setup: Setup) -> None:
    check_ids(make("Qwen3ForCausalLM"), setup)


@pytest.mark.parametrize("architecture", (*OURS[1:], *ONLY_TRANSFORMERS))
@pytest.mark.parametrize(
    "setup", [Setup(prefix_cache=False, clients=1), HARDEST], ids=["plain", "hardest"]
)
def test_every_architecture_gives_the_same_ids(architecture: str, setup: Setup) -> None:
    check_ids(make(architecture), setup)


def test_one_step_at_a_time_gives_the_same_ids() -> None:
    check_ids(make("Qwen3ForCausalLM"), Setup(steps_in_flight=1, few_blocks=True))


@pytest.mark.parametrize("architecture", (*OURS, *ONLY_TRANSFORMERS))
def test_logprobs_are_those_of_transformers(architecture: str) -> None:
    directory = make(architecture)
    ids, logprobs = run(directory, Setup(chunked=True, few_blocks=True, logprobs=2))
    for index, right in expected(directory).items():
        assert tuple(ids[index]) == right.ids
        ours = [entry.logprob for entry in logprobs[index]]
        assert ours == pytest.approx(right.logprobs, abs=1e-4)
