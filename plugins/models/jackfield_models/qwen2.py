"""Qwen 2 and 2.5."""

from __future__ import annotations

from jackfield.compute.layers.model_config import ModelConfig
from jackfield_models.decoder import DecoderConfig, DecoderForCausalLM, qwen_windows


class Qwen2ForCausalLM(DecoderForCausalLM):
    """The decoder, with biases on queries, keys and values."""

    @staticmethod
    def describe(config: ModelConfig) -> DecoderConfig:
        return DecoderConfig.read(config, qkv_bias=True, sliding_windows=qwen_windows(config))
