"""Quantization of models that transformers runs: logprobs are its own with the same numbers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.checkpoints import make, reference
from tests.plugins.quantization.checkpoints import LINEARS, quantized_copy
from tests.plugins.quantization.test_methods import ALL, expected, logprobs, worker_plan
from torch import Tensor

from jackfield.errors import CheckpointError, ConfigError

FUSED = tuple(f"{name}_proj.weight" for name in ("qkv", "o", "gate_up", "down"))
"""Layers that the checkpoint itself has in one."""
OF_MIXTRAL = (*LINEARS, *(f"experts.{i}.w{j}.weight" for i in range(4) for j in (1, 2, 3)))
CASES = (
    *("gptq-4", "awq", "packed-4", "floats-channel", "fp8-block", "nvfp4", "bitsandbytes-nf4"),
    *("aqlm-1x16", "hqq-4-axis-1", "marlin"),
)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(
    ("architecture", "linears"),
    [
        ("Olmo2ForCausalLM", LINEARS),
        ("Phi3ForCausalLM", FUSED),
        ("MixtralForCausalLM", OF_MIXTRAL),
    ],
)
def test_a_checkpoint_is_served_as_the_numbers_it_stands_for(
    architecture: str, linears: tuple[str, ...], case: str, tmp_path: Path
) -> None:
    config, pack = ALL[case]
    source = make(architecture, hidden_size=128, intermediate_size=128)
    directory, model = quantized_copy(tmp_path / "model", config, pack, source, linears)
    torch.testing.assert_close(logprobs(worker_plan(directory)), expected(model), atol=1e-4, rtol=0)


@pytest.mark.parametrize(("method", "most"), [("int8", 0.1), ("fp8", 0.3), ("int4", 1.0)])
@pytest.mark.parametrize(
    "architecture", ["Gemma2ForCausalLM", "Phi3ForCausalLM", "MixtralForCausalLM"]
)
def test_online_methods_round_a_plain_checkpoint(
    architecture: str, method: str, most: float
) -> None:
    directory = make(architecture)
    exact = expected(reference(directory))
    found = logprobs(worker_plan(directory, quantization=method))
    assert not torch.equal(found, exact)
    assert float((found - exact).abs().mean()) < most


def test_biases_of_zeros_beside_codes_add_nothing(tmp_path: Path) -> None:
    config, pack = ALL["gptq-4"]

    def with_bias(weight: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        packed, numbers = pack(weight)
        return packed | {"bias": torch.zeros(len(weight))}, numbers

    source = make("Olmo2ForCausalLM", hidden_size=128, intermediate_size=128)
    directory, model = quantized_copy(tmp_path / "model", config, with_bias, source)
    torch.testing.assert_close(logprobs(worker_plan(directory)), expected(model), atol=1e-4, rtol=0)


def test_a_plain_weight_where_codes_are_wanted_is_named(tmp_path: Path) -> None:
    config, pack = ALL["gptq-4"]
    source = make("Olmo2ForCausalLM", hidden_size=128, intermediate_size=128)
    plain = tuple(name for name in LINEARS if not name.startswith("down"))
    directory, _ = quantized_copy(tmp_path / "model", config, pack, source, plain)
    with pytest.raises(
        CheckpointError, match=r"no place for .* model\.layers\.\d\.mlp\.down_proj\.weight"
    ):
        logprobs(worker_plan(directory))


@pytest.mark.parametrize(
    ("architecture", "said"),
    [("GptOssForCausalLM", "means the experts"), ("GPT2LMHeadModel", "means no layer")],
)
def test_what_cannot_be_quantized_is_refused(architecture: str, said: str) -> None:
    plan = worker_plan(make(architecture), quantization="int8", model_impl="transformers")
    with pytest.raises(ConfigError, match=f"quantization 'int8' {said} of {architecture}"):
        logprobs(plan)
