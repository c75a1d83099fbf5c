"""The shared decoder without a language model's head: embedding models, sequence classifiers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from jackfield.compute.layers.model_config import ModelConfig
from jackfield.compute.weights import LoadableLayer, load_weights
from jackfield.contracts.model import BuildContext
from jackfield_models.decoder import HeadlessDecoder
from jackfield_models.llama import LlamaForCausalLM
from jackfield_models.mistral import MistralForCausalLM
from jackfield_models.qwen2 import Qwen2ForCausalLM
from jackfield_models.qwen3 import Qwen3ForCausalLM

_DEFAULT_LABELS = 2
"""transformers' number where ``config.json`` does not say."""


class DecoderModel(HeadlessDecoder):
    """Implements ``Model`` for what hidden states are all that is wanted of.

    The checkpoint may be one of the bare decoder, whose names lack ``model.``, or that of a
    language model, whose head is left out.
    """

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        load_weights(self, _with_prefix(weights), ignorable=(*self._ignorable, r"^lm_head\."))

    def compute_logits(self, hidden: Tensor) -> Tensor:
        """There is no head: the hidden states themselves."""
        return hidden


def _with_prefix(weights: Iterable[tuple[str, Tensor]]) -> Iterable[tuple[str, Tensor]]:
    for name, tensor in weights:
        is_whole = name.startswith(("model.", "lm_head."))
        yield (name if is_whole else f"model.{name}"), tensor


class ScoreHead(LoadableLayer):
    """Scores of labels, [N, hidden] -> [N, labels]."""

    def __init__(self, num_labels: int, hidden: int, context: BuildContext) -> None:
        super().__init__()
        empty = torch.empty(num_labels, hidden, dtype=context.dtype, device=context.device)
        self.weight = nn.Parameter(empty, requires_grad=False)

    def forward(self, hidden: Tensor) -> Tensor:
        return nn.functional.linear(hidden, self.weight)


class DecoderForSequenceClassification(HeadlessDecoder):
    """Implements ``Model`` with scores of labels in the place of logits, and of a head, if the
    checkpoint has kept its language model's."""

    _ignorable = (*HeadlessDecoder._ignorable, r"^lm_head\.")

    def __init__(self, config: Mapping[str, object], context: BuildContext) -> None:
        super().__init__(config, context)
        labels = config.get("id2label")
        if isinstance(labels, Mapping) and labels:
            num_labels = len(labels)
        else:
            num_labels = ModelConfig(config).integer("num_labels", _DEFAULT_LABELS)
        self.score = ScoreHead(num_labels, self.described.hidden, context)

    def compute_logits(self, hidden: Tensor) -> Tensor:
        scores: Tensor = self.score(hidden)
        return scores


class LlamaModel(DecoderModel):
    """Llama's decoder."""

    describe = staticmethod(LlamaForCausalLM.describe)


class MistralModel(DecoderModel):
    """Mistral's decoder."""

    describe = staticmethod(MistralForCausalLM.describe)


class Qwen2Model(DecoderModel):
    """Qwen 2's decoder."""

    describe = staticmethod(Qwen2ForCausalLM.describe)


class Qwen3Model(DecoderModel):
    """Qwen 3's decoder."""

    describe = staticmethod(Qwen3ForCausalLM.describe)


class LlamaForSequenceClassification(DecoderForSequenceClassification):
    """Llama's decoder with a score head."""

    describe = staticmethod(LlamaForCausalLM.describe)


class MistralForSequenceClassification(DecoderForSequenceClassification):
    """Mistral's decoder with a score head."""

    describe = staticmethod(MistralForCausalLM.describe)


class Qwen2ForSequenceClassification(DecoderForSequenceClassification):
    """Qwen 2's decoder with a score head."""

    describe = staticmethod(Qwen2ForCausalLM.describe)


class Qwen3ForSequenceClassification(DecoderForSequenceClassification):
    """Qwen 3's decoder with a score head."""

    describe = staticmethod(Qwen3ForCausalLM.describe)
