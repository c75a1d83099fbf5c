"""Qwen 3, dense."""

from __future__ import annotations

from jackfield.compute.layers.model_config import ModelConfig
from jackfield_models.decoder import DecoderConfig, DecoderForCausalLM, qwen_windows


class Qwen3ForCausalLM(DecoderForCausalLM):
    """The decoder, with each query and key head normalized."""

    @staticmethod
    def describe(config: ModelConfig) -> DecoderConfig:
        bias = config.flag("attention_bias", False)
        return DecoderConfig.read(
            config,
            head_dim=config.integer("head_dim", 128),
            qk_norm=True,
            qkv_bias=bias,
            output_bias=bias,
            sliding_windows=qwen_windows(config),
        )
