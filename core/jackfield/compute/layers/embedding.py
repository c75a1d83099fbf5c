"""The vocabulary: ids to vectors at the bottom, vectors to logits at the top.

Both are shared out by rows of the vocabulary; the last worker's share is padded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jackfield.compute.layers.linear import linear_method
from jackfield.compute.layers.unquantized import UnquantizedLinear
from jackfield.compute.native import kernels_for
from jackfield.compute.weights import LoadableLayer, Slot, keep_or_copy
from jackfield.contracts.model import (
    BuildContext,
    EmbeddingMethod,
    LinearMethod,
    QuantizesEmbeddings,
)


class _Rows:
    """The rows of the vocabulary that one worker has: ``start`` .. ``end``, padded to ``size``."""

    def __init__(self, vocab_size: int, context: BuildContext) -> None:
        self.size = -(-vocab_size // context.group.size)
        self.start = min(context.group.rank * self.size, vocab_size)
        self.end = min(self.start + self.size, vocab_size)
        self.whole = context.group.size == 1

    def place(self, parameter: Tensor) -> Callable[[Tensor], None]:
        """The function that gives ``parameter`` this worker's rows of a whole tensor; the
        padding becomes zero."""
        count = self.end - self.start

        def copy(tensor: Tensor) -> None:
            parameter.data[:count].copy_(tensor[self.start : self.end])
            parameter.data[count:].zero_()

        return partial(keep_or_copy, parameter) if self.whole else copy


class VocabParallelEmbedding(LoadableLayer):
    """Vectors of token ids.

    A worker on the CPU that has the whole vocabulary looks up in the mapped file
    (``keep_or_copy``), of which only the rows in use become resident. A quantization method may
    store the vectors in its own way; ``in_features`` and ``out_features`` are for it.
    """

    weight: Tensor

    def __init__(
        self, vocab_size: int, hidden: int, *, context: BuildContext, prefix: str = ""
    ) -> None:
        super().__init__()
        self.vocab_size = vocab_size
        self.hidden = hidden
        self.group = context.group
        self.dtype = context.dtype
        self.rows = _Rows(vocab_size, context)
        self.in_features, self.out_features = hidden, self.rows.size
        self.method = embedding_method(context, prefix)
        if self.method is not None:
            self.method.create_weights(self, context.dtype, context.device)
            return
        empty = torch.empty(self.rows.size, hidden, dtype=context.dtype, device=context.device)
        self.weight = nn.Parameter(empty, requires_grad=False)

    def slots(self, prefix: str) -> Iterator[tuple[str, Slot]]:
        yield from _row_slots(self, prefix, self.vocab_size, self.rows)

    def finish_loading(self) -> None:
        if self.method is not None:
            self.method.process_weights_after_loading(self)

    def forward(self, ids: Tensor) -> Tensor:
        """int64 [T] -> [T, hidden]."""
        if self.group.size == 1:
            return self._look_up(ids)
        local = ids - self.rows.start
        elsewhere = (local < 0) | (local >= self.rows.end - self.rows.start)
        vectors = self._look_up(local.masked_fill(elsewhere, 0))
        return self.group.all_reduce(vectors.masked_fill_(elsewhere[:, None], 0))

    def _look_up(self, rows: Tensor) -> Tensor:
        if self.method is None:
            kernels = kernels_for(self.weight.dtype) if self.weight.is_cpu else None
            if kernels is not None and self.weight.is_contiguous():
                return kernels.look_up(rows, self.weight)
            return F.embedding(rows, self.weight)
        return self.method.embed(self, rows, self.dtype)


class LMHead(LoadableLayer):
    """Logits of hidden states; with ``tied`` the weight is that embedding's.

    ``in_features`` and ``out_features`` are this worker's; ``dtype`` is the activations'.
    """

    weight: Tensor
    bias: Tensor | None

    def __init__(
        self,
        vocab_size: int,
        hidden: int,
        *,
        context: BuildContext,
        prefix: str,
        bias: bool = False,
        tied: VocabParallelEmbedding | None = None,
    ) -> None:
        super().__init__()
        self.vocab_size = vocab_size
        self.rows = _Rows(vocab_size, context)
        self.in_features, self.out_features = hidden, self.rows.size
        self.group = context.group
        self.dtype = context.dtype
        # In a tuple, so that the embedding does not become a child of the head.
        self._tied = () if tied is None else (tied,)
        self.method: LinearMethod = linear_method(context, prefix)
        if tied is not None and tied.method is not None:
            self.method = tied.method
        elif tied is not None and not getattr(self.method, "is_online", False):
            # A tied weight is an embedding's, and that is plain.
            self.method = UnquantizedLinear()
        if tied is None:
            self.method.create_weights(self, context.dtype, context.device)
        self.bias = None
        if bias:
            empty = torch.empty(self.rows.size, dtype=context.dtype, device=context.device)
            self.bias = nn.Parameter(empty, requires_grad=False)

    def slots(self, prefix: str) -> Iterator[tuple[str, Slot]]:
        yield from _row_slots(self, prefix, self.vocab_size, self.rows)

    @property
    def follows(self) -> VocabParallelEmbedding | None:
        return self._tied[0] if self._tied else None

    def finish_loading(self) -> None:
        for embedding in self._tied:
            if embedding.method is not None:
                embedding.method.tie(self, embedding)
                return
            self.weight = embedding.weight
        self.method.process_weights_after_loading(self)

    def forward(self, hidden: Tensor) -> Tensor:
        """[N, hidden] -> [N, vocabulary]."""
        logits = self.group.all_gather_last(self.method.apply(self, hidden, self.bias))
        return logits[:, : self.vocab_size] if self.group.size > 1 else logits


def embedding_method(context: BuildContext, prefix: str) -> EmbeddingMethod | None:
    """The quantization's method for the vectors at ``prefix``; None where they are plain."""
    quantization: object = context.quantization
    if isinstance(quantization, QuantizesEmbeddings):
        return quantization.embedding_method(prefix)
    return None


def _row_slots(
    layer: LoadableLayer, prefix: str, vocab_size: int, rows: _Rows
) -> Iterator[tuple[str, Slot]]:
    """Parameters with a row for each token."""
    for name, parameter in layer.named_parameters(recurse=False):
        shape = (vocab_size, *parameter.shape[1:])
        yield f"{prefix}.{name}", Slot(layer, shape, rows.place(parameter))
