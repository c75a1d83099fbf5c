"""Mistral's own ``params.json``, by the names of Hugging Face.

https://github.com/mistralai/mistral-inference has the names (``src/mistral_inference/args.py``).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from jackfield.checkpoint import read_optional_json
from jackfield.errors import CheckpointError

PARAMS = "params.json"

_NAMES = {
    "dim": "hidden_size",
    "hidden_dim": "intermediate_size",
    "n_layers": "num_hidden_layers",
    "n_heads": "num_attention_heads",
    "n_kv_heads": "num_key_value_heads",
    "head_dim": "head_dim",
    "norm_eps": "rms_norm_eps",
    "vocab_size": "vocab_size",
    "rope_theta": "rope_theta",
    "tied_embeddings": "tie_word_embeddings",
    "activation": "hidden_act",
    "dtype": "torch_dtype",
}
_NEEDED = ("dim", "hidden_dim", "n_layers", "n_heads", "norm_eps", "vocab_size")
_YARN = {
    "factor": "factor",
    "original_max_position_embeddings": "original_max_position_embeddings",
    "beta": "beta_fast",
    "alpha": "beta_slow",
}
# What makes another model of it.
_OTHER = {
    "multimodal": "more than text",
    "quantization": "quantized weights",
    "qk_nope_head_dim": "latent attention",
    "llama_4_scaling": "scaling by position",
}
_CONTEXT = 128_000
"""Of a file that does not say it, as other engines take it."""


class MistralConfigFormat:
    """Implements ``ConfigFormat`` for dense Mistral models and plain mixtures of experts; of those
    that see images it gives the text model."""

    name: ClassVar[str] = "mistral"
    api_version: ClassVar[int] = 1

    def read(self, directory: Path) -> dict[str, object]:
        path = directory / PARAMS
        params = read_optional_json(path)
        if not params:
            raise CheckpointError(f"{directory} has no {PARAMS}; choose another --config-format")
        _refuse_others(path, params)
        missing = [name for name in _NEEDED if name not in params]
        if missing:
            raise CheckpointError(f"{path} lacks {', '.join(missing)}")
        config = {ours: params[theirs] for theirs, ours in _NAMES.items() if theirs in params}
        length = params.get("max_position_embeddings") or params.get("max_seq_len") or _CONTEXT
        return {
            "model_type": "mistral",
            "architectures": ["MistralForCausalLM"],
            "hidden_act": "silu",
            "rope_theta": 10_000.0,
            "num_key_value_heads": params["n_heads"],
            "tie_word_embeddings": False,
            "max_position_embeddings": length,
            **config,
            **_window(path, params),
            **_yarn(params),
            **_experts(params),
        }


def _refuse_others(path: Path, params: Mapping[str, object]) -> None:
    for key, what in _OTHER.items():
        if params.get(key):
            raise CheckpointError(
                f"{path} has {key!r} ({what}), which --config-format mistral does not know; take "
                "the Hugging Face files of the model"
            )
    if params.get("model_type", "transformer") != "transformer":
        raise CheckpointError(
            f"{path} describes a model of type {params['model_type']!r}, which --config-format "
            "mistral does not know; take the Hugging Face files of the model"
        )


def _window(path: Path, params: Mapping[str, object]) -> dict[str, object]:
    """One number for all layers, or a repeating list with None for layers without a window."""
    said = params.get("sliding_window")
    if not isinstance(said, list):
        return {"sliding_window": said or None}
    sizes = {size for size in said if size}
    if len(sizes) > 1:
        raise CheckpointError(f"{path} has sliding windows of several sizes: {said}")
    if not sizes:
        return {"sliding_window": None}
    if None in said:
        raise CheckpointError(f"{path} has layers with and without a sliding window: {said}")
    return {"sliding_window": sizes.pop()}


def _yarn(params: Mapping[str, object]) -> dict[str, object]:
    said = params.get("yarn")
    if not isinstance(said, Mapping):
        return {}
    scaling = {ours: said[theirs] for theirs, ours in _YARN.items() if theirs in said}
    if said.get("apply_scale") is False:
        scaling["attention_factor"] = 1.0
    return {"rope_scaling": {"rope_type": "yarn", **scaling}}


def _experts(params: Mapping[str, object]) -> dict[str, object]:
    moe = params.get("moe")
    if not isinstance(moe, Mapping):
        return {}
    if moe.get("num_shared_experts"):
        raise CheckpointError(
            f"{PARAMS} has shared experts, which --config-format mistral does not know; take the "
            "Hugging Face files of the model"
        )
    return {
        "model_type": "mixtral",
        "architectures": ["MixtralForCausalLM"],
        "num_local_experts": moe.get("num_experts"),
        "num_experts_per_tok": moe.get("num_experts_per_tok"),
    }
