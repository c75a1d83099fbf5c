"""GGUF files of small checkpoints, written as the format is documented and by nothing of ours.

Layout: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md; names and orders as llama.cpp's
conversion has them.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from tests.gguf_blocks import TYPES, Bytes, Floats, pack
from transformers import AutoModelForCausalLM, PreTrainedModel

ALIGNMENT = 32
STRING, ARRAY, BOOL, UINT32, INT32, FLOAT32 = 8, 9, 7, 4, 5, 6
_WHOLE = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
_OF_LAYER = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "mlp.gate": "ffn_gate_inp",
}
_GEMMA = {
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}
_OF_ARCHITECTURE: Mapping[str, Mapping[str, str]] = {
    "gemma2": _GEMMA,
    "gemma3": _GEMMA,
    "phi3": {"self_attn.qkv_proj": "attn_qkv", "mlp.gate_up_proj": "ffn_up"},
}
STORED_METADATA: Mapping[str, object] = {"general.architecture": "qwen3"}
"""Enough for a file that only weights are read from."""
_ARCHITECTURES = {"qwen3_moe": "qwen3moe", "mistral": "llama", "gemma3_text": "gemma3"}


@dataclass(frozen=True)
class Stored:
    """A tensor as it goes into a file; the shape is rows first."""

    kind: str
    shape: tuple[int, ...]
    data: Bytes


def text(value: str) -> bytes:
    encoded = value.encode()
    return struct.pack("<Q", len(encoded)) + encoded


def value(content: object) -> bytes:
    """A value of the metadata with its kind."""
    if isinstance(content, bool):
        return struct.pack("<I?", BOOL, content)
    if isinstance(content, int):
        return struct.pack("<II", UINT32, content)
    if isinstance(content, float):
        return struct.pack("<If", FLOAT32, content)
    if isinstance(content, str):
        return struct.pack("<I", STRING) + text(content)
    assert isinstance(content, list)
    head = struct.pack("<I", ARRAY)
    if isinstance(content[0], str):
        return head + struct.pack("<IQ", STRING, len(content)) + b"".join(map(text, content))
    kind, form = (INT32, "i") if isinstance(content[0], int) else (FLOAT32, "f")
    return head + struct.pack(f"<IQ{len(content)}{form}", kind, len(content), *content)


def write(path: Path, metadata: Mapping[str, object], tensors: Mapping[str, Stored]) -> None:
    """One file of version 3."""
    parts = [b"GGUF", struct.pack("<IQQ", 3, len(tensors), len(metadata))]
    parts += [text(key) + value(content) for key, content in metadata.items()]
    offset = 0
    for name, stored in tensors.items():
        dims = stored.shape[::-1]
        number = TYPES[stored.kind][0]
        parts.append(text(name) + struct.pack(f"<I{len(dims)}Q", len(dims), *dims))
        parts.append(struct.pack("<IQ", number, offset))
        offset += -(-stored.data.nbytes // ALIGNMENT) * ALIGNMENT
    with path.open("wb") as file:
        file.write(b"".join(parts))
        for stored in tensors.values():
            file.write(bytes(-file.tell() % ALIGNMENT))
            file.write(stored.data.tobytes())
        file.write(bytes(-file.tell() % ALIGNMENT))


def write_split(
    directory: Path, metadata: Mapping[str, object], tensors: Mapping[str, Stored], count: int
) -> Path:
    """The same as several files -> the first."""
    names = list(tensors)
    paths = []
    for number in range(count):
        own = names[number * len(names) // count : (number + 1) * len(names) // count]
        split = {"split.no": number, "split.count": count, "split.tensors.count": len(names)}
        paths.append(directory / f"model-{number + 1:05d}-of-{count:05d}.gguf")
        said = {**metadata, **split} if number == 0 else split
        write(paths[-1], said, {name: tensors[name] for name in own})
    return paths[0]


def gguf_name(name: str, architecture: str = "llama") -> str:
    """``model.layers.0.self_attn.q_proj.weight`` is ``blk.0.attn_q.weight``."""
    module, _, own = name.rpartition(".")
    if module in _WHOLE:
        return f"{_WHOLE[module]}.{own}"
    _, _, layer, inner = module.split(".", 3)
    of_layer = {**_OF_LAYER, **_OF_ARCHITECTURE.get(architecture, {})}
    return f"blk.{layer}.{of_layer[inner]}.{own}"


def pairs_of_heads(rows: Floats, heads: int) -> Floats:
    """Halves of each head as neighbours, as Llama's queries and keys are written."""
    halves = rows.reshape(heads, 2, len(rows) // heads // 2, -1)
    return np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(rows.shape)


def halves_of_heads(rows: Floats, heads: int) -> Floats:
    pairs = rows.reshape(heads, len(rows) // heads // 2, 2, -1)
    return np.ascontiguousarray(pairs.swapaxes(1, 2)).reshape(rows.shape)


Choose = Callable[[str], str]
"""The type of a matrix, by its name in the file."""


def convert(
    source: Path, choose: Choose, other: Mapping[str, object] | None = None
) -> tuple[dict[str, object], dict[str, Stored], dict[str, torch.Tensor]]:
    """(metadata, tensors of the file, the numbers they stand for by Hugging Face's names)."""
    config = json.loads((source / "config.json").read_text())
    weights = {
        name: each.float().numpy() for name, each in load_file(source / "model.safetensors").items()
    }
    if config.get("tie_word_embeddings"):
        weights.pop("lm_head.weight", None)
    turned = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    stored: dict[str, Stored] = {}
    numbers: dict[str, torch.Tensor] = {}
    experts: dict[str, list[tuple[str, Floats]]] = {}
    for name, weight in weights.items():
        if ".experts." in name:
            layer, own = name.split(".")[2], name.split(".")[-2].removesuffix("_proj")
            experts.setdefault(f"blk.{layer}.ffn_{own}_exps.weight", []).append((name, weight))
            continue
        theirs = gguf_name(name, architecture(config))
        heads = turned.get(theirs.split(".")[-2]) if architecture(config) == "llama" else None
        rows = weight if heads is None else pairs_of_heads(weight, heads)
        kind = choose(theirs) if weight.ndim > 1 else "F32"
        if weight.ndim > 1:
            data, found = pack(kind, rows)
        else:
            # Gemma's code adds 1 to its norms.
            more = architecture(config).startswith("gemma")
            data, found = (rows + np.float32(more)).view(np.uint8), rows
        stored[theirs] = Stored(kind, weight.shape, data)
        numbers[name] = torch.from_numpy(found if heads is None else halves_of_heads(found, heads))
    for theirs, several in experts.items():
        several.sort(key=lambda entry: int(entry[0].split(".")[5]))
        packed = [pack(choose(theirs), weight) for _, weight in several]
        numbers |= {n: torch.from_numpy(f) for (n, _), (_, f) in zip(several, packed, strict=True)}
        shape = (len(several), *several[0][1].shape)
        stored[theirs] = Stored(choose(theirs), shape, np.stack([data for data, _ in packed]))
    return {**metadata(config, source), **(other or {})}, stored, numbers


def architecture(config: Mapping[str, Any]) -> str:
    model_type = str(config["model_type"])
    return _ARCHITECTURES.get(model_type, model_type)


def metadata(config: Mapping[str, Any], source: Path) -> dict[str, object]:
    """What the file says of the model and its tokenizer."""
    name = architecture(config)
    heads = config["num_attention_heads"]
    rope = config.get("rope_parameters") or {}
    theta = config.get("rope_theta") or rope.get("full_attention", rope).get("rope_theta")
    own: dict[str, object] = {
        "context_length": config["max_position_embeddings"],
        "embedding_length": config["hidden_size"],
        "block_count": config["num_hidden_layers"],
        "feed_forward_length": config["intermediate_size"],
        "attention.head_count": heads,
        "attention.head_count_kv": config["num_key_value_heads"],
        "attention.key_length": config.get("head_dim") or config["hidden_size"] // heads,
        "attention.value_length": config.get("head_dim") or config["hidden_size"] // heads,
        "attention.layer_norm_rms_epsilon": float(config["rms_norm_eps"]),
        "rope.freq_base": float(theta or 10_000.0),
    }
    if name == "qwen3moe":
        own |= {
            "expert_count": config.get("num_experts") or config["num_local_experts"],
            "expert_used_count": config["num_experts_per_tok"],
            "expert_feed_forward_length": config["moe_intermediate_size"],
        }
    if name != "llama" and config.get("sliding_window"):
        own["attention.sliding_window"] = config["sliding_window"]
    if name == "gemma2":
        own["attn_logit_softcapping"] = float(config["attn_logit_softcapping"])
        own["final_logit_softcapping"] = float(config["final_logit_softcapping"])
    described = {f"{name}.{key}": content for key, content in own.items()}
    return {"general.architecture": name, **described, **byte_level(source)}


def byte_level(source: Path) -> dict[str, object]:
    """The tokenizer of a checkpoint made by ``tests.checkpoints``."""
    content = json.loads((source / "tokenizer.json").read_text())
    numbered: dict[str, int] = content["model"]["vocab"]
    added = {entry["id"]: entry["content"] for entry in content["added_tokens"]}
    tokens = {number: token for token, number in numbered.items()} | added
    size = json.loads((source / "config.json").read_text())["vocab_size"]
    merges = [
        each if isinstance(each, str) else " ".join(each) for each in content["model"]["merges"]
    ]
    settings = json.loads((source / "tokenizer_config.json").read_text())
    texts = {text: number for number, text in added.items()}
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": [tokens.get(i, f"[PAD{i}]") for i in range(size)],
        "tokenizer.ggml.token_type": [
            3 if i in added else 1 if i in tokens else 5 for i in range(size)
        ],
        "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.eos_token_id": texts[settings["eos_token"]],
        "tokenizer.ggml.padding_token_id": texts[settings["pad_token"]],
        "tokenizer.chat_template": (source / "chat_template.jinja").read_text(),
    }


def with_numbers(source: Path, numbers: Mapping[str, torch.Tensor]) -> PreTrainedModel:
    """transformers' model of a checkpoint with these weights."""
    model = AutoModelForCausalLM.from_pretrained(
        source, dtype=torch.float32, attn_implementation="eager"
    )
    missing = model.load_state_dict(_merged(model, numbers), strict=False).missing_keys
    assert set(missing) <= {"lm_head.weight"}, missing
    return model.eval()


def _merged(model: PreTrainedModel, numbers: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """transformers keeps the experts of a layer in two tensors."""
    state = {name: each for name, each in numbers.items() if ".experts." not in name}
    for name, shape in ((n, t.shape) for n, t in model.state_dict().items() if ".experts." in n):
        beside, own = name.rsplit(".", 1)
        parts = {"gate_up_proj": ("gate_proj", "up_proj"), "down_proj": ("down_proj",)}[own]
        state[name] = torch.stack(
            [
                torch.cat([numbers[f"{beside}.{index}.{part}.weight"] for part in parts])
                for index in range(shape[0])
            ]
        )
    return state


def mixed(kinds: Sequence[str]) -> Choose:
    """Types in turn, so that fused layers have parts of several."""
    order: dict[str, str] = {}

    def choose(name: str) -> str:
        return order.setdefault(name, kinds[len(order) % len(kinds)])

    return choose
