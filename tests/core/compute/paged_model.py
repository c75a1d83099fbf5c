"""A small model and an attention backend over pages, written plainly: the runner's stand-ins."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import ClassVar

import torch
from torch import Tensor

from jackfield.contracts.attention import AttentionBatch, AttentionSpec, KVLayer

WIDTH, HIDDEN, HEAD_DIM, LAYERS = 96, 32, 16, 2


class PlainAttention:
    """An ``AttentionBackend`` that reads rows, lengths and blocks one sequence at a time."""

    name: ClassVar[str] = "plain"
    api_version: ClassVar[int] = 1
    supports_graphs: ClassVar[bool] = True

    def __init__(self, device: torch.device, dtype: torch.dtype, block_size: int) -> None:
        self.block_size = block_size

    def kv_shape(self, num_blocks: int, num_kv_heads: int, head_dim: int) -> tuple[int, ...]:
        return (num_blocks, self.block_size, num_kv_heads, head_dim)

    def write(self, k: Tensor, v: Tensor, kv: KVLayer, batch: AttentionBatch) -> None:
        kv.key.flatten(0, 1)[batch.slots] = k
        kv.value.flatten(0, 1)[batch.slots] = v

    def attend(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        kv: KVLayer,
        spec: AttentionSpec,
        batch: AttentionBatch,
    ) -> Tensor:
        out = torch.zeros_like(q)
        for i in range(batch.num_seqs):
            begin, end = int(batch.query_starts[i]), int(batch.query_starts[i + 1])
            length = int(batch.seq_lens[i])
            if length == 0:
                continue
            at = torch.arange(length)
            table = batch.block_table[int(batch.rows[i])]
            slots = table[at // self.block_size].long() * self.block_size + at % self.block_size
            keys, values = kv.key.flatten(0, 1)[slots], kv.value.flatten(0, 1)[slots]
            for t in range(begin, end):
                seen = int(batch.positions[t]) + 1
                scores = torch.einsum("hd,shd->hs", q[t], keys[:seen]) * spec.scale
                out[t] = torch.einsum("hs,shd->hd", scores.softmax(-1), values[:seen])
        return out


class PlainModel:
    """A ``Model`` with position embeddings and two attention layers, float32, fixed weights."""

    api_version: ClassVar[int] = 1

    def __init__(self, backend: PlainAttention) -> None:
        generator = torch.Generator().manual_seed(0)

        def weight(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator) * 0.5

        self.backend = backend
        self.attention_specs = tuple(
            AttentionSpec(layer, HIDDEN // HEAD_DIM, HIDDEN // HEAD_DIM, HEAD_DIM, 0.25)
            for layer in range(LAYERS)
        )
        self.embedding, self.places = weight(WIDTH, HIDDEN), weight(256, HIDDEN)
        self.qkv = [weight(HIDDEN, 3 * HIDDEN) for _ in range(LAYERS)]
        self.head = weight(HIDDEN, WIDTH)
        self.kv: tuple[KVLayer, ...] = ()
        self.num_head_rows = 0
        self.poisoned: int | None = None
        """A token id after which all logits are NaN."""

    def weight_shapes(self) -> Mapping[str, tuple[int, ...]]:
        return {}

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        pass

    def bind_kv(self, layers: tuple[KVLayer, ...]) -> None:
        self.kv = layers

    def forward(self, ids: Tensor, positions: Tensor, attention: AttentionBatch) -> Tensor:
        x = self.embedding[ids] + self.places[positions]
        for spec, qkv, kv in zip(self.attention_specs, self.qkv, self.kv, strict=True):
            q, k, v = (x @ qkv).view(len(x), 3, -1, HEAD_DIM).unbind(1)
            self.backend.write(k, v, kv, attention)
            x = (x + self.backend.attend(q, k, v, kv, spec, attention).flatten(1)).tanh()
        if self.poisoned is not None:
            x = x.masked_fill((ids == self.poisoned).unsqueeze(1), torch.nan)
        return x

    def compute_logits(self, hidden: Tensor) -> Tensor:
        self.num_head_rows += len(hidden)
        return hidden @ self.head

    def logits_of(self, ids: list[int]) -> Tensor:
        """The same network over one whole sequence without pages, float64: [len(ids), WIDTH]."""
        x = self.embedding.double()[ids] + self.places.double()[: len(ids)]
        mask = torch.full((len(ids), len(ids)), -torch.inf, dtype=torch.float64).triu(1)
        for qkv in self.qkv:
            q, k, v = (x @ qkv.double()).view(len(ids), 3, -1, HEAD_DIM).permute(1, 2, 0, 3)
            scores = q @ k.transpose(1, 2) * 0.25 + mask
            x = (x + (scores.softmax(-1) @ v).transpose(0, 1).flatten(1)).tanh()
        return x @ self.head.double()
