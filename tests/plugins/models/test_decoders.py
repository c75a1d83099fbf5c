"""Our decoders against transformers' own models, in float32."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
import torch
from tests.checkpoints import make, random_ids, reference
from tests.paged_steps import PagedModel, load
from torch import Tensor, nn
from transformers import DynamicCache, GptOssConfig

from jackfield.compute.kernels.scaled_rows import NormedRows, ScaledRows
from jackfield.compute.layers import linear
from jackfield.compute.layers.norm import RMSNorm
from jackfield.compute.layers.unquantized import UnquantizedLinear
from jackfield_load_formats.auto import AutoLoadFormat
from jackfield_models.gpt_oss import GptOssForCausalLM
from jackfield_models.llama import LlamaForCausalLM
from jackfield_models.mistral import MistralForCausalLM
from jackfield_models.qwen2 import Qwen2ForCausalLM
from jackfield_models.qwen3 import Qwen3ForCausalLM
from jackfield_models.qwen3_moe import Qwen3MoeForCausalLM

CLASSES = {
    c.__name__: c
    for c in (
        GptOssForCausalLM,
        LlamaForCausalLM,
        MistralForCausalLM,
        Qwen2ForCausalLM,
        Qwen3ForCausalLM,
        Qwen3MoeForCausalLM,
    )
}
VARIANTS: dict[str, tuple[str, dict[str, object]]] = {
    "qwen3": ("Qwen3ForCausalLM", {}),
    "qwen3-untied": ("Qwen3ForCausalLM", {"tie_word_embeddings": False}),
    "qwen3-bias": ("Qwen3ForCausalLM", {"attention_bias": True}),
    "qwen2": ("Qwen2ForCausalLM", {}),
    "qwen2-window": (
        "Qwen2ForCausalLM",
        {"use_sliding_window": True, "sliding_window": 7, "max_window_layers": 1},
    ),
    "qwen3-layer-types": (
        "Qwen3ForCausalLM",
        {
            "use_sliding_window": True,
            "sliding_window": 9,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        },
    ),
    "llama": ("LlamaForCausalLM", {}),
    "llama-tied": ("LlamaForCausalLM", {"tie_word_embeddings": True}),
    "llama-biases": ("LlamaForCausalLM", {"attention_bias": True, "mlp_bias": True}),
    "llama-head-dim": ("LlamaForCausalLM", {"head_dim": 48}),
    "llama-no-groups": ("LlamaForCausalLM", {"num_key_value_heads": 4}),
    "llama-linear": (
        "LlamaForCausalLM",
        {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0}},
    ),
    "llama-llama3": (
        "LlamaForCausalLM",
        {
            "rope_parameters": {
                "rope_type": "llama3",
                "rope_theta": 500000.0,
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 64,
            }
        },
    ),
    "llama-yarn": (
        "LlamaForCausalLM",
        {
            "rope_parameters": {
                "rope_type": "yarn",
                "rope_theta": 10000.0,
                "factor": 4.0,
                "original_max_position_embeddings": 32,
            }
        },
    ),
    "qwen3-moe": ("Qwen3MoeForCausalLM", {}),
    "qwen3-moe-renormalized": (
        "Qwen3MoeForCausalLM",
        {"norm_topk_prob": True, "num_experts_per_tok": 3},
    ),
    "qwen3-moe-some-layers": (
        "Qwen3MoeForCausalLM",
        {"decoder_sparse_step": 2, "mlp_only_layers": [0], "num_hidden_layers": 4},
    ),
    "qwen3-moe-window": (
        "Qwen3MoeForCausalLM",
        {"use_sliding_window": True, "sliding_window": 7},
    ),
    "gpt-oss": ("GptOssForCausalLM", {}),
    "gpt-oss-clamped": ("GptOssForCausalLM", {"swiglu_limit": 0.2, "swiglu_alpha": 0.9}),
    "mistral": ("MistralForCausalLM", {}),
    "mistral-window": ("MistralForCausalLM", {"sliding_window": 11}),
}
if not hasattr(GptOssConfig(), "swiglu_limit"):
    del VARIANTS["gpt-oss-clamped"]  # transformers 5.17 knows one limit only


def checkpoint(variant: str) -> Path:
    architecture, config = VARIANTS[variant]
    return make(architecture, "float32", sharded=False, **config)


@pytest.mark.parametrize("variant", VARIANTS)
def test_logits_equal_transformers_for_a_prompt_at_once_in_pieces_and_by_token(
    variant: str,
) -> None:
    directory = checkpoint(variant)
    prompts = [random_ids(40, seed=1), random_ids(27, seed=2), random_ids(33, seed=3)]
    model = reference(directory)
    with torch.inference_mode():
        expected = [model(torch.tensor([prompt])).logits[0] for prompt in prompts]
    paged = PagedModel(load(CLASSES[VARIANTS[variant][0]], directory, AutoLoadFormat()))
    whole = paged.step({0: prompts[0]})[0]
    torch.testing.assert_close(whole, expected[0], atol=1e-4, rtol=1e-4)
    pieces = [paged.step({1: prompts[1][:10]})[1], paged.step({1: prompts[1][10:]})[1]]
    torch.testing.assert_close(torch.cat(pieces), expected[1], atol=1e-4, rtol=1e-4)
    single = [paged.step({2: [token]})[2] for token in prompts[2]]
    torch.testing.assert_close(torch.cat(single), expected[2], atol=1e-4, rtol=1e-4)


class NormalizingLinear(UnquantizedLinear):
    """Does in plain torch what a GPU does in one kernel: the sums of squares come in two parts."""

    num_sums = 0

    def apply_add(
        self,
        layer: nn.Module,
        x: Tensor,
        bias: Tensor | None,
        residual: Tensor,
        norm: RMSNorm,
        reader: nn.Module,
    ) -> ScaledRows | NormedRows | None:
        residual += self.apply(layer, x, bias)
        halves = residual.square().chunk(2, -1)
        NormalizingLinear.num_sums += 1
        squares = torch.stack([half.sum(-1) for half in halves])
        return ScaledRows(residual * norm.weight, squares, norm.eps)

    def apply_scaled(
        self, layer: nn.Module, x: ScaledRows | NormedRows, bias: Tensor | None
    ) -> Tensor:
        if isinstance(x, NormedRows):
            return super().apply_scaled(layer, x, bias)
        factors = torch.rsqrt(x.squares.sum(0) / x.rows.shape[1] + x.eps)
        return self.apply(layer, x.rows * factors[:, None], bias)

    def apply_gated(
        self, layer: nn.Module, x: Tensor | ScaledRows | NormedRows, bias: Tensor | None
    ) -> Tensor:
        if not isinstance(x, ScaledRows):
            return super().apply_gated(layer, x, bias)
        gate, up = self.apply_scaled(layer, x, bias).chunk(2, -1)
        return nn.functional.silu(gate) * up


class AddingLinear(NormalizingLinear):
    """Only adds to the residual in its product; the norm is done before the next."""

    def apply_add(
        self,
        layer: nn.Module,
        x: Tensor,
        bias: Tensor | None,
        residual: Tensor,
        norm: RMSNorm,
        reader: nn.Module,
    ) -> NormedRows:
        residual += self.apply(layer, x, bias)
        NormalizingLinear.num_sums += 1
        return NormedRows(norm(residual))


@pytest.mark.parametrize("method", [NormalizingLinear, AddingLinear])
@pytest.mark.parametrize("variant", ["qwen3", "llama-biases", "qwen3-moe-some-layers"])
def test_norms_in_products_give_the_logits_of_transformers(
    variant: str, method: type[NormalizingLinear], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(linear, "UnquantizedLinear", method)
    monkeypatch.setattr(NormalizingLinear, "num_sums", 0)
    directory = checkpoint(variant)
    prompt = random_ids(20)
    with torch.inference_mode():
        expected = reference(directory)(torch.tensor([prompt])).logits[0]
    paged = PagedModel(load(CLASSES[VARIANTS[variant][0]], directory, AutoLoadFormat()))
    pieces = [paged.step({0: prompt[:15]})[0], paged.step({0: prompt[15:]})[0]]
    torch.testing.assert_close(torch.cat(pieces), expected, atol=1e-4, rtol=1e-4)
    assert NormalizingLinear.num_sums >= 2 * 2


def test_sequences_in_one_step_do_not_see_each_other() -> None:
    directory = checkpoint("qwen3")
    prompts = {row: random_ids(8 + 9 * row, seed=row) for row in range(4)}
    model = reference(directory)
    paged = PagedModel(load(Qwen3ForCausalLM, directory, AutoLoadFormat()))
    first = paged.step(prompts)
    more = {0: [5], 1: random_ids(3, seed=9), 3: [7]}
    second = paged.step(more)
    for row, prompt in prompts.items():
        with torch.inference_mode():
            expected = model(torch.tensor([prompt + list(more.get(row, []))])).logits[0]
        ours = torch.cat([first[row], *([second[row]] if row in second else [])])
        torch.testing.assert_close(ours, expected, atol=1e-4, rtol=1e-4)


def test_dynamic_scaling_equals_transformers_token_by_token_past_the_trained_context() -> None:
    rope = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
    directory = make("LlamaForCausalLM", rope_parameters=rope, max_position_embeddings=16)
    ids = random_ids(40)
    model = reference(directory)
    parameters = inspect.signature(model.forward).parameters
    cache = {"cache" if "cache" in parameters else "past_key_values": DynamicCache()}
    with torch.inference_mode():
        expected = [model(torch.tensor([[token]]), **cache).logits[0] for token in ids]
    paged = PagedModel(load(LlamaForCausalLM, directory, AutoLoadFormat()))
    ours = [paged.step({0: [token]})[0] for token in ids]
    torch.testing.assert_close(torch.cat(ours), torch.cat(expected), atol=1e-4, rtol=1e-4)


def test_greedy_output_of_the_tiny_checkpoints_varies() -> None:
    for variant in ("qwen3", "qwen2", "llama", "mistral"):
        model = reference(checkpoint(variant))
        generated = model.generate(
            torch.tensor([random_ids(12)]), max_new_tokens=24, do_sample=False, eos_token_id=None
        )
        assert len(set(generated[0, 12:].tolist())) > 8, variant
