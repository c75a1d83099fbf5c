"""Quantized experts, under the names of Qwen 3's mixture of experts."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.checkpoints import make, reference
from tests.plugins.quantization.bitsandbytes_packers import BITSANDBYTES
from tests.plugins.quantization.checkpoints import Tensors, quantized_copy, rewritten_copy
from tests.plugins.quantization.packers import CASES, mxfp4
from tests.plugins.quantization.test_methods import expected, logprobs, worker_plan

from jackfield.compute.layers.coded_weight import CodedWeight
from jackfield.compute.layers.moe import EveryExpert, ExpertList, ExpertsConfig
from jackfield.testing import ModelContract
from jackfield_quantization.int8 import Int8Quantization
from jackfield_quantization.mxfp4 import Mxfp4Quantization

_EXPERTS = ".mlp.experts."


def source() -> Path:
    return make("Qwen3MoeForCausalLM", moe_intermediate_size=64)


@pytest.mark.parametrize(
    "case", ["gptq-4", "awq", "packed-4", "int8", "fp8-block", "nvfp4", "bitsandbytes-nf4"]
)
def test_experts_are_served_as_the_numbers_they_stand_for(case: str, tmp_path: Path) -> None:
    config, pack = {**CASES, **BITSANDBYTES}[case]
    config = {**config, "ignore": ["lm_head", "re:.*mlp.gate$"], "modules_to_not_convert": ["gate"]}
    directory, model = quantized_copy(tmp_path / "model", config, pack, source())
    torch.testing.assert_close(logprobs(worker_plan(directory)), expected(model), atol=1e-4, rtol=0)


def stacked(tensors: Tensors) -> tuple[Tensors, Tensors]:
    """The experts of each layer in one tensor, as gpt-oss has them."""
    stored = {name: tensor for name, tensor in tensors.items() if _EXPERTS not in name}
    numbers = dict(stored)
    blocks: dict[str, list[Tensors]] = {}
    for name in sorted(name for name in tensors if name.endswith(f"{_EXPERTS}0.up_proj.weight")):
        layer = name.removesuffix("0.up_proj.weight")
        for index in range(4):
            own = {part: f"{layer}{index}.{part}_proj.weight" for part in ("gate", "up", "down")}
            both = torch.stack((tensors[own["gate"]], tensors[own["up"]]), 1).flatten(0, 1)
            for place, weight in (("gate_up_proj", both), ("down_proj", tensors[own["down"]])):
                packed, exact = mxfp4(weight)
                blocks.setdefault(layer + place, []).append(packed)
                if place == "down_proj":
                    numbers[own["down"]] = exact
                else:
                    numbers[own["gate"]], numbers[own["up"]] = exact[0::2], exact[1::2]
    for name, each in blocks.items():
        whole = torch.stack([packed["weight_packed"] for packed in each])
        stored[f"{name}_blocks"] = whole.view(*whole.shape[:2], -1, 16)
        stored[f"{name}_scales"] = torch.stack([packed["weight_scale"] for packed in each])
    return stored, numbers


def gpt_oss_experts(tensors: Tensors) -> tuple[Tensors, Tensors]:
    """gpt-oss' own experts: [E, inputs, outputs], gate and up by turns already."""
    stored, numbers = dict(tensors), dict(tensors)
    for name in tensors:
        if name.endswith(("experts.gate_up_proj", "experts.down_proj")):
            experts = [mxfp4(expert.t().contiguous()) for expert in stored.pop(name)]
            blocks = torch.stack([packed["weight_packed"] for packed, _ in experts])
            stored[f"{name}_blocks"] = blocks.view(*blocks.shape[:2], -1, 16)
            stored[f"{name}_scales"] = torch.stack([p["weight_scale"] for p, _ in experts])
            numbers[name] = torch.stack([exact.t() for _, exact in experts]).contiguous()
    return stored, numbers


def test_gpt_oss_is_served(tmp_path: Path) -> None:
    config: dict[str, object] = {
        "quant_method": "mxfp4",
        "modules_to_not_convert": [
            "model.layers.*.self_attn",
            "model.layers.*.mlp.router",
            "model.embed_tokens",
            "lm_head",
        ],
    }
    source = make("GptOssForCausalLM")
    directory, model = rewritten_copy(tmp_path / "model", config, gpt_oss_experts, source)
    torch.testing.assert_close(logprobs(worker_plan(directory)), expected(model), atol=1e-4, rtol=0)


def test_experts_in_one_tensor_are_served(tmp_path: Path) -> None:
    config: dict[str, object] = {
        "quant_method": "mxfp4",
        "modules_to_not_convert": ["model.layers.*.self_attn", "lm_head"],
    }
    directory, model = rewritten_copy(tmp_path / "model", config, stacked, source())
    torch.testing.assert_close(logprobs(worker_plan(directory)), expected(model), atol=1e-4, rtol=0)


def test_exceptions_of_mxfp4_are_patterns() -> None:
    method = Mxfp4Quantization({"modules_to_not_convert": ["model.layers.*.self_attn"]})
    assert method.linear_method("model.layers.11.self_attn.qkv_proj") is None
    assert method.linear_method("model.layers.0.mlp.gate") is None
    assert method.linear_method("model.layers.0.mlp.experts.3.down_proj") is not None


def test_experts_int8_rounds_experts_and_nothing_else() -> None:
    exact = expected(reference(source()))
    found = logprobs(worker_plan(source(), quantization="experts_int8"))
    assert 0 < float((found - exact).abs().mean()) < 0.1
    everything = logprobs(worker_plan(source(), quantization="int8"))
    assert not torch.equal(found, everything)


@torch.inference_mode()
def test_every_expert_for_all_tokens_gives_what_the_chosen_ones_give() -> None:
    torch.manual_seed(0)
    context = ModelContract().context(Int8Quantization({}))
    config = ExpertsConfig(num_experts=4, top_k=2, intermediate=64, renormalize=True)
    experts = {
        kind: kind(64, config, activation="silu", context=context, prefix="mlp.experts")
        for kind in (ExpertList, EveryExpert)
    }
    for index in range(4):
        for name in ("gate_up_proj", "down_proj"):
            shape = (128, 64) if name == "gate_up_proj" else (64, 64)
            codes = torch.randint(-127, 128, shape, dtype=torch.int8)
            coded = CodedWeight.pack(codes, torch.full((shape[0], 1), 0.01), bits=8)
            for each in experts.values():
                getattr(each[index], name).__dict__["coded"] = coded
    x, logits = torch.randn(5, 64), torch.randn(5, 4)
    torch.testing.assert_close(experts[EveryExpert](x, logits), experts[ExpertList](x, logits))
