"""Attention over paged KV. Imports torch.

Kind ``jackfield.attention_backends`` (``--attention-backend``).

Sizes: T tokens of the step, S sequences in it, H query heads, K KV heads (H a multiple of K),
D head dimension, R rows of the batch state (the last one is a dummy for padding), M blocks a
block table can hold. Query head h belongs to KV head h // (H // K).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Protocol

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class AttentionSpec:
    """What is fixed for one layer. ``scale`` multiplies q.k; ``sliding_window`` w lets position
    p see positions p - w + 1 .. p; ``soft_cap`` c maps scores s to c * tanh(s / c). ``sinks``: each
    query head has a score of its own beside those of the keys, whose value is zero."""

    layer: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    scale: float
    sliding_window: int | None = None
    soft_cap: float | None = None
    sinks: bool = False


@dataclass(frozen=True, slots=True)
class KVLayer:
    """One layer's KV cache; the shape is the backend's own (``kv_shape``).

    In the model's dtype, or in one of the backend's ``kv_dtypes``: then there are ``scales``,
    float32 [2] on the device, which a number of ``key`` and one of ``value`` is multiplied by.
    They may change between steps only. Where the layer ``measures``, whoever writes to it sets
    them first, from what is written (``compute.eight_bit_kv.measure``).
    """

    key: Tensor
    value: Tensor
    scales: Tensor | None = field(default=None, kw_only=True)
    measures: bool = field(default=False, kw_only=True)


@dataclass(frozen=True, slots=True)
class AttentionBatch:
    """The step as attention sees it; made once a step, shared by all layers.

    Device tensors: ``rows`` int32 [S]; ``query_starts`` int32 [S + 1], first token of each
    sequence in the flat batch; ``seq_lens`` int32 [S], tokens of KV after this step (0 for
    padding); ``block_table`` int32 [R, M] of all rows, indexed by ``rows``; ``slots`` int64
    [T], block id * block_size + offset where each token's KV goes; ``positions`` int64 [T].
    Host values: bounds that size a launch; exact lists are given where the device is the host
    (``host_lens``: query and KV lengths, else None). ``num_decodes`` leading sequences have one
    query token each (in a captured step the last of them may have KV length 0 and no token: those
    of other sequences follow at once); ``fresh`` is true if no sequence but the decodes has KV
    computed before.
    """

    rows: Tensor
    query_starts: Tensor
    seq_lens: Tensor
    block_table: Tensor
    slots: Tensor
    positions: Tensor
    num_seqs: int
    num_tokens: int
    num_decodes: int
    max_query_len: int
    max_seq_len: int
    fresh: bool
    host_lens: tuple[tuple[int, int], ...] | None = None


@dataclass(frozen=True, slots=True)
class Selection:
    """The N tokens of a step whose hidden state after the last layer is wanted: ``index`` int64 [N]
    into the step's tokens, each the last of its sequence; ``attention``, them as N decodes. N may
    be 0: then only keys and values are."""

    index: Tensor
    attention: AttentionBatch


class AttentionBackend(Protocol):
    """Writes new keys and values into the pages and attends over them.

    Made once per worker as ``cls(device, dtype, block_size)``. Called from one thread; no
    method may wait for the device. Where ``supports_graphs``, a batch of decodes only reads
    no host value but ``num_seqs`` and ``max_seq_len`` (an upper bound then), so that it can be
    captured in a CUDA graph and replayed with other lengths.

    Optional: ``rotate_and_write(qkv, positions, cos_sin, q_weight, k_weight, eps, kv, spec, batch)
    -> (q, k, v)`` does what ``compute.ops.qk_norm_rope`` and then ``write`` do, in one pass; a
    layer calls it instead of the two where the backend has it. ``warm_up(kv, spec, max_num_seqs)``
    compiles what batches of up to so many sequences launch; called once for each kind of layer.
    ``kv_dtypes``, a tuple of 8-bit dtypes of torch that pages may have beside the model's: a number
    is divided by its scale and rounded to the nearest; what is too large becomes the largest, a
    NaN too. A query sees all keys and values so rounded, those of its own step like those before:
    how a prompt was cut or cached may not be seen in the result. ``kv_workspace_bytes``: memory
    of the device that such pages take beside themselves. ``supports_sinks``: ``attend`` takes
    ``sinks`` behind ``batch``, float32 [H], which it is given where ``spec.sinks``.
    ``records(specs)``, for the CPU: whether a batch of decodes of such layers is nothing but
    kernels of ``compute.native`` and reads no host value but ``num_seqs``, so that the step can be
    recorded.
    """

    name: ClassVar[str]
    api_version: ClassVar[int]
    supports_graphs: ClassVar[bool]

    def __init__(self, device: torch.device, dtype: torch.dtype, block_size: int) -> None: ...

    def kv_shape(self, num_blocks: int, num_kv_heads: int, head_dim: int) -> tuple[int, ...]:
        """Shape of one layer's key tensor, and of its value tensor."""
        ...

    def write(self, k: Tensor, v: Tensor, kv: KVLayer, batch: AttentionBatch) -> None:
        """Stores k and v, [T, K, D] each, at ``batch.slots``."""
        ...

    def attend(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        kv: KVLayer,
        spec: AttentionSpec,
        batch: AttentionBatch,
    ) -> Tensor:
        """[T, H, D] -> [T, H, D]: causal attention of q over everything written for its row up to
        its own position. k and v are the step's own, [T, K, D], written already; a backend may
        read them instead of the pages."""
        ...
