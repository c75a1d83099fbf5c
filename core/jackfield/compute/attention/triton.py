"""Attention on NVIDIA GPUs: Triton kernels over pages [blocks, KV heads, block size, head dim]."""

from __future__ import annotations

import itertools
from types import ModuleType
from typing import ClassVar

import torch
from torch import Tensor

from jackfield.compute.eight_bit_kv import KV_DTYPES, measure
from jackfield.compute.kernels.decode_attention import DecodeWorkspace, decode_attention
from jackfield.compute.kernels.decode_config import FEW_SEQS, MANY_SEQS
from jackfield.compute.kernels.kv_widen import widen_pages
from jackfield.compute.kernels.kv_write import kv_write
from jackfield.compute.kernels.launch import cdiv, converts_e4m3, runs_hopper_kernels
from jackfield.compute.kernels.prefill_attention import prefill_attention
from jackfield.compute.kernels.rotary import qk_norm_rope, qk_norm_rope_write
from jackfield.contracts.attention import AttentionBatch, AttentionSpec, KVLayer

_LEAST_WIDENED = 256
"""Queries of the longest prompt for which pages of 8 bits are widened: each key serves them all."""


class TritonAttention:
    """The backend of CUDA devices, an ``AttentionBackend``.

    The leading decodes of a batch go through the split-KV kernel, the other sequences through
    the variable-length one: on Hopper one that is made for it, over the pages; elsewhere one that
    reads the step's own k and v where no prefix is cached and the pages have all their bits.
    Hopper's takes no sinks and no pages of 8 bits: those of few long prompts are widened for it.
    """

    name: ClassVar[str] = "triton"
    api_version: ClassVar[int] = 1
    supports_graphs: ClassVar[bool] = True
    supports_sinks: ClassVar[bool] = True
    kv_dtypes: tuple[torch.dtype, ...] = KV_DTYPES
    kv_workspace_bytes: ClassVar[int] = 128 << 20

    def __init__(self, device: torch.device, dtype: torch.dtype, block_size: int) -> None:
        if not converts_e4m3(device):
            self.kv_dtypes = tuple(x for x in KV_DTYPES if x is not torch.float8_e4m3fn)
        self._dtype = dtype
        self._block_size = block_size
        self._workspace = DecodeWorkspace(device)
        self._places: tuple[AttentionBatch, Tensor, Tensor] | None = None
        self._hopper = _hopper_kernels(device)

    def kv_shape(self, num_blocks: int, num_kv_heads: int, head_dim: int) -> tuple[int, ...]:
        """[N, K, block_size, D]: one head's tokens of a block are contiguous."""
        return (num_blocks, num_kv_heads, self._block_size, head_dim)

    def write(self, k: Tensor, v: Tensor, kv: KVLayer, batch: AttentionBatch) -> None:
        """One kernel."""
        if kv.measures:
            measure(kv, k, v)
        kv_write(_packed(k), _packed(v), kv.key, kv.value, batch.slots, kv.scales)

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
        """``ops.qk_norm_rope`` and ``write`` as one kernel."""
        heads = (spec.num_heads, spec.num_kv_heads, spec.head_dim)
        turn = (qkv, positions, cos_sin, q_weight, k_weight, eps, *heads)
        if kv.measures:
            q, k, v = qk_norm_rope(*turn)
            self.write(k, v, kv, batch)
            return q, k, v
        return qk_norm_rope_write(*turn, kv.key, kv.value, batch.slots, kv.scales)

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
        """One kernel for the decodes, one for the rest; in that order, because the first writes
        zeros for decodes that are not there, where the second may have tokens."""
        q = _packed(q)
        out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
        if batch.num_decodes:
            self._decode(q, kv, spec, batch, sinks, out)
        if batch.num_seqs > batch.num_decodes:
            self._prefill(q, k, v, kv, spec, batch, sinks, out)
        return out

    def warm_up(self, kv: KVLayer, spec: AttentionSpec, max_num_seqs: int) -> None:
        """Compiles (or loads from Triton's cache) what batches of up to ``max_num_seqs`` sequences
        will launch, so that no request waits for it; nothing is computed."""
        device, dtype = kv.key.device, self._dtype
        none = torch.zeros(max_num_seqs + 1, dtype=torch.int32, device=device)
        table = torch.zeros((1, 1), dtype=torch.int32, device=device)
        packed_heads = spec.num_heads + 2 * spec.num_kv_heads
        qkv = torch.zeros((max_num_seqs, packed_heads, spec.head_dim), dtype=dtype, device=device)
        q, k, v = torch.split(qkv, [spec.num_heads, spec.num_kv_heads, spec.num_kv_heads], 1)
        sinks = torch.zeros(spec.num_heads, device=device) if spec.sinks else None
        # The numbers of sequences at which a kernel's own bound on them doubles, or from which on
        # they are not few, or many.
        bounds = (1, FEW_SEQS + 1, 17, MANY_SEQS - 1, 65, 257, 513)
        for num_seqs in {min(n, max_num_seqs) for n in (*bounds, max_num_seqs)}:
            for fresh, long, decodes in itertools.product((True, False), repeat=3):
                batch = AttentionBatch(
                    rows=none,
                    query_starts=none,
                    seq_lens=none,
                    block_table=table,
                    slots=none,
                    positions=none,
                    num_seqs=num_seqs,
                    num_tokens=num_seqs,
                    num_decodes=num_seqs if decodes else 0,
                    max_query_len=1 << 20 if long else 1,
                    max_seq_len=1,
                    fresh=fresh,
                )
                self.attend(q.contiguous(), k.contiguous(), v, kv, spec, batch, sinks)

    def _decode(
        self,
        q: Tensor,
        kv: KVLayer,
        spec: AttentionSpec,
        batch: AttentionBatch,
        sinks: Tensor | None,
        out: Tensor,
    ) -> None:
        decode_attention(
            q[: batch.num_decodes],
            kv.key,
            kv.value,
            batch.rows,
            batch.seq_lens,
            batch.block_table,
            out,
            self._workspace,
            scale=spec.scale,
            scales=kv.scales,
            sinks=sinks,
            sliding_window=spec.sliding_window,
            soft_cap=spec.soft_cap,
        )

    def _prefill(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        kv: KVLayer,
        spec: AttentionSpec,
        batch: AttentionBatch,
        sinks: Tensor | None,
        out: Tensor,
    ) -> None:
        hopper = self._hopper if sinks is None else None
        pages: tuple[Tensor, Tensor, Tensor, Tensor] | None = None
        if hopper and hopper.supports(q, kv.key, spec.sliding_window, spec.soft_cap):
            pages = (kv.key, kv.value, batch.rows, batch.block_table)
            if kv.scales is not None:
                pages = self._widened(kv, kv.scales, batch)
        if hopper and pages is not None:
            key, value, rows, table = pages
            hopper.hopper_attention(
                q,
                key,
                value,
                rows,
                batch.query_starts,
                batch.seq_lens,
                table,
                out,
                first_seq=batch.num_decodes,
                num_seqs=batch.num_seqs,
                num_tokens=batch.num_tokens,
                scale=spec.scale,
            )
            return
        # What 8 bits make of the step's own keys is in the pages only.
        paged = not batch.fresh or kv.scales is not None
        prefill_attention(
            q,
            kv.key if paged else _packed(k),
            kv.value if paged else _packed(v),
            batch.rows,
            batch.query_starts,
            batch.seq_lens,
            batch.block_table,
            out,
            first_seq=batch.num_decodes,
            num_seqs=batch.num_seqs,
            num_tokens=batch.num_tokens,
            max_query_len=batch.max_query_len,
            num_kv_heads=spec.num_kv_heads,
            paged=paged,
            scale=spec.scale,
            scales=kv.scales,
            sinks=sinks,
            sliding_window=spec.sliding_window,
            soft_cap=spec.soft_cap,
        )

    def _widened(
        self, kv: KVLayer, scales: Tensor, batch: AttentionBatch
    ) -> tuple[Tensor, Tensor, Tensor, Tensor] | None:
        """Keys, values, rows and block table of the prompts' pages in the model's dtype; None
        where there is no room for them, or they are too short to be worth it."""
        first, num_seqs = batch.num_decodes, batch.num_seqs
        longest = batch.max_query_len if batch.fresh else batch.max_seq_len
        max_blocks = cdiv(longest, self._block_size)
        count = (num_seqs - first) * max_blocks
        size = 2 * count * kv.key[0].numel() * self._dtype.itemsize
        if self._dtype is not torch.bfloat16 or size > self.kv_workspace_bytes:
            return None
        if batch.max_query_len < _LEAST_WIDENED:
            return None
        # Made once a step, for all layers.
        if self._places is None or self._places[0] is not batch:
            device = kv.key.device
            rows = torch.arange(-first, num_seqs - first, dtype=torch.int32, device=device)
            table = torch.arange(count, dtype=torch.int32, device=device).view(-1, max_blocks)
            self._places = (batch, rows, table)
        key, value = widen_pages(
            kv.key,
            kv.value,
            scales,
            batch.rows,
            batch.seq_lens,
            batch.block_table,
            first_seq=first,
            num_seqs=num_seqs,
            max_blocks=max_blocks,
            dtype=self._dtype,
        )
        return key, value, *self._places[1:]


def _hopper_kernels(device: torch.device) -> ModuleType | None:
    if not runs_hopper_kernels(device):
        return None
    from jackfield.compute.kernels import hopper_attention  # needs Gluon

    return hopper_attention


def _packed(x: Tensor) -> Tensor:
    # [T, H, D] whose tokens may lie apart, but each in one piece, as the kernels read them.
    return x if x.stride()[1:] == (x.shape[2], 1) else x.contiguous()
