"""gpt-oss: attention with sinks, a window in every other layer, experts in every layer.

The experts of a layer are one tensor in the checkpoint, [E, inputs, outputs], gate and up by turns
(transformers' ``GptOssExperts``); what MXFP4 makes of it is the business of that quantization.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace

from torch import Tensor

from jackfield.compute.layers.model_config import ModelConfig
from jackfield.compute.layers.moe import ExpertsConfig, experts_apart
from jackfield_models.decoder import DecoderConfig, DecoderForCausalLM

_EXPERTS = re.compile(r"(.*\.experts\.(?:gate_up_proj|down_proj))(_bias)?")


class GptOssForCausalLM(DecoderForCausalLM):
    """The decoder with sinks, and biases everywhere."""

    @staticmethod
    def describe(config: ModelConfig) -> DecoderConfig:
        bias = config.flag("attention_bias", True)
        decoder = DecoderConfig.read(
            config, sliding_windows=_windows(config), qkv_bias=bias, output_bias=bias
        )
        alpha, limit = config.number("swiglu_alpha", 1.702), config.number("swiglu_limit", 7.0)
        experts = ExpertsConfig(
            num_experts=config.integer("num_local_experts"),
            top_k=config.integer("num_experts_per_tok"),
            intermediate=decoder.intermediate,
            renormalize=True,
            router="router",
            bias=True,
            clamp=(alpha, limit),
        )
        layers = frozenset(range(len(decoder.sliding_windows)))
        return replace(decoder, sinks=True, experts=experts, sparse_layers=layers)

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        super().load_weights(_by_expert(weights))


def _windows(config: ModelConfig) -> tuple[int | None, ...]:
    window = config.integer("sliding_window", 128)
    kinds = config.texts("layer_types")
    if kinds is None:
        num_layers = config.integer("num_hidden_layers")
        return tuple(None if layer % 2 else window for layer in range(num_layers))
    return tuple(window if kind == "sliding_attention" else None for kind in kinds)


def _by_expert(weights: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
    """Views of the experts' tensors, each expert's parts by themselves."""
    for name, tensor in weights:
        found = _EXPERTS.fullmatch(name)
        if found is None:
            yield name, tensor
            continue
        kind = "bias" if found[2] else "weight"
        for own, part in experts_apart(found[1], tensor if found[2] else tensor.transpose(1, 2)):
            yield f"{own}.{kind}", part
