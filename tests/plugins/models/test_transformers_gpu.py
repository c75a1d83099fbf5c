"""Models of transformers on a GPU choose what they choose on the host."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.checkpoints import make, reference
from tests.plugins.models.test_transformers import SERVED
from tests.plugins.workers.test_device import PROMPT, generate, plan
from torch import Tensor

from jackfield_workers.device import DeviceWorker

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
]

NUM_TOKENS = 11
WARNING = "cannot be CUDA graphs"


def chosen(directory: Path, device: str, **changes: object) -> list[int]:
    worker = DeviceWorker()
    changes |= {"device": device, "model_impl": "transformers", "gpu_memory_utilization": 0.5}
    worker.start(plan(directory, **changes))
    ids = generate(worker, NUM_TOKENS)
    worker.stop()
    return ids


def chosen_by_transformers(directory: Path) -> list[int]:
    with torch.inference_mode():
        ids: Tensor = reference(directory).generate(
            torch.tensor([PROMPT]), max_new_tokens=NUM_TOKENS, do_sample=False, eos_token_id=None
        )
    found: list[int] = ids[0, len(PROMPT) :].tolist()
    return found


@pytest.mark.parametrize("architecture", SERVED)
def test_models_choose_what_transformers_chooses(
    architecture: str, caplog: pytest.LogCaptureFixture
) -> None:
    directory = make(architecture)
    assert chosen(directory, "cuda") == chosen_by_transformers(directory)
    # Experts with biases are a loop of transformers', which looks at what it has.
    assert (WARNING in caplog.text) == (architecture == "GptOssForCausalLM")


@pytest.mark.parametrize("method", ["fp8", "int8", "int4"])
@pytest.mark.parametrize("architecture", ["Phi3ForCausalLM", "MixtralForCausalLM"])
def test_quantized_layers_choose_what_they_choose_on_the_host(
    architecture: str, method: str, caplog: pytest.LogCaptureFixture
) -> None:
    directory = make(architecture)
    there = chosen(directory, "cuda", quantization=method)
    assert there == chosen(directory, "cpu", quantization=method)
    assert WARNING not in caplog.text


def test_a_model_that_waits_for_the_device_runs_without_graphs(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from transformers.models.olmo2.modeling_olmo2 import Olmo2DecoderLayer

    directory = make("Olmo2ForCausalLM")
    expected, plain = chosen_by_transformers(directory), Olmo2DecoderLayer.forward

    def waiting(self: Olmo2DecoderLayer, hidden_states: Tensor, **others: Any) -> Tensor:
        assert hidden_states.is_meta or hidden_states.isfinite().all()
        made: Tensor = plain(self, hidden_states, **others)
        return made

    monkeypatch.setattr(Olmo2DecoderLayer, "forward", waiting)
    assert chosen(directory, "cuda") == expected
    assert WARNING in caplog.text
