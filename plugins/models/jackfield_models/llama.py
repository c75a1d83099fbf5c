"""Llama 1 to 3.3, and the many checkpoints that share its architecture."""

from __future__ import annotations

from jackfield.compute.layers.model_config import ModelConfig
from jackfield_models.decoder import DecoderConfig, DecoderForCausalLM


class LlamaForCausalLM(DecoderForCausalLM):
    """The decoder, with biases where ``config.json`` asks for them."""

    @staticmethod
    def describe(config: ModelConfig) -> DecoderConfig:
        bias = config.flag("attention_bias", False)
        return DecoderConfig.read(
            config,
            qkv_bias=bias,
            output_bias=bias,
            mlp_bias=config.flag("mlp_bias", False),
        )
