"""Mistral 7B and its dense successors."""

from __future__ import annotations

from jackfield.compute.layers.model_config import ModelConfig
from jackfield_models.decoder import DecoderConfig, DecoderForCausalLM


class MistralForCausalLM(DecoderForCausalLM):
    """The decoder, with the same sliding window in every layer, or none."""

    @staticmethod
    def describe(config: ModelConfig) -> DecoderConfig:
        return DecoderConfig.read(config, sliding_windows=_windows(config))


def _windows(config: ModelConfig) -> tuple[int | None, ...]:
    # The first releases do not write the key and mean 4,096; null means no window.
    num_layers = config.integer("num_hidden_layers")
    if "sliding_window" in config.values and config.values["sliding_window"] is None:
        return (None,) * num_layers
    return (config.integer("sliding_window", 4096),) * num_layers
