"""The metadata of a GGUF file, by the names of Hugging Face.

The keys are those of https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, ``{arch}`` being
``general.architecture``. Mistral's models are written as Llama's.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from jackfield.checkpoint import Gguf, gguf_file, read_gguf
from jackfield.errors import CheckpointError

_ARCHITECTURES: Mapping[str, tuple[str, str]] = {
    "llama": ("llama", "LlamaForCausalLM"),
    "qwen2": ("qwen2", "Qwen2ForCausalLM"),
    "qwen3": ("qwen3", "Qwen3ForCausalLM"),
    "qwen3moe": ("qwen3_moe", "Qwen3MoeForCausalLM"),
    "gemma": ("gemma", "GemmaForCausalLM"),
    "gemma2": ("gemma2", "Gemma2ForCausalLM"),
    "gemma3": ("gemma3_text", "Gemma3ForCausalLM"),
    "phi3": ("phi3", "Phi3ForCausalLM"),
}
_EMBEDDING, _HEAD = "token_embd.weight", "output.weight"
_DTYPES: Mapping[str, str] = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_CONTROL = 3
# Tokens that end a turn, whatever the metadata name: what chat models of these families emit.
_END_TOKENS = frozenset(
    (
        *("<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|eom_id|>", "<|end_of_text|>", "<|end|>"),
        "<end_of_turn>",
    )
)
_END_IDS = ("eos", "eot", "eom")
# The 27B models, whose queries are not scaled by the size of their heads: the format does not say.
_SCALED_BY_HIDDEN = (("gemma2", 46), ("gemma3", 62))
# What changes the model and is not known here.
_OTHER = (
    "attention.clamp_kqv",
    "attention.temperature_length",
    "attention.scale",
    "logit_scale",
    "residual_scale",
    "embedding_scale",
    "expert_shared_count",
)


class GgufConfigFormat:
    """Implements ``ConfigFormat`` for dense decoders of Llama's kind, Gemma and Phi 3, and for
    Qwen 3's experts."""

    name: ClassVar[str] = "gguf"
    api_version: ClassVar[int] = 1

    def read(self, directory: Path) -> dict[str, object]:
        file = gguf_file(directory)
        if file is None:
            raise CheckpointError(f"{directory} has no .gguf file; choose another --config-format")
        gguf = read_gguf(file)
        name = gguf.text("general.architecture")
        if name not in _ARCHITECTURES:
            known = ", ".join(_ARCHITECTURES)
            raise CheckpointError(
                f"{file} has the architecture {name!r}; of GGUF files {known} are served"
            )
        model_type, architecture = _ARCHITECTURES[name]
        metadata = _Metadata(gguf, name)
        _refuse_others(metadata)
        return {
            "model_type": model_type,
            "architectures": [architecture],
            **_shape(metadata),
            **_rope(metadata),
            **_experts(metadata),
            **_gemma(metadata),
            **_phi(metadata),
            **_tokens(gguf),
            "torch_dtype": _dtype(gguf),
        }


class _Metadata:
    """The values of one architecture."""

    def __init__(self, gguf: Gguf, architecture: str) -> None:
        self.gguf = gguf
        self.architecture = architecture

    def has(self, key: str) -> bool:
        return f"{self.architecture}.{key}" in self.gguf.metadata

    def integer(self, key: str, default: int | None = None) -> int:
        return self.gguf.integer(f"{self.architecture}.{key}", default)

    def number(self, key: str, default: float | None = None) -> float:
        return self.gguf.number(f"{self.architecture}.{key}", default)

    def text(self, key: str, default: str) -> str:
        return self.gguf.text(f"{self.architecture}.{key}", default)


def _refuse_others(metadata: _Metadata) -> None:
    file = metadata.gguf.path
    for key in _OTHER:
        if metadata.has(key) and metadata.number(key) not in (0.0, 1.0):
            raise CheckpointError(f"{file}: {metadata.architecture}.{key} is not served")
    if metadata.architecture != "qwen3moe" and metadata.integer("expert_count", 0):
        raise CheckpointError(
            f"{file}: a mixture of experts of the architecture {metadata.architecture} is not "
            "served; of GGUF files, those of qwen3moe are"
        )


def _shape(metadata: _Metadata) -> dict[str, object]:
    gguf = metadata.gguf
    hidden, heads = metadata.integer("embedding_length"), metadata.integer("attention.head_count")
    head_dim, num_layers = _head_dim(metadata), metadata.integer("block_count")
    if metadata.integer("attention.value_length", head_dim) != head_dim:
        raise CheckpointError(f"{gguf.path}: heads whose values have another size are not served")
    _check_shape(gguf, _EMBEDDING, (None, hidden))
    last, kv_heads = f"blk.{num_layers - 1}", metadata.integer("attention.head_count_kv", heads)
    if metadata.architecture == "phi3":
        rows = (heads + 2 * kv_heads) * head_dim
        _check_shape(gguf, f"{last}.attn_qkv.weight", (rows, hidden))
    else:
        _check_shape(gguf, f"{last}.attn_q.weight", (heads * head_dim, hidden))
    return {
        "vocab_size": gguf.tensors[_EMBEDDING].shape[0],
        "hidden_size": hidden,
        "intermediate_size": metadata.integer("feed_forward_length"),
        "num_hidden_layers": num_layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": head_dim,
        "rms_norm_eps": metadata.number("attention.layer_norm_rms_epsilon"),
        "hidden_act": "silu",
        "max_position_embeddings": metadata.integer("context_length"),
        "tie_word_embeddings": _HEAD not in gguf.tensors,
        "attention_bias": "blk.0.attn_q.bias" in gguf.tensors,
        "mlp_bias": "blk.0.ffn_up.bias" in gguf.tensors,
        "use_sliding_window": False,
    }


def _head_dim(metadata: _Metadata) -> int:
    heads = metadata.integer("attention.head_count")
    if heads < 1:
        raise CheckpointError(f"{metadata.gguf.path} is damaged: it has {heads} attention heads")
    return metadata.integer("attention.key_length", metadata.integer("embedding_length") // heads)


def _check_shape(gguf: Gguf, name: str, wanted: tuple[int | None, int]) -> None:
    """Sizes that no tensor has would be found after room was made for them."""
    tensor = gguf.tensors.get(name)
    if tensor is None:
        raise CheckpointError(f"{gguf.path} has no tensor {name}")
    pairs = zip(tensor.shape, wanted, strict=False)
    if len(tensor.shape) != 2 or any(size not in (None, own) for own, size in pairs):
        raise CheckpointError(
            f"{gguf.path}: tensor {name} has the shape {list(tensor.shape)}, which is not that of "
            "the metadata"
        )


def _rope(metadata: _Metadata) -> dict[str, object]:
    """The rotary embedding; factors of their own for each frequency are a tensor of the file."""
    theta = metadata.number("rope.freq_base", 10_000.0)
    head_dim = _head_dim(metadata)
    rotated = metadata.integer("rope.dimension_count", head_dim)
    config: dict[str, object] = {"rope_theta": theta}
    if rotated != head_dim:
        config["partial_rotary_factor"] = rotated / head_dim
    factors = metadata.gguf.plain_tensor("rope_freqs.weight")
    if factors is not None:
        # Not "factor": the context length that the file says is the stretched one.
        config["rope_scaling"] = {"rope_type": "factors", "factors": list(factors)}
        return config
    kind = metadata.text("rope.scaling.type", "none")
    if kind == "none":
        return config
    if kind not in ("linear", "yarn"):
        raise CheckpointError(f"{metadata.gguf.path}: RoPE scaling {kind!r} is not served")
    scaling: dict[str, object] = {
        "rope_type": kind,
        "factor": metadata.number("rope.scaling.factor"),
    }
    if kind == "yarn":
        scaling["original_max_position_embeddings"] = metadata.integer(
            "rope.scaling.original_context_length"
        )
        for theirs, ours in (("yarn_beta_fast", "beta_fast"), ("yarn_beta_slow", "beta_slow")):
            if metadata.has(f"rope.scaling.{theirs}"):
                scaling[ours] = metadata.number(f"rope.scaling.{theirs}")
    config["rope_scaling"] = scaling
    return config


def _experts(metadata: _Metadata) -> dict[str, object]:
    if metadata.architecture != "qwen3moe":
        return {}
    return {
        "num_experts": metadata.integer("expert_count"),
        "num_experts_per_tok": metadata.integer("expert_used_count"),
        "moe_intermediate_size": metadata.integer("expert_feed_forward_length"),
        # The format's readers always do, for this architecture.
        "norm_topk_prob": True,
    }


def _gemma(metadata: _Metadata) -> dict[str, object]:
    if not metadata.architecture.startswith("gemma"):
        return {}
    head_dim, num_layers = _head_dim(metadata), metadata.integer("block_count")
    scaled_by = head_dim
    if (metadata.architecture, num_layers) in _SCALED_BY_HIDDEN:
        scaled_by = metadata.integer("embedding_length") // metadata.integer("attention.head_count")
    config: dict[str, object] = {
        "hidden_act": "gelu_pytorch_tanh",
        "hidden_activation": "gelu_pytorch_tanh",
        "query_pre_attn_scalar": scaled_by,
    }
    if metadata.architecture != "gemma":
        config["sliding_window"] = metadata.integer("attention.sliding_window", 4096)
    if metadata.architecture == "gemma2":
        config["attn_logit_softcapping"] = metadata.number("attn_logit_softcapping", 50.0)
        config["final_logit_softcapping"] = metadata.number("final_logit_softcapping", 30.0)
    return config


def _phi(metadata: _Metadata) -> dict[str, object]:
    if metadata.architecture != "phi3":
        return {}
    length = metadata.integer("context_length")
    window = metadata.integer("attention.sliding_window", 0)
    config: dict[str, object] = {
        # llama.cpp writes the whole context's where there is none.
        "sliding_window": window if 0 < window < length else None,
        "original_max_position_embeddings": length,
        "pad_token_id": None,
    }
    long, short = (
        metadata.gguf.plain_tensor(f"rope_factors_{name}.weight") for name in ("long", "short")
    )
    if long is None or short is None:
        return config
    trained = metadata.integer("rope.scaling.original_context_length")
    scaling: dict[str, object] = {
        "rope_type": "longrope",
        "long_factor": list(long),
        "short_factor": list(short),
    }
    if metadata.has("rope.scaling.attn_factor"):
        scaling["attention_factor"] = metadata.number("rope.scaling.attn_factor")
    return config | {"rope_scaling": scaling, "original_max_position_embeddings": trained}


def _tokens(gguf: Gguf) -> dict[str, object]:
    """Ids of the tokens that begin and end a text."""
    ids: dict[str, object] = {}
    for name, key in (("bos_token_id", "bos"), ("pad_token_id", "padding")):
        if f"tokenizer.ggml.{key}_token_id" in gguf.metadata:
            ids[name] = gguf.integer(f"tokenizer.ggml.{key}_token_id")
    keys = (f"tokenizer.ggml.{name}_token_id" for name in _END_IDS)
    ends = [gguf.integer(key) for key in keys if key in gguf.metadata]
    kinds = gguf.numbers("tokenizer.ggml.token_type")
    tokens = gguf.texts("tokenizer.ggml.tokens") if kinds else []
    ends += [
        number
        for number, (token, kind) in enumerate(zip(tokens, kinds, strict=False))
        if kind == _CONTROL and token in _END_TOKENS
    ]
    if ends:
        ids["eos_token_id"] = list(dict.fromkeys(ends))
    return ids


def _dtype(gguf: Gguf) -> str:
    """That of the largest matrix; beside codes, what these models were trained in."""
    matrices = [tensor for tensor in gguf.tensors.values() if len(tensor.shape) > 1]
    if any(tensor.type.is_quantized for tensor in matrices):
        return "bfloat16"
    largest = max(matrices, key=lambda tensor: tensor.end - tensor.begin)
    return _DTYPES[largest.type.name]
