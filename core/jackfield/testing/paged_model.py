"""Running a model over a paged KV cache without an engine: sequences, rows, blocks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set

import torch
from torch import Tensor

from jackfield.compute.attention.cpu import CpuAttention
from jackfield.compute.batch import select
from jackfield.contracts.attention import AttentionBackend, AttentionBatch, KVLayer
from jackfield.contracts.model import Model, SelectsTokens

BLOCK_SIZE = 8
CPU = torch.device("cpu")


class PagedModel:
    """Keeps the KV pages of ``num_rows`` sequences of at most ``max_len`` tokens.

    The blocks of a sequence are scattered over the cache, as an engine's are.
    """

    def __init__(
        self,
        model: Model,
        *,
        num_rows: int = 4,
        max_len: int = 256,
        backend: AttentionBackend | None = None,
    ) -> None:
        self.model = model
        blocks = -(-max_len // BLOCK_SIZE)
        order = torch.randperm(num_rows * blocks, generator=torch.Generator().manual_seed(1))
        self.block_table = (1 + order).view(num_rows, blocks).to(torch.int32)
        self.lengths = [0] * num_rows
        backend = backend or CpuAttention(CPU, torch.float32, BLOCK_SIZE)
        layers = []
        for spec in model.attention_specs:
            shape = backend.kv_shape(1 + num_rows * blocks, spec.num_kv_heads, spec.head_dim)
            layers.append(KVLayer(torch.empty(shape).fill_(torch.nan), torch.empty(shape)))
        model.bind_kv(tuple(layers))

    @torch.inference_mode()
    def step(self, work: Mapping[int, Sequence[int]]) -> dict[int, Tensor]:
        """Computes the given tokens of the given rows; logits [tokens, vocabulary] of each."""
        rows = sorted(work, key=lambda row: len(work[row]) > 1)
        batch = self._batch(rows, work)
        ids = torch.tensor([token for row in rows for token in work[row]])
        logits = self.model.compute_logits(self.model.forward(ids, batch.positions, batch))
        parts = torch.split(logits, [len(work[row]) for row in rows])
        for row in rows:
            self.lengths[row] += len(work[row])
        return dict(zip(rows, parts, strict=True))

    @torch.inference_mode()
    def step_selected(self, work: Mapping[int, Sequence[int]], wanted: Set[int]) -> Tensor:
        """The same where only the last tokens of the rows ``wanted`` are: logits [N, vocabulary],
        in the order of the step."""
        assert isinstance(self.model, SelectsTokens)
        rows = sorted(work, key=lambda row: len(work[row]) > 1)
        batch = self._batch(rows, work)
        ids = torch.tensor([token for row in rows for token in work[row]])
        chosen = [i for i, row in enumerate(rows) if row in wanted]
        index = (batch.query_starts[1:][chosen] - 1).long()
        selection = select(batch, index, batch.rows[chosen], batch.seq_lens[chosen])
        hidden = self.model.forward_selected(ids, batch.positions, batch, selection)
        for row in rows:
            self.lengths[row] += len(work[row])
        return self.model.compute_logits(hidden) if chosen else hidden

    def _batch(self, rows: Sequence[int], work: Mapping[int, Sequence[int]]) -> AttentionBatch:
        counts = [len(work[row]) for row in rows]
        starts = [self.lengths[row] for row in rows]
        ends = [start + count for start, count in zip(starts, counts, strict=True)]
        positions = torch.cat([torch.arange(s, e) for s, e in zip(starts, ends, strict=True)])
        token_rows = torch.tensor(rows).repeat_interleave(torch.tensor(counts))
        blocks = self.block_table[token_rows, positions // BLOCK_SIZE].long()
        num_decodes = sum(count == 1 for count in counts)
        return AttentionBatch(
            rows=torch.tensor(rows, dtype=torch.int32),
            query_starts=torch.tensor([0, *torch.tensor(counts).cumsum(0)], dtype=torch.int32),
            seq_lens=torch.tensor(ends, dtype=torch.int32),
            block_table=self.block_table,
            slots=blocks * BLOCK_SIZE + positions % BLOCK_SIZE,
            positions=positions,
            num_seqs=len(rows),
            num_tokens=len(positions),
            num_decodes=num_decodes,
            max_query_len=max(counts),
            max_seq_len=max(ends),
            fresh=not any(starts[num_decodes:]),
            host_lens=tuple(zip(counts, ends, strict=True)),
        )
