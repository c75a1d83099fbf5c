"""Encoders of the BERT family, by transformers' own code: tokens see what follows them.

So do those of decoders whose ``config.json`` has ``is_causal`` false. There is no KV cache. A step
brings whole prompts; they are padded to a rectangle, some at a time, so that a long one does not
widen all the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import torch
import transformers
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from jackfield.contracts.attention import AttentionBatch, AttentionSpec, KVLayer
from jackfield.contracts.model import BuildContext
from jackfield.errors import CheckpointError, ConfigError
from jackfield_models.from_transformers import load_model, quiet, read_config


class Encoder(nn.Module):
    """Implements ``Model`` for the hidden states of an encoder.

    ``forward`` waits for the device where that is a GPU: the lengths of the prompts are there.
    """

    api_version: ClassVar[int] = 1
    attention_specs: tuple[AttentionSpec, ...] = ()

    _automatic: ClassVar[Any] = transformers.AutoModel
    # What stands above the states in checkpoints of other tasks, and what old ones store.
    _ignorable: ClassVar[str | None] = (
        r"(^|\.)(pooler|cls|lm_head|classifier|head|decoder|vocab_[a-z_]+)\.|position_ids$"
    )

    def __init__(self, config: Mapping[str, object], context: BuildContext) -> None:
        super().__init__()
        if context.group.size > 1:
            raise ConfigError("an encoder runs on one device; tensor parallel is 1")
        if context.quantization is not None:
            raise ConfigError("encoders run unquantized: leave --quantization out")
        self._context = context
        self._config = read_config(config, context)
        with torch.device("meta"), quiet():
            self.inner = self._automatic.from_config(self._config, dtype=context.dtype)
        # MPNet has no other than the plain one.
        self._attention = str(self.inner.config._attn_implementation)
        self._separator: int | None = None

    def weight_shapes(self) -> Mapping[str, tuple[int, ...]]:
        return {name: tuple(tensor.shape) for name, tensor in self.inner.state_dict().items()}

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """As the contract says."""
        loaded = load_model(
            type(self.inner),
            self._config,
            self._with_pooler(weights),
            self._context,
            self._attention,
            self._ignorable,
        )
        self.inner = loaded.eval().requires_grad_(False).to(self._context.device)
        if self._config.model_type == "bert" and self._config.type_vocab_size > 1:
            self._separator = _separator_of(self._context)

    def _with_pooler(self, weights: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
        """The weights with zeros for those of transformers' own pooler that are not there: it is
        part of the model's class, and unused."""
        unused = {
            name: shape
            for name, shape in self.weight_shapes().items()
            if name.startswith("pooler.")
        }
        for name, tensor in weights:
            for there in [each for each in unused if name.endswith(each)]:
                del unused[there]
            yield name, tensor
        for name, shape in unused.items():
            yield name, torch.zeros(shape, dtype=self._context.dtype)

    def bind_kv(self, layers: tuple[KVLayer, ...]) -> None:
        """There is none."""

    def forward(self, ids: Tensor, positions: Tensor, attention: AttentionBatch) -> Tensor:
        lengths = _lengths(attention)
        prompts = torch.split(ids, lengths)
        states: dict[int, Tensor] = {}
        for group in _groups(lengths, self._context.max_num_batched_tokens):
            computed = self._states([prompts[index] for index in group])
            for index, state in zip(group, computed, strict=True):
                states[index] = state[: lengths[index]]
        return torch.cat([states[index] for index in range(len(lengths))])

    def compute_logits(self, hidden: Tensor) -> Tensor:
        """There is no head: the hidden states themselves."""
        return hidden

    def _states(self, prompts: Sequence[Tensor]) -> Tensor:
        """[B, longest, hidden] of some prompts."""
        # Where there is no padding token, what padding holds is masked all the same.
        ids = pad_sequence(
            list(prompts), batch_first=True, padding_value=self._config.pad_token_id or 0
        )
        mask = pad_sequence([torch.ones_like(prompt) for prompt in prompts], batch_first=True)
        more: dict[str, Tensor] = {}
        if self._separator is not None:
            # BERT tells two texts apart by what follows the first separator.
            is_end = ids == self._separator
            more["token_type_ids"] = ((is_end.cumsum(1) - is_end.long()) > 0).long() * mask
        states: Tensor = self._backbone(input_ids=ids, attention_mask=mask, **more)[0]
        return states

    @property
    def _backbone(self) -> Any:
        return self.inner


class EncoderForSequenceClassification(Encoder):
    """Implements ``Model`` with scores of labels in the place of logits."""

    _automatic = transformers.AutoModelForSequenceClassification
    _ignorable = r"position_ids$"

    def compute_logits(self, hidden: Tensor) -> Tensor:
        """[N, hidden], pooled as the model does it, to [N, labels]."""
        scores: Tensor
        if self._config.model_type == "modernbert":
            scores = self.inner.classifier(self.inner.head(hidden))
        elif self._config.model_type == "bert":
            scores = self.inner.classifier(self.inner.bert.pooler(hidden[:, None]))
        elif self._config.model_type == "distilbert":
            scores = self.inner.classifier(self.inner.pre_classifier(hidden).relu())
        else:
            scores = self.inner.classifier(hidden[:, None])
        return scores

    @property
    def _backbone(self) -> Any:
        return self.inner.base_model


def _lengths(attention: AttentionBatch) -> list[int]:
    """Tokens of each prompt."""
    if attention.host_lens is not None:
        return [query for query, _ in attention.host_lens]
    lengths: list[int] = attention.query_starts.diff().tolist()
    return lengths


def _groups(lengths: Sequence[int], max_tokens: int) -> Iterator[list[int]]:
    """Places of prompts that are computed together: of like lengths, and padded to at most
    ``max_tokens``, or one alone."""
    group: list[int] = []
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        # In rising order the newest is the longest.
        if group and (len(group) + 1) * lengths[index] > max_tokens:
            yield group
            group = []
        group.append(index)
    yield group


def _separator_of(context: BuildContext) -> int | None:
    """None where all tokens have one type: a tokenizer of XLM-R's, as multilingual-e5-small has."""
    with quiet():
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            context.directory, local_files_only=True
        )
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None and not any(backend.encode("a", "a").type_ids):
        return None
    separator = tokenizer.sep_token_id
    if not isinstance(separator, int):
        raise CheckpointError(
            f"{context.directory} has token types, and its tokenizer no separator to tell them by"
        )
    return separator
