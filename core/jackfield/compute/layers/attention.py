"""Attention of one layer: rotate queries and keys, write the KV pages, attend over them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from jackfield.compute import ops
from jackfield.compute.layers.norm import RMSNorm
from jackfield.compute.layers.rotary import Rope
from jackfield.compute.layers.sharding import even_shard
from jackfield.compute.weights import LoadableLayer, Slot
from jackfield.contracts.attention import (
    AttentionBackend,
    AttentionBatch,
    AttentionSpec,
    KVLayer,
    Selection,
)
from jackfield.contracts.model import BuildContext
from jackfield.errors import ConfigError


class Sinks(LoadableLayer):
    """A score for each query head beside those of the keys, whose value is zero (arXiv
    2309.17453): ``score`` float32 [H], this worker's."""

    def __init__(self, num_heads: int, context: BuildContext) -> None:
        super().__init__()
        self._heads = even_shard(num_heads, context.group, "the number of attention heads")
        empty = torch.empty(self._heads.length, dtype=torch.float32, device=context.device)
        self.score = nn.Parameter(empty, requires_grad=False)

    def slots(self, prefix: str) -> Iterator[tuple[str, Slot]]:
        def place(tensor: Tensor) -> None:
            self.score.data.copy_(self._heads.of(tensor, 0))

        yield prefix, Slot(self, (self._heads.full,), place)


def check_spec(spec: AttentionSpec, backend: AttentionBackend) -> None:
    """Raises ``ConfigError`` for a layer that the backend does not compute."""
    if spec.sinks and not getattr(backend, "supports_sinks", False):
        raise ConfigError(
            f"the model's attention has sinks, which the attention backend {backend.name!r} "
            f"does not compute; choose another --attention-backend"
        )


class Attention(nn.Module):
    """What lies between the fused QKV projection and the output projection.

    ``q_norm`` and ``k_norm`` normalize each query and key head before the rotation; they and
    ``sinks`` belong to the module that made them. The counts in ``spec`` are this worker's.
    """

    def __init__(
        self,
        spec: AttentionSpec,
        context: BuildContext,
        rope: Rope,
        q_norm: RMSNorm | None = None,
        k_norm: RMSNorm | None = None,
        sinks: Sinks | None = None,
    ) -> None:
        super().__init__()
        check_spec(spec, context.attention_backend)
        self.spec = spec
        self.backend = context.attention_backend
        self.rope = rope
        # In tuples, so that they do not become children of two modules.
        self._norms = (q_norm, k_norm)
        self._sinks = (sinks,) if sinks is not None else ()
        self._eps = 0.0 if q_norm is None else q_norm.eps
        self._kv: KVLayer | None = None
        self._attend: Callable[..., Tensor] = self.backend.attend
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
        sinks = [layer.score for layer in self._sinks]
        return self._attend(q, k, v, kv, spec, batch, *sinks).reshape(-1, width)
