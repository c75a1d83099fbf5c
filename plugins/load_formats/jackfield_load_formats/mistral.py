"""Weights as Mistral publishes them: ``consolidated*.safetensors``, by Hugging Face's names."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar

from torch import Tensor

from jackfield.checkpoint import WeightFiles, check_safetensors
from jackfield.contracts.loading import CheckpointFiles
from jackfield.errors import CheckpointError
from jackfield_load_formats.rotary_order import halves_of_heads
from jackfield_load_formats.safetensors import read_files

_LAYER = r"layers\.(\d+)\."
_NAMES = tuple(
    (re.compile(pattern), name)
    for pattern, name in (
        (r"tok_embeddings\.weight", "model.embed_tokens.weight"),
        (r"norm\.weight", "model.norm.weight"),
        (r"output\.weight", "lm_head.weight"),
        (_LAYER + r"attention_norm\.weight", r"model.layers.\1.input_layernorm.weight"),
        (_LAYER + r"ffn_norm\.weight", r"model.layers.\1.post_attention_layernorm.weight"),
        (_LAYER + r"attention\.w([qkvo])\.weight", r"model.layers.\1.self_attn.\2_proj.weight"),
        (_LAYER + r"feed_forward\.w1\.weight", r"model.layers.\1.mlp.gate_proj.weight"),
        (_LAYER + r"feed_forward\.w2\.weight", r"model.layers.\1.mlp.down_proj.weight"),
        (_LAYER + r"feed_forward\.w3\.weight", r"model.layers.\1.mlp.up_proj.weight"),
        (
            _LAYER + r"feed_forward\.gate\.weight",
            r"model.layers.\1.block_sparse_moe.gate.weight",
        ),
        (
            _LAYER + r"feed_forward\.experts\.(\d+)\.(w[123])\.weight",
            r"model.layers.\1.block_sparse_moe.experts.\2.\3.weight",
        ),
    )
)
# The encoder of images and its way into the text model, which is served alone.
_OF_IMAGES = (
    *("vision_encoder.", "vision_language_adapter.", "patch_merger."),
    "pre_mm_projector_norm.",
)
_HEADS = {"q_proj": "num_attention_heads", "k_proj": "num_key_value_heads"}


class MistralLoadFormat:
    """Implements ``LoadFormat``."""

    name: ClassVar[str] = "mistral"
    api_version: ClassVar[int] = 1

    def check(self, files: CheckpointFiles) -> None:
        check_safetensors(_weight_files(files.directory))

    def iter_weights(self, files: CheckpointFiles) -> Iterator[tuple[str, Tensor]]:
        for theirs, tensor in read_files(_weight_files(files.directory), files):
            if theirs.startswith(_OF_IMAGES):
                continue
            name = hugging_face_name(theirs)
            yield name, _turned(name, tensor, files.config)


def hugging_face_name(name: str) -> str:
    """``layers.0.attention.wq.weight`` is ``model.layers.0.self_attn.q_proj.weight``."""
    for pattern, ours in _NAMES:
        match = pattern.fullmatch(name)
        if match:
            return match.expand(ours)
    raise CheckpointError(f"--load-format mistral does not know a tensor called {name}")


def _turned(name: str, tensor: Tensor, config: Mapping[str, object]) -> Tensor:
    """The rows of a query or key projection in Hugging Face's order; others as they are."""
    kind = next((kind for kind in _HEADS if f".{kind}." in name), None)
    if kind is None:
        return tensor
    heads = config.get(_HEADS[kind]) or config.get("num_attention_heads")
    return halves_of_heads(name, tensor, heads)


def _weight_files(directory: Path) -> WeightFiles:
    found = tuple(sorted(directory.glob("consolidated*.safetensors")))
    if not found:
        raise CheckpointError(f"{directory} has no consolidated*.safetensors")
    return WeightFiles(found)
