"""The worker finds its parts by name, and generates what transformers does."""

from __future__ import annotations

import json
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.checkpoints import make, reference
from torch import Tensor

from jackfield.compute.model_runner import ModelRunner
from jackfield.config.plan import WorkerPlan
from jackfield.contracts.sampling import TokenSampling
from jackfield.contracts.work import AdmittedRow, ScheduledBatch
from jackfield.errors import ConfigError, UnknownPluginError
from jackfield_workers.device import DeviceWorker

PROMPT = [3, 14, 15, 92, 65]
BLOCK = 16


def plan(directory: Path, **changes: object) -> WorkerPlan:
    values: dict[str, object] = {
        "model": str(directory),
        "config": json.loads((directory / "config.json").read_text()),
        "device": "cpu",
        "dtype": "float32",
        "max_model_len": 64,
        "max_num_seqs": 4,
        "max_num_batched_tokens": 64,
        "block_size": BLOCK,
        "num_threads": 1,
        **changes,
    }
    return WorkerPlan(**values)  # type: ignore[arg-type]


def step(prompt: list[int], first: int, count: int) -> ScheduledBatch:
    ids = np.array(prompt, dtype=np.int32)
    return ScheduledBatch(
        step=first,
        admitted=(AdmittedRow(1, ids, len(prompt), TokenSampling()),) if first == 0 else (),
        rows=np.array([1], dtype=np.int32),
        num_tokens=np.array([count], dtype=np.int32),
        first_positions=np.array([first], dtype=np.int32),
        samples=np.array([True]),
        new_blocks=np.array([[1, 0, 1]] if first == 0 else [], dtype=np.int32).reshape(-1, 3),
    )


def generate(worker: DeviceWorker, num_tokens: int) -> list[int]:
    output = [int(worker.execute(step(PROMPT, 0, len(PROMPT))).wait().token_ids[0])]
    while len(output) < num_tokens:
        batch = step(PROMPT, len(PROMPT) + len(output) - 1, 1)
        output.append(int(worker.execute(batch).wait().token_ids[0]))
    return output


@pytest.mark.parametrize("model_impl", ["auto", "jackfield", "transformers"])
def test_generates_what_transformers_generates(model_impl: str) -> None:
    directory = make("Qwen3ForCausalLM")
    worker = DeviceWorker()
    capacity = worker.start(plan(directory, model_impl=model_impl))
    with torch.inference_mode():
        expected = reference(directory).generate(
            torch.tensor([PROMPT]), max_new_tokens=8, do_sample=False, eos_token_id=None
        )
    assert generate(worker, 8) == expected[0, len(PROMPT) :].tolist()
    assert capacity.steps_in_flight == 1
    assert any("weights loaded" in note for note in capacity.notes)
    worker.stop()


@pytest.mark.parametrize("level", [1, 2])
def test_after_a_sleep_everything_is_as_before(level: int) -> None:
    worker = DeviceWorker()
    worker.start(plan(make("Qwen3ForCausalLM"), num_blocks_override=9))
    before = generate(worker, 8)
    shape = _key(worker).shape
    model, kv = weakref.ref(_inner(worker)._model), weakref.ref(_key(worker))
    for _ in range(2):
        worker.sleep(level)
        assert kv() is None
        assert (model() is None) == (level == 2)
        worker.wake_up()
        assert generate(worker, 8) == before
        assert _key(worker).shape == shape
        model, kv = weakref.ref(_inner(worker)._model), weakref.ref(_key(worker))


def _key(worker: DeviceWorker) -> Tensor:
    store = _inner(worker)._store
    assert store is not None
    return store.layers[0].key


def _inner(worker: DeviceWorker) -> ModelRunner:
    assert worker._runner is not None
    return worker._runner


def test_an_architecture_of_nobody_is_refused_unless_transformers_may_try() -> None:
    directory = make("Qwen3ForCausalLM")
    config = {**json.loads((directory / "config.json").read_text()), "architectures": ["NoSuch"]}
    with pytest.raises(UnknownPluginError, match="NoSuch"):
        DeviceWorker().start(plan(directory, config=config, model_impl="jackfield"))


@pytest.mark.parametrize("dtype", ["nonsense", "float7", "nn"])
def test_a_dtype_that_torch_lacks_is_refused(dtype: str) -> None:
    with pytest.raises(ConfigError, match=dtype):
        DeviceWorker().start(plan(make("Qwen3ForCausalLM"), dtype=dtype))
