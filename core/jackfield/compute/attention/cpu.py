"""Attention over pages on the CPU: kernels in C, or matrix products of gathered pages.

Sequences with one query are attended where their pages lie (``native/attend_decodes.c``), and so
are prompts where this CPU does not multiply what is stored (``native/attend_prompts.c``). Other
prompts, and all sequences where there is no compiler, are multiplied: a *stream* is one KV head of
one sequence. Its pages are gathered into one contiguous run, its query heads are packed as rows,
and the streams of sequences of like lengths are multiplied together, so that a step costs a few
large torch calls a layer. Keys and values of a prompt without a cached prefix are taken from the
step itself instead of from the pages. The products, and their scores, are of the model's dtype if
this CPU multiplies it (they accumulate in float32), and of float32 if not; softmax computes in
float32.

Pages of 8 bits are read by everyone, a prompt's own step too: what rounding made of its keys is
only there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor

from jackfield.compute import ops
from jackfield.compute.attention.cpu_plan import Group, Plan, QueryChunk, host_lens
from jackfield.compute.eight_bit_kv import KV_DTYPES, as_bytes, is_eight_bit, measure, rounded
from jackfield.compute.layers.unquantized import has_products
from jackfield.compute.native import (
    Turn,
    attends,
    attends_prompts,
    kernels_for,
    prompt_kernels_for,
)
from jackfield.contracts.attention import AttentionBatch, AttentionSpec, KVLayer


class CpuAttention:
    """Implements ``AttentionBackend``; a layer's pages are [K, num_blocks, block_size, D]."""

    name: ClassVar[str] = "cpu"
    api_version: ClassVar[int] = 1
    supports_graphs: ClassVar[bool] = False
    supports_sinks: ClassVar[bool] = True
    kv_dtypes: ClassVar[tuple[torch.dtype, ...]] = KV_DTYPES

    def __init__(self, device: torch.device, dtype: torch.dtype, block_size: int) -> None:
        self._dtype = dtype
        # What prompts are multiplied in without a kernel of their own.
        self._wide = dtype if has_products(dtype) else torch.float32
        self._prompts = None if has_products(dtype) else prompt_kernels_for(dtype)
        self._block_size = block_size
        self._kernels = kernels_for(dtype)
        self._batch: AttentionBatch | None = None
        self._plans: dict[tuple[object, ...], Plan] = {}
        self._begun: Tensor | None = None
        self._buffers: dict[str, Tensor] = {}

    def records(self, specs: Sequence[AttentionSpec]) -> bool:
        """Whether decodes of such layers are kernels, and nothing that reads lengths on the host:
        what ``RecordedDecodes`` asks."""
        return self._kernels is not None and all(map(attends, specs))

    def kv_shape(self, num_blocks: int, num_kv_heads: int, head_dim: int) -> tuple[int, ...]:
        """[K, num_blocks, block_size, D]: a stream's part of a block is contiguous."""
        return (num_kv_heads, num_blocks, self._block_size, head_dim)

    def rotate_and_write(
        self,
        qkv: Tensor,
        positions: Tensor,
        cos_sin: Tensor,
        q_weight: Tensor | None,
        k_weight: Tensor | None,
        eps: float,
        kv: KVLayer,
        spec: AttentionSpec,
        batch: AttentionBatch,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """``ops.qk_norm_rope`` and ``write``, in one pass where there are kernels."""
        if self._kernels is not None and attends(spec) and not kv.measures:
            turn = Turn(qkv, positions, cos_sin, q_weight, k_weight, eps)
            return self._kernels.rotate_and_write(turn, kv, spec, batch.slots)
        heads = (spec.num_heads, spec.num_kv_heads, spec.head_dim)
        q, k, v = ops.qk_norm_rope(qkv, positions, cos_sin, q_weight, k_weight, eps, *heads)
        self.write(k, v, kv, batch)
        return q, k, v

    def write(self, k: Tensor, v: Tensor, kv: KVLayer, batch: AttentionBatch) -> None:
        """Stores k and v, [T, K, D] each, at ``batch.slots``."""
        self._renew(batch)
        if kv.measures:
            measure(kv, k, v)
        if kv.scales is not None:
            k = rounded(k, kv.scales[0], kv.key.dtype)
            v = rounded(v, kv.scales[1], kv.value.dtype)
        for pages, new in ((as_bytes(kv.key), as_bytes(k)), (as_bytes(kv.value), as_bytes(v))):
            if self._begun is not None:
                # A block is multiplied whole, its unwritten rest by zero: no infinity or NaN of
                # whoever had the block before may be there.
                pages.index_fill_(1, self._begun, 0)
            tokens = pages.view(pages.shape[0], -1, pages.shape[-1])
            tokens.index_copy_(1, batch.slots, new.transpose(0, 1))

    def attend(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        kv: KVLayer,
        spec: AttentionSpec,
        batch: AttentionBatch,
        sinks: Tensor | None = None,
    ) -> Tensor:
        """[T, H, D] -> [T, H, D]: causal attention over all that is written for each row."""
        compiled = 0
        out = torch.empty_like(q)
        if self._kernels is not None and attends(spec):
            compiled = batch.num_decodes
            self._kernels.attend_decodes(q, kv, spec, batch, sinks, out)
            if compiled == batch.num_seqs:
                return out
        if self._prompts is not None and attends_prompts(spec):
            if _has_padding(batch, len(q)):
                out[compiled:].zero_()
            self._prompts.attend(q, kv, spec, batch, sinks, out)
            return out
        plan = self._plan(spec, batch, compiled, is_eight_bit(kv.key.dtype))
        if plan.has_padding:
            out[compiled:].zero_()
        value_scale = 1.0
        if kv.scales is not None:
            key_scale, value_scale = kv.scales.tolist()
            spec = replace(spec, scale=spec.scale * key_scale)
        for group in plan.groups:
            keys, values = self._gather(group, k, v, kv)
            packed = group.pack(q).to(self._wide)
            self._attend_group(group, packed, keys, values, spec, value_scale, sinks, out)
        return out

    def _renew(self, batch: AttentionBatch) -> None:
        # What depends on the step alone is made once and used by all layers.
        if self._batch is batch:
            return
        self._batch = batch
        self._plans.clear()
        self._begun = _begun_blocks(batch.slots, self._block_size)

    def _plan(
        self, spec: AttentionSpec, batch: AttentionBatch, num_done: int, pages_only: bool
    ) -> Plan:
        self._renew(batch)
        heads = (spec.num_heads, spec.num_kv_heads, spec.head_dim)
        key = (*heads, spec.sliding_window, pages_only)
        plan = self._plans.get(key)
        if plan is None:
            plan = self._plans[key] = Plan.of(
                batch, spec, self._block_size, self._wide, num_done, pages_only=pages_only
            )
        return plan

    def _gather(self, group: Group, k: Tensor, v: Tensor, kv: KVLayer) -> tuple[Tensor, Tensor]:
        # -> keys and values of the group's streams, [N * K, L, D] each, contiguous.
        if group.blocks is None:
            return group.pack_kv(k).to(self._wide), group.pack_kv(v).to(self._wide)
        return self._read("key", kv.key, group), self._read("value", kv.value, group)

    def _read(self, name: str, pages: Tensor, group: Group) -> Tensor:
        assert group.blocks is not None
        num_kv_heads, num_blocks, block_size, head_dim = pages.shape
        index = group.streams(num_blocks)
        width = block_size * head_dim
        rows = as_bytes(pages).view(num_kv_heads * num_blocks, width)
        buffer = self._buffer(f"{name} {rows.dtype}", (len(index), width), rows)
        torch.index_select(rows, 0, index, out=buffer)
        if pages.dtype is not self._wide:
            wide = self._buffer(name, buffer.shape, buffer, self._wide)
            buffer = wide.copy_(buffer.view(pages.dtype))
        return buffer.view(group.num_seqs * num_kv_heads, -1, head_dim)

    def _attend_group(
        self,
        group: Group,
        packed: Tensor,
        keys: Tensor,
        values: Tensor,
        spec: AttentionSpec,
        value_scale: float,
        sinks: Tensor | None,
        out: Tensor,
    ) -> None:
        # packed [N * K, rows, D], rows = queries * (H / K); the result replaces it.
        size = spec.num_heads // spec.num_kv_heads
        attended = packed.new_empty(packed.shape)
        for chunk in group.chunks:
            rows = slice(chunk.first_query * size, chunk.end_query * size)
            here = keys[:, chunk.first_key : chunk.end_key]
            if not here.is_contiguous():
                # A copy here is much cheaper than the one inside bmm.
                here = here.contiguous()
            scores = self._scores(packed[:, rows], here, chunk, group.num_seqs, spec)
            shares = None if sinks is None else _shares_beside_sinks(scores, sinks, spec)
            torch.softmax(scores, -1, out=scores)
            if shares is not None:
                scores.mul_(shares)
            visible = values[:, chunk.first_key : chunk.end_key]
            to = attended[:, rows]
            torch.baddbmm(to, scores, visible, beta=0, alpha=value_scale, out=to)
        group.unpack(attended, out)

    def _scores(
        self, q: Tensor, keys: Tensor, chunk: QueryChunk, num_seqs: int, spec: AttentionSpec
    ) -> Tensor:
        # [N * K, rows, L], masked.
        scores = self._buffer("scores", (q.shape[0], q.shape[1], keys.shape[1]), q)
        torch.baddbmm(scores, q, keys.transpose(1, 2), beta=0, alpha=spec.scale, out=scores)
        if spec.soft_cap is not None:
            scores.div_(spec.soft_cap).tanh_().mul_(spec.soft_cap)
        if chunk.mask is not None:
            shape = (num_seqs, spec.num_kv_heads, -1, spec.num_heads // spec.num_kv_heads)
            by_query = scores.view(*shape, scores.shape[-1])
            by_query[..., chunk.mask_from :].add_(chunk.mask)
        return scores

    def _buffer(
        self, name: str, shape: tuple[int, ...], like: Tensor, dtype: torch.dtype | None = None
    ) -> Tensor:
        # Fresh memory for every layer would cost a page fault every 4 KiB.
        size = 1
        for n in shape:
            size *= n
        held = self._buffers.get(name)
        if held is None or held.numel() < size:
            held = self._buffers[name] = torch.empty(size, dtype=dtype or like.dtype)
        return held[:size].view(shape)


def _has_padding(batch: AttentionBatch, num_tokens: int) -> bool:
    # Whether some of the tokens belong to no sequence.
    return sum(queries for queries, length in host_lens(batch) if length) < num_tokens


def _shares_beside_sinks(scores: Tensor, sinks: Tensor, spec: AttentionSpec) -> Tensor:
    # scores [N * K, queries * H / K, L] -> [N * K, queries * H / K, 1]: what the keys have of the
    # sum of all exponentials, the sink's among them.
    group = spec.num_heads // spec.num_kv_heads
    sums = scores.float().logsumexp(-1).view(-1, spec.num_kv_heads, scores.shape[1] // group, group)
    return torch.sigmoid(sums - sinks.view(-1, 1, group)).view(*scores.shape[:2], 1)


def _begun_blocks(slots: Tensor, block_size: int) -> Tensor | None:
    # Blocks whose first slot is written in this step and whose last one is not; None if none.
    offsets = slots % block_size
    begun = slots[offsets == 0] // block_size
    if not len(begun):
        return None
    filled = slots[offsets == block_size - 1] // block_size
    begun = begun[~torch.isin(begun, filled)]
    return begun if len(begun) else None
