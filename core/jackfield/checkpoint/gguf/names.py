"""What a tensor of a GGUF file is called in Hugging Face's checkpoints.

The names are those of ggml's conversion scripts, for decoders of Llama's kind.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from jackfield.checkpoint.gguf.header import Gguf, GgufTensor
from jackfield.errors import CheckpointError

ROPE_FACTORS = ("rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight")
"""What the rotary frequencies are divided by: a part of the configuration, not of the model."""

_WHOLE: Mapping[str, str] = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}
_OF_LAYER: Mapping[str, str] = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "ffn_gate_inp": "mlp.gate",
}
# What other families have beside that, or mean by the same name.
_GEMMA: Mapping[str, str] = {
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
_OF_ARCHITECTURE: Mapping[str, Mapping[str, str]] = {
    "gemma2": _GEMMA,
    "gemma3": _GEMMA,
    "phi3": {"attn_qkv": "self_attn.qkv_proj", "ffn_up": "mlp.gate_up_proj"},
}
# One tensor for all experts of a layer, [experts, outputs, inputs].
_OF_EXPERTS: Mapping[str, str] = {
    "ffn_gate_exps": "gate_proj",
    "ffn_up_exps": "up_proj",
    "ffn_down_exps": "down_proj",
}
_NAME = re.compile(r"(?:blk\.(?P<layer>\d+)\.)?(?P<module>\w+)\.(?P<own>weight|bias)")


def checkpoint_names(name: str, tensor: GgufTensor, architecture: str = "llama") -> tuple[str, ...]:
    """``blk.0.attn_q.weight`` is ``model.layers.0.self_attn.q_proj.weight``. Several for a tensor
    of experts, one for each; none for one that is no part of the model. ``architecture`` is the
    file's."""
    if name in ROPE_FACTORS:
        return ()
    match = _NAME.fullmatch(name)
    if match is not None:
        layer, module, own = match["layer"], match["module"], match["own"]
        if layer is None and module in _WHOLE:
            return (f"{_WHOLE[module]}.{own}",)
        inner = _OF_ARCHITECTURE.get(architecture, {}).get(module, _OF_LAYER.get(module))
        if layer is not None and inner is not None:
            return (f"model.layers.{layer}.{inner}.{own}",)
        if layer is not None and module in _OF_EXPERTS and len(tensor.shape) == 3:
            beside = f"model.layers.{layer}.mlp.experts"
            expert = f"{_OF_EXPERTS[module]}.{own}"
            return tuple(f"{beside}.{index}.{expert}" for index in range(tensor.shape[0]))
    raise CheckpointError(f"{tensor.file}: tensor {name} belongs to no model that is served")


def quantized_layers(gguf: Gguf) -> dict[str, str]:
    """The types of all quantized weights, by the names of their layers."""
    return {
        layer.removesuffix(".weight"): tensor.type.name
        for name, tensor in gguf.tensors.items()
        if tensor.type.is_quantized
        for layer in checkpoint_names(name, tensor, gguf.architecture)
    }
