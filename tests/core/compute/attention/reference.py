"""Attention in float64 over plain tensors, and batches of paged sequences to compare it with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from jackfield.compute.eight_bit_kv import as_bytes, is_eight_bit, rounded
from jackfield.contracts.attention import (
    AttentionBackend,
    AttentionBatch,
    AttentionSpec,
    KVLayer,
)

SCALES = (0.37, 0.014)
"""Of keys and values of 8 bits."""


@dataclass(frozen=True)
class Case:
    """A step: the sequences (query tokens, KV tokens), those with one query token first, and what
    the backend is given; (1, 0) is a row that pads a graph."""

    batch: AttentionBatch
    spec: AttentionSpec
    kv: KVLayer
    q: Tensor
    k: Tensor
    v: Tensor
    expected: Tensor

    def error(self, attended: Tensor) -> float:
        """The largest absolute difference to float64; NaN counts as infinite."""
        difference = (attended.double().cpu() - self.expected).abs()
        return float(difference.nan_to_num(nan=float("inf")).max())


def attend(q: Tensor, k: Tensor, v: Tensor, spec: AttentionSpec) -> Tensor:
    """q [Q, H, D], k and v [L, K, D] -> float64 [Q, H, D]; the queries are the last Q positions."""
    num_queries, length = q.shape[0], k.shape[0]
    group = spec.num_heads // spec.num_kv_heads
    keys = k.double().repeat_interleave(group, 1)
    values = v.double().repeat_interleave(group, 1)
    scores = torch.einsum("qhd,khd->hqk", q.double(), keys) * spec.scale
    if spec.soft_cap is not None:
        scores = spec.soft_cap * torch.tanh(scores / spec.soft_cap)
    positions = torch.arange(length - num_queries, length)[:, None]
    visible = torch.arange(length) <= positions
    if spec.sliding_window is not None:
        visible &= torch.arange(length) > positions - spec.sliding_window
    weights = scores.masked_fill(~visible, float("-inf")).softmax(-1)
    return torch.einsum("hqk,khd->qhd", weights, values)


def _block_table(lens: Sequence[tuple[int, int]], block_size: int) -> tuple[Tensor, Tensor, int]:
    # Rows in random order, their blocks scattered; block 0 belongs to nobody.
    num_blocks = 1 + sum(-(-kv // block_size) for _, kv in lens)
    free = (torch.randperm(num_blocks - 1) + 1).tolist()
    rows = torch.randperm(len(lens) + 2)[: len(lens)].int()
    longest = max(kv for _, kv in lens)
    table = torch.zeros((len(lens) + 3, longest // block_size + 2), dtype=torch.int32)
    for row, (_, kv) in zip(rows.tolist(), lens, strict=True):
        for j in range(-(-kv // block_size)):
            table[row, j] = free.pop()
    return rows, table, num_blocks


def make_case(
    backend: AttentionBackend,
    lens: Sequence[tuple[int, int]],
    spec: AttentionSpec,
    block_size: int,
    dtype: torch.dtype,
    device: torch.device,
    kv_dtype: torch.dtype | None = None,
) -> Case:
    """Random q, k and v (v strided as a part of the packed projection); what no sequence wrote in
    the pages, [N, K, block_size, D] in ``kv_dtype``, is NaN. Expected of pages of 8 bits is what
    comes of their numbers times ``SCALES``."""
    kv_dtype = kv_dtype or dtype
    scales = torch.tensor(SCALES) if is_eight_bit(kv_dtype) else None
    rows, table, num_blocks = _block_table(lens, block_size)
    heads, dim = spec.num_kv_heads, spec.head_dim
    total = sum(q for q, _ in lens)
    q = torch.randn(total, spec.num_heads, dim).to(dtype)
    packed = torch.randn(total, 2, heads, dim).to(dtype)
    slots, positions, expected, starts = [], [], [], [0]
    written: list[tuple[Tensor, Tensor, Tensor]] = []
    for row, (num_queries, length) in zip(rows.tolist(), lens, strict=True):
        here = slice(starts[-1], starts[-1] + num_queries)
        starts.append(here.stop)
        prefix = torch.randn(max(length - num_queries, 0), 2, heads, dim).to(dtype)
        at = torch.arange(length)
        places = table[row, at // block_size].long() * block_size + at % block_size
        if length == 0:
            slots.append(torch.zeros(num_queries, dtype=torch.int64))
            positions.append(torch.zeros(num_queries, dtype=torch.int64))
            expected.append(torch.zeros(num_queries, spec.num_heads, dim, dtype=torch.float64))
            continue
        slots.append(places[len(prefix) :])
        positions.append(at[len(prefix) :])
        k, v = torch.cat([prefix, packed[here]]).unbind(1)
        if scales is not None:
            k, v = (rounded(x, scale, kv_dtype) for x, scale in zip((k, v), scales, strict=True))
        written.append((places, k, v))
        seen = (k, v) if scales is None else (k.double() * scales[0], v.double() * scales[1])
        expected.append(attend(q[here], *seen, spec))
    num_decodes = next((i for i, (n, _) in enumerate(lens) if n != 1), len(lens))
    batch = AttentionBatch(
        rows=rows.to(device),
        query_starts=torch.tensor(starts, dtype=torch.int32, device=device),
        seq_lens=torch.tensor([kv for _, kv in lens], dtype=torch.int32, device=device),
        block_table=table.to(device),
        slots=torch.cat(slots).to(device),
        positions=torch.cat(positions).to(device),
        num_seqs=len(lens),
        num_tokens=total,
        num_decodes=num_decodes,
        max_query_len=max(n for n, _ in lens),
        max_seq_len=max(kv for _, kv in lens),
        fresh=all(n == kv for n, kv in lens[num_decodes:]),
        host_lens=tuple(lens),
    )
    shape = backend.kv_shape(num_blocks, heads, dim)
    empty = [torch.full(shape, float("nan")).to(device, kv_dtype) for _ in range(2)]
    case = Case(
        batch,
        spec,
        KVLayer(*empty, scales=None if scales is None else scales.to(device)),
        q.to(device),
        packed[:, 0].contiguous().to(device),
        packed.to(device)[:, 1],
        torch.cat(expected),
    )
    for places, k, v in written:
        for pages, part in ((case.kv.key, k), (case.kv.value, v)):
            at = places.to(device)
            as_bytes(pages)[at // block_size, :, at % block_size] = as_bytes(part).to(device)
    return case
