"""Qwen 3 with a mixture of experts."""

from __future__ import annotations

from dataclasses import replace

from jackfield.compute.layers.model_config import ModelConfig
from jackfield.compute.layers.moe import ExpertsConfig
from jackfield_models.decoder import DecoderConfig, DecoderForCausalLM
from jackfield_models.qwen3 import Qwen3ForCausalLM


class Qwen3MoeForCausalLM(DecoderForCausalLM):
    """Qwen 3 whose feed-forward blocks, or those of every n-th layer, are experts."""

    @staticmethod
    def describe(config: ModelConfig) -> DecoderConfig:
        experts = ExpertsConfig(
            num_experts=config.integer("num_experts", config.integer("num_local_experts", 0)),
            top_k=config.integer("num_experts_per_tok"),
            intermediate=config.integer("moe_intermediate_size"),
            renormalize=config.flag("norm_topk_prob", False),
        )
        dense = Qwen3ForCausalLM.describe(config)
        num_layers = len(dense.sliding_windows)
        is_windowed = config.flag("use_sliding_window", False)
        window = config.integer("sliding_window", 4096) if is_windowed else None
        step = config.integer("decoder_sparse_step", 1)
        plain = set(config.integers("mlp_only_layers"))
        sparse = frozenset(
            layer
            for layer in range(num_layers)
            if layer not in plain and experts.num_experts > 0 and (layer + 1) % step == 0
        )
        # Unlike the dense model's, the window is every layer's.
        return replace(
            dense,
            sliding_windows=(window,) * num_layers,
            experts=experts,
            sparse_layers=sparse,
        )
