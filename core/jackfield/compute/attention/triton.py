"""Attention on NVIDIA GPUs: Triton kernels over pages [blocks, KV heads, block size, head dim]."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from jackfield.compute.kernels.decode_attention import DecodeWorkspace, decode_attention
from jackfield.compute.kernels.kv_write import kv_write
from jackfield.compute.kernels.prefill_attention import prefill_attention
from jackfield.compute.kernels.rotary import qk_norm_rope_write
from jackfield.contracts.attention import AttentionBatch, AttentionSpec, KVLayer


class TritonAttention:
    """The backend of CUDA devices, an ``AttentionBackend``.

    The leading decodes of a batch go through the split-KV kernel, the other sequences through
    the variable-length one, which reads the step's own k and v where no prefix is cached.
    """

    name: ClassVar[str] = "triton"
    api_version: ClassVar[int] = 1
    supports_graphs: ClassVar[bool] = True

    def __init__(self, device: torch.device, dtype: torch.dtype, block_size: int) -> None:
        self._block_size = block_size
        self._workspace = DecodeWorkspace(device)

    def kv_shape(self, num_blocks: int, num_kv_heads: int, head_dim: int) -> tuple[int, ...]:
        """[N, K, block_size, D]: one head's tokens of a block are contiguous."""
        return (num_blocks, num_kv_heads, self._block_size, head_dim)

    def write(self, k: Tensor, v: Tensor, kv: KVLayer, batch: AttentionBatch) -> None:
        """One kernel."""
        kv_write(k, v, kv.key, kv.value, batch.slots)

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
        pages = (kv.key, kv.value, batch.slots)
        return qk_norm_rope_write(qkv, positions, cos_sin, q_weight, k_weight, eps, *heads, *pages)

    def attend(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        kv: KVLayer,
        spec: AttentionSpec,
        batch: AttentionBatch,
    ) -> Tensor:
        """One kernel for the decodes, one for the rest."""
        out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
        if batch.num_decodes:
            self._decode(q, kv, spec, batch, out)
        if batch.num_seqs > batch.num_decodes:
            self._prefill(q, k, v, kv, spec, batch, out)
        return out

    def _decode(
        self, q: Tensor, kv: KVLayer, spec: AttentionSpec, batch: AttentionBatch, out: Tensor
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
        out: Tensor,
    ) -> None:
        prefill_attention(
            q,
            k if batch.fresh else kv.key,
            v if batch.fresh else kv.value,
            batch.rows,
            batch.query_starts,
            batch.seq_lens,
            batch.block_table,
            out,
            first_seq=batch.num_decodes,
            num_seqs=batch.num_seqs,
            num_tokens=batch.num_tokens - batch.num_decodes,
            max_query_len=batch.max_query_len,
            num_kv_heads=spec.num_kv_heads,
            paged=not batch.fresh,
            scale=spec.scale,
            sliding_window=spec.sliding_window,
            soft_cap=spec.soft_cap,
        )
