"""The worker on a GPU: captured graphs, eager steps and the host agree."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.checkpoints import VOCAB_SIZE, make
from tests.plugins.workers.test_device import plan

from jackfield.compute import offload
from jackfield.contracts.sampling import TokenSampling
from jackfield.contracts.work import AdmittedRow, PendingStep, ScheduledBatch
from jackfield_workers.device import DeviceWorker

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
]

NUM_ROWS, LENGTH, NUM_TOKENS, BLOCKS = 7, 20, 24, 4
SAMPLINGS = {
    "greedy": [TokenSampling()],
    "shortlist": [TokenSampling(temperature=0.8, top_k=20, top_p=0.95, seed=5), TokenSampling()],
    "whole": [TokenSampling(temperature=1.0, seed=6), TokenSampling(temperature=0.7, top_k=30)],
    "nucleus": [TokenSampling(temperature=1.0, top_p=0.9, seed=7)],
    "rules": [
        TokenSampling(repetition_penalty=1.2, presence_penalty=0.5, frequency_penalty=0.5),
        TokenSampling(logit_bias=((5, 3.0),), bad_words=((5, 6), (7,)), logprobs=3),
        TokenSampling(allowed_token_ids=tuple(range(50)), min_tokens=9, min_tokens_ids=(3, 4)),
        TokenSampling(temperature=1.0, top_p=0.9, seed=7, prompt_logprobs=2),
    ],
}


def generate(
    samplings: list[TokenSampling], *, device: str, steps_ahead: int, eager: bool, **more: object
) -> list[list[int]]:
    """Token ids [NUM_ROWS][NUM_TOKENS]; step n is enqueued before step n - steps_ahead is read."""
    worker = DeviceWorker()
    changes = {"device": device, "enforce_eager": eager, "max_num_seqs": 8, **more}
    worker.start(plan(make("Qwen3ForCausalLM"), gpu_memory_utilization=0.5, **changes))
    rng = np.random.default_rng(0)
    rows = np.arange(NUM_ROWS, dtype=np.int32)
    admitted = tuple(
        AdmittedRow(
            int(row),
            rng.integers(0, VOCAB_SIZE, LENGTH).astype(np.int32),
            LENGTH,
            samplings[row % len(samplings)],
        )
        for row in rows
    )
    blocks = [(row, i, 1 + BLOCKS * row + i) for row in range(NUM_ROWS) for i in range(BLOCKS)]
    pending: list[PendingStep] = []
    tokens = []
    for number in range(NUM_TOKENS):
        first, count = (0, LENGTH) if number == 0 else (LENGTH + number - 1, 1)
        batch = ScheduledBatch(
            step=number,
            admitted=admitted if number == 0 else (),
            rows=rows,
            num_tokens=np.full(NUM_ROWS, count, dtype=np.int32),
            first_positions=np.full(NUM_ROWS, first, dtype=np.int32),
            samples=np.ones(NUM_ROWS, dtype=np.bool_),
            new_blocks=np.array(blocks if number == 0 else [], dtype=np.int32).reshape(-1, 3),
        )
        pending.append(worker.execute(batch))
        if len(pending) > steps_ahead:
            output = pending.pop(0).wait()
            assert not output.failed
            tokens.append(output.token_ids.tolist())
    tokens += [step.wait().token_ids.tolist() for step in pending]
    worker.stop()
    return tokens


@pytest.mark.parametrize("name", SAMPLINGS)
def test_graphs_eager_steps_and_the_host_agree(name: str) -> None:
    samplings = SAMPLINGS[name]
    graphs = generate(samplings, device="cuda", steps_ahead=1, eager=False)
    assert graphs == generate(samplings, device="cuda", steps_ahead=0, eager=True)
    assert graphs == generate(samplings, device="cpu", steps_ahead=0, eager=True)


@pytest.mark.parametrize("kv_dtype", ["float8_e4m3fn", "float8_e5m2"])
def test_graphs_and_eager_steps_agree_over_keys_of_8_bits(kv_dtype: str) -> None:
    more = {"kv_dtype": kv_dtype, "calculate_kv_scales": True, "device": "cuda"}
    graphs = generate([TokenSampling()], steps_ahead=1, eager=False, **more)  # type: ignore[arg-type]
    assert graphs == generate([TokenSampling()], steps_ahead=0, eager=True, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("eager", [True, False])
def test_layers_that_come_from_the_hosts_memory_give_the_same(
    eager: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(offload, "_LEAST_BYTES", 1024)
    monkeypatch.setattr(offload, "_SLOTS", 1)
    there = generate([TokenSampling()], device="cuda", steps_ahead=1, eager=eager)
    away = generate(
        [TokenSampling()], device="cuda", steps_ahead=1, eager=eager, cpu_offload_bytes=1
    )
    assert there == away


def test_no_step_waits_for_the_device() -> None:
    """CUDA's own check: in this mode torch raises at every synchronizing call."""
    for samplings in SAMPLINGS.values():
        worker = DeviceWorker()
        worker.start(plan(make("Qwen3ForCausalLM"), device="cuda", gpu_memory_utilization=0.5))
        ids = np.arange(LENGTH, dtype=np.int32)
        zero, one = np.zeros(1, dtype=np.int32), np.ones(1, dtype=np.bool_)
        blocks = np.array([(0, 0, 1), (0, 1, 2)], dtype=np.int32)
        for sampling in samplings:
            admitted = (AdmittedRow(0, ids, LENGTH, sampling),)
            prefill = ScheduledBatch(0, admitted, zero, zero + LENGTH, zero, one, blocks)
            decode = ScheduledBatch(1, (), zero, zero + 1, zero + LENGTH, one, blocks[:0])
            worker.execute(prefill).wait()
            worker.execute(decode).wait()
            torch.cuda.set_sync_debug_mode("error")
            try:
                steps = [worker.execute(prefill), worker.execute(decode)]
            finally:
                torch.cuda.set_sync_debug_mode("default")
            for step in steps:
                step.wait()
        worker.stop()
