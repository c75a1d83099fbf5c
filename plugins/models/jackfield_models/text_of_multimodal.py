"""The text model of a multi-modal checkpoint; its encoders of images and sounds are left out.

Such a checkpoint's ``config.json`` has the text model's in ``text_config`` (older ones among its
own values), and its tensors in ``language_model.`` (Llava, Gemma 3, Mistral 3), in
``model.language_model.`` (Qwen3-VL, Gemma 4), or under their usual names (Qwen2.5-VL).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from copy import copy
from dataclasses import replace
from typing import ClassVar

from torch import Tensor, nn

from jackfield.contracts.attention import AttentionBatch, KVLayer
from jackfield.contracts.model import BuildContext, LinearMethod, Model, SelectsTokens
from jackfield_models.llama import LlamaForCausalLM
from jackfield_models.mistral import MistralForCausalLM
from jackfield_models.qwen2 import Qwen2ForCausalLM
from jackfield_models.qwen3 import Qwen3ForCausalLM
from jackfield_models.transformers import TransformersForCausalLM

_CLASSES: Mapping[object, type[Model]] = {
    "llama": LlamaForCausalLM,
    "mistral": MistralForCausalLM,
    "qwen2": Qwen2ForCausalLM,
    "qwen2_vl": Qwen2ForCausalLM,
    "qwen2_vl_text": Qwen2ForCausalLM,
    "qwen2_5_vl": Qwen2ForCausalLM,
    "qwen2_5_vl_text": Qwen2ForCausalLM,
    "qwen3": Qwen3ForCausalLM,
    "qwen3_vl_text": Qwen3ForCausalLM,
}
_ELSEWHERE = (
    *("vision_tower.", "vision_model.", "visual.", "audio_tower.", "multi_modal_projector."),
    *("embed_vision.", "embed_audio."),
)


class TextOfMultimodal(nn.Module):
    """Implements ``Model`` by the text model, of a class of ours or through transformers."""

    api_version: ClassVar[int] = 1

    def __init__(self, config: Mapping[str, object], context: BuildContext) -> None:
        super().__init__()
        described = text_config(config)
        model_class = _CLASSES.get(described.get("model_type"), TransformersForCausalLM)
        self.text: Model = model_class(described, _with_outer_names(context))
        # Mistral 3's wrapper may tie what its text model does not.
        own = described.get("tie_word_embeddings")
        self._is_tied_outside = config.get("tie_word_embeddings") is True and own is False
        self.attention_specs = self.text.attention_specs
        if isinstance(self.text, SelectsTokens):
            self.forward_selected = self.text.forward_selected

    def weight_shapes(self) -> Mapping[str, tuple[int, ...]]:
        return self.text.weight_shapes()

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        weights = text_weights(weights)
        self.text.load_weights(_with_head(weights) if self._is_tied_outside else weights)

    def bind_kv(self, layers: tuple[KVLayer, ...]) -> None:
        self.text.bind_kv(layers)

    def forward(self, ids: Tensor, positions: Tensor, attention: AttentionBatch) -> Tensor:
        return self.text.forward(ids, positions, attention)

    def compute_logits(self, hidden: Tensor) -> Tensor:
        return self.text.compute_logits(hidden)


def text_config(config: Mapping[str, object]) -> dict[str, object]:
    """The text model's configuration.

    Three positions of a token, by time and place (M-RoPE, arXiv 2409.12191), are one in a text.
    """
    inner = config.get("text_config")
    text = dict(inner if isinstance(inner, Mapping) else config)
    text.pop("architectures", None)
    outside = config.get("tie_word_embeddings")
    if outside is False:
        text["tie_word_embeddings"] = False
    elif outside is True:
        text.setdefault("tie_word_embeddings", True)
    for key in ("rope_scaling", "rope_parameters"):
        rope = text.get(key)
        if isinstance(rope, Mapping) and "mrope_section" in rope:
            kept = {k: v for k, v in rope.items() if not k.startswith("mrope_")}
            text[key] = kept | {"rope_type": "default", "type": "default"}
    return text


def text_weights(weights: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
    """The text model's tensors, under the names that it has by itself."""
    for name, tensor in weights:
        inner = name.removeprefix("model.")
        if inner.startswith(_ELSEWHERE):
            continue
        text = inner.removeprefix("language_model.")
        if text == inner:
            yield name, tensor
        elif text.startswith(("model.", "lm_head.")):
            yield text, tensor
        else:
            yield f"model.{text}", tensor


def _with_outer_names(context: BuildContext) -> BuildContext:
    """A quantization's exceptions may be said by the whole model's names, older or newer."""
    if context.quantization is None:
        return context
    method = copy(context.quantization)
    inner = method.linear_method

    def linear_method(prefix: str) -> LinearMethod | None:
        outer = f"model.language_model.{prefix.removeprefix('model.')}"
        names = (f"language_model.{prefix}", outer, prefix)
        found = [inner(name) for name in names]
        return None if None in found else found[-1]

    method.linear_method = linear_method  # type: ignore[method-assign]
    return replace(context, quantization=method)


def _with_head(weights: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
    """The embedding as the head too, where the checkpoint has none."""
    embedding: Tensor | None = None
    has_head = False
    for name, tensor in weights:
        has_head = has_head or name == "lm_head.weight"
        if name == "model.embed_tokens.weight":
            embedding = tensor
        yield name, tensor
    if embedding is not None and not has_head:
        yield "lm_head.weight", embedding
