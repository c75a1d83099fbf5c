"""The laws of an attention backend. Subclass ``AttentionBackendContract`` in a test file::

    class TestMine(AttentionBackendContract):
        backend = MyAttention

Prompts, chunks behind a cached prefix and decodes, through scattered pages, are compared with
attention in float64. ``device`` is where it runs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

import pytest
import torch
from torch import Tensor

from jackfield.compute.eight_bit_kv import rounded
from jackfield.contracts.attention import (
    AttentionBackend,
    AttentionBatch,
    AttentionSpec,
    KVLayer,
)
from jackfield.testing.plugins import assert_conforms

BLOCK_SIZE = 8
_SCALES = (0.03, 0.6)


def attention_reference(
    q: Tensor, k: Tensor, v: Tensor, spec: AttentionSpec, sinks: Tensor | None = None
) -> Tensor:
    """q [Q, H, D], k and v [L, K, D], sinks [H] -> float64 [Q, H, D]; the queries are the last Q
    positions."""
    num_queries, length = q.shape[0], k.shape[0]
    group = spec.num_heads // spec.num_kv_heads
    keys = k.double().repeat_interleave(group, 1)
    values = v.double().repeat_interleave(group, 1)
    scores = torch.einsum("qhd,khd->hqk", q.double(), keys) * spec.scale
    if spec.soft_cap is not None:
        scores = spec.soft_cap * torch.tanh(scores / spec.soft_cap)
    positions = torch.arange(length - num_queries, length, device=q.device)[:, None]
    places = torch.arange(length, device=q.device)
    visible = places <= positions
    if spec.sliding_window is not None:
        visible &= places > positions - spec.sliding_window
    scores = scores.masked_fill(~visible, float("-inf"))
    if sinks is not None:
        column = sinks.double()[:, None, None].expand(-1, num_queries, 1)
        scores = torch.cat([scores, column], -1)
    weights = scores.softmax(-1)[..., :length]
    return torch.einsum("hqk,khd->qhd", weights, values)


class AttentionBackendContract:
    """Laws that hold for every attention backend."""

    backend: ClassVar[type[AttentionBackend]]
    device: ClassVar[str] = "cpu"
    dtype: ClassVar[torch.dtype] = torch.float32
    tolerance: ClassVar[float] = 2e-5
    heads: ClassVar[Sequence[tuple[int, int, int]]] = ((4, 2, 16), (2, 2, 32))
    """(H, K, D) to try."""

    def run(
        self,
        spec: AttentionSpec,
        steps: Sequence[Sequence[int]],
        kv_dtype: torch.dtype | None = None,
    ) -> None:
        """Each step gives each row so many new tokens; every output is compared. With a
        ``kv_dtype`` of 8 bits it is that of rounded keys and values."""
        device = torch.device(self.device)
        backend = self.backend(device, self.dtype, BLOCK_SIZE)
        num_rows = len(steps[0])
        per_row = -(-max(sum(step[row] for step in steps) for row in range(num_rows)) // BLOCK_SIZE)
        order = torch.randperm(num_rows * per_row, generator=torch.Generator().manual_seed(0))
        table = (1 + order).view(num_rows, per_row).to(device=device, dtype=torch.int32)
        shape = backend.kv_shape(1 + num_rows * per_row, spec.num_kv_heads, spec.head_dim)
        kept = kv_dtype or self.dtype
        scales = None if kv_dtype is None else torch.tensor(_SCALES, device=device)
        kv = KVLayer(*(torch.zeros(shape, device=device).to(kept) for _ in range(2)), scales=scales)
        seen = [self._tokens(0, spec) for _ in range(num_rows)]
        sinks = torch.randn(spec.num_heads, device=device) * 2 if spec.sinks else None
        given = () if sinks is None else (sinks,)
        attend: Callable[..., Tensor] = backend.attend
        for step in steps:
            rows = sorted((r for r in range(num_rows) if step[r]), key=lambda r: step[r] > 1)
            new = [self._tokens(step[row], spec) for row in rows]
            starts = [len(seen[row][1]) for row in rows]
            batch = _batch(rows, [step[row] for row in rows], starts, table, device)
            q, k, v = (torch.cat([part[i] for part in new]) for i in range(3))
            backend.write(k, v, kv, batch)
            attended = attend(q, k, v, kv, spec, batch, *given)
            assert attended.shape == q.shape and attended.dtype == q.dtype
            expected = []
            for row, part in zip(rows, new, strict=True):
                part = part[:1] + [_as_kept(x, kv, i) for i, x in enumerate(part[1:])]
                seen[row] = [torch.cat(pair) for pair in zip(seen[row], part, strict=True)]
                _, keys, values = seen[row]
                expected.append(attention_reference(part[0], keys, values, spec, sinks))
            torch.testing.assert_close(
                attended.double(), torch.cat(expected), rtol=0, atol=self.tolerance
            )

    def _tokens(self, count: int, spec: AttentionSpec) -> list[Tensor]:
        heads = (spec.num_heads, spec.num_kv_heads, spec.num_kv_heads)
        return [
            torch.randn(count, n, spec.head_dim, device=self.device).to(self.dtype) for n in heads
        ]

    def specs(self, **more: object) -> list[AttentionSpec]:
        """One for each of ``heads``."""
        return [
            AttentionSpec(0, h, k, d, d**-0.5, **more)  # type: ignore[arg-type]
            for h, k, d in self.heads
        ]

    def test_the_registry_takes_it(self) -> None:
        assert_conforms("attention_backends", type(self).backend)

    def test_prompts_and_then_decodes(self) -> None:
        for spec in self.specs():
            self.run(spec, [[5, 1, 17], [1, 1, 1], [1, 1, 1]])

    def test_chunks_behind_what_is_in_the_pages(self) -> None:
        for spec in self.specs():
            self.run(spec, [[7, 3, 9], [4, 1, 8], [1, 6, 1]])

    def test_prompts_come_while_others_decode(self) -> None:
        for spec in self.specs():
            self.run(spec, [[9, 0, 0], [1, 12, 0], [1, 1, 3]])

    def test_a_sliding_window(self) -> None:
        for spec in self.specs(sliding_window=4):
            self.run(spec, [[9, 2, 17], [1, 3, 1]])

    def test_a_soft_cap(self) -> None:
        for spec in self.specs(soft_cap=2.0):
            self.run(spec, [[9, 2, 17], [1, 3, 1]])

    def test_sinks(self) -> None:
        if not getattr(type(self).backend, "supports_sinks", False):
            pytest.skip("the backend has no sinks")
        for window in (None, 4):
            for spec in self.specs(sinks=True, sliding_window=window):
                self.run(spec, [[9, 2, 17], [1, 3, 1], [1, 1, 1]])

    def test_keys_and_values_of_8_bits(self) -> None:
        kv_dtypes = getattr(type(self).backend, "kv_dtypes", ())
        if not kv_dtypes:
            pytest.skip("the backend keeps keys and values in the model's dtype")
        for kv_dtype in kv_dtypes:
            for spec in self.specs():
                self.run(spec, [[7, 3, 9], [4, 1, 8], [1, 6, 1]], kv_dtype)

    def test_scales_are_measured_from_what_is_written(self) -> None:
        kv_dtypes = getattr(type(self).backend, "kv_dtypes", ())
        if not kv_dtypes:
            pytest.skip("the backend keeps keys and values in the model's dtype")
        device = torch.device(self.device)
        for kv_dtype in kv_dtypes:
            backend = self.backend(device, self.dtype, BLOCK_SIZE)
            table = torch.ones(1, 1, dtype=torch.int32, device=device)
            batch = _batch([0], [5], [0], table, device)
            pages = [torch.zeros(backend.kv_shape(2, 2, 16), device=device) for _ in "kv"]
            scales = torch.ones(2, device=device)
            kv = KVLayer(*(x.to(kv_dtype) for x in pages), scales=scales, measures=True)
            k, v = (torch.randn(5, 2, 16, device=device).to(self.dtype) * n for n in (1e5, 1e-3))
            backend.write(k, v, kv, batch)
            for kept, scale, x in zip((kv.key, kv.value), scales, (k, v), strict=True):
                largest = kept.float().abs().max() * scale
                torch.testing.assert_close(largest, x.float().abs().max(), rtol=0.15, atol=0)
                assert kept.float().abs().max() <= torch.finfo(kv_dtype).max / 2, "no room is left"

    @pytest.fixture(autouse=True)
    def _same_numbers(self) -> None:
        torch.manual_seed(0)


def _as_kept(x: Tensor, kv: KVLayer, which: int) -> Tensor:
    """Keys (0) or values (1) after their way through the pages."""
    if kv.scales is None:
        return x
    return rounded(x, kv.scales[which], kv.key.dtype).double() * kv.scales[which]


def _batch(
    rows: Sequence[int],
    counts: Sequence[int],
    starts: Sequence[int],
    table: Tensor,
    device: torch.device,
) -> AttentionBatch:
    ends = [start + count for start, count in zip(starts, counts, strict=True)]
    positions = torch.cat([torch.arange(s, e) for s, e in zip(starts, ends, strict=True)])
    token_rows = torch.tensor(rows).repeat_interleave(torch.tensor(counts))
    blocks = table.cpu()[token_rows, positions // BLOCK_SIZE].long()
    num_decodes = sum(count == 1 for count in counts)
    cumulated = [sum(counts[:i]) for i in range(len(counts) + 1)]
    return AttentionBatch(
        rows=torch.tensor(rows, dtype=torch.int32, device=device),
        query_starts=torch.tensor(cumulated, dtype=torch.int32, device=device),
        seq_lens=torch.tensor(ends, dtype=torch.int32, device=device),
        block_table=table,
        slots=(blocks * BLOCK_SIZE + positions % BLOCK_SIZE).to(device),
        positions=positions.to(device),
        num_seqs=len(rows),
        num_tokens=len(positions),
        num_decodes=num_decodes,
        max_query_len=max(counts),
        max_seq_len=max(ends),
        fresh=not any(starts[num_decodes:]),
        host_lens=tuple(zip(counts, ends, strict=True)) if device.type == "cpu" else None,
    )
