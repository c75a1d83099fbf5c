"""Attention of one layer: rotate queries and keys, write the KV pages, attend over them."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from jackfield.compute import ops
from jackfield.compute.layers.norm import RMSNorm
from jackfield.compute.layers.rotary import Rope
from jackfield.contracts.attention import AttentionBatch, AttentionSpec, KVLayer, Selection
from jackfield.contracts.model import BuildContext


class Attention(nn.Module):
    """What lies between the fused QKV projection and the output projection.

    ``q_norm`` and ``k_norm`` normalize each query and key head before the rotation; they
    belong to the module that made them. The counts in ``spec`` are this worker's.
    """

    def __init__(
        self,
        spec: AttentionSpec,
        context: BuildContext,
        rope: Rope,
        q_norm: RMSNorm | None = None,
        k_norm: RMSNorm | None = None,
    ) -> None:
        super().__init__()
        self.spec = spec
        self.backend = context.attention_backend
        self.rope = rope
        # In a tuple, so that the norms do not become children of two modules.
        self._norms = (q_norm, k_norm)
        self._eps = 0.0 if q_norm is None else q_norm.eps
        self._kv: KVLayer | None = None
        self._rotate_and_write: Callable[..., tuple[Tensor, Tensor, Tensor]] | None
        self._rotate_and_write = getattr(self.backend, "rotate_and_write", None)

    def bind_kv(self, kv: KVLayer) -> None:
        """The pages of this layer."""
        self._kv = kv

    def forward(
        self,
        qkv: Tensor,
        positions: Tensor,
        batch: AttentionBatch,
        selection: Selection | None = None,
    ) -> Tensor:
        """[T, (H + 2 K) * D], int64 [T] -> [T, H * D]; with a selection of N tokens, theirs only:
        [N, H * D]."""
        spec, kv = self.spec, self._kv
        assert kv is not None, "bind_kv comes before forward"
        q_norm, k_norm = self._norms
        turn = (
            qkv,
            positions,
            self.rope.cos_sin,
            None if q_norm is None else q_norm.weight,
            None if k_norm is None else k_norm.weight,
            self._eps,
        )
        if self._rotate_and_write is not None:
            q, k, v = self._rotate_and_write(*turn, kv, spec, batch)
        else:
            q, k, v = ops.qk_norm_rope(*turn, spec.num_heads, spec.num_kv_heads, spec.head_dim)
            self.backend.write(k, v, kv, batch)
        width = spec.num_heads * spec.head_dim
        if selection is not None:
            if len(selection.index) == 0:
                return qkv.new_empty((0, width))
            batch = selection.attention
            q, k, v = (x.index_select(0, selection.index) for x in (q, k, v))
        return self.backend.attend(q, k, v, kv, spec, batch).reshape(-1, width)
