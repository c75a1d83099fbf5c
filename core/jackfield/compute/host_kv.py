"""KV blocks in the host's memory, and their way there and back.

A block of all layers is one row of a pinned matrix: one copy a block, whatever the number of
layers. On the device the row is put together, and taken apart, by a gather a layer. All of it is
enqueued behind the steps before, so that the host does not wait.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from jackfield.compute.eight_bit_kv import as_bytes
from jackfield.compute.transfer import Uploads
from jackfield.contracts.attention import KVLayer
from jackfield.contracts.work import BlockSwaps, Int32Array

_CHUNK_BYTES = 64 << 20
"""Rows that are on the device at once."""


class HostKV:
    """``num_blocks`` blocks of the ``layers``; ``dims``: which dimension of a layer's keys (and
    values) counts blocks."""

    def __init__(
        self,
        layers: Sequence[KVLayer],
        dims: Sequence[int],
        num_blocks: int,
        uploads: Uploads,
    ) -> None:
        self._parts = [
            _Part(as_bytes(tensor), dim)
            for layer, dim in zip(layers, dims, strict=True)
            for tensor in (layer.key, layer.value)
        ]
        self._uploads = uploads
        first = as_bytes(layers[0].key)
        self._device = first.device
        size = sum(part.size for part in self._parts)
        # [num_blocks, elements of a block over all layers]
        self._rows = torch.empty((num_blocks, size), dtype=first.dtype, pin_memory=first.is_cuda)
        self._at_once = max(1, _CHUNK_BYTES // self._rows[0].nbytes)

    def swap(self, swaps: BlockSwaps) -> None:
        """Enqueues the copies, those that go out first."""
        for pairs in self._chunks(swaps.out):
            ids = self._uploads.upload(pairs[:, 0].copy()).long()
            rows = torch.cat([part.gather(ids) for part in self._parts], dim=1)
            for row, host in zip(rows, pairs[:, 1].tolist(), strict=True):
                self._rows[host].copy_(row, non_blocking=True)
        for pairs in self._chunks(swaps.back):
            ids = self._uploads.upload(pairs[:, 1].copy()).long()
            shape = (len(pairs), self._rows.shape[1])
            rows = torch.empty(shape, dtype=self._rows.dtype, device=self._device)
            for row, host in zip(rows, pairs[:, 0].tolist(), strict=True):
                row.copy_(self._rows[host], non_blocking=True)
            pieces = torch.split(rows, [part.size for part in self._parts], dim=1)
            for part, piece in zip(self._parts, pieces, strict=True):
                part.scatter(ids, piece)

    def _chunks(self, pairs: Int32Array) -> Iterator[Int32Array]:
        for start in range(0, len(pairs), self._at_once):
            yield pairs[start : start + self._at_once]


class _Part:
    """Keys or values of one layer; ``size``: elements of a block."""

    def __init__(self, tensor: Tensor, dim: int) -> None:
        self._dim = dim
        self._tensor = tensor
        self.size = tensor.numel() // tensor.shape[dim]

    def gather(self, ids: Tensor) -> Tensor:
        """[n] int64 -> [n, size]."""
        return self._tensor.index_select(self._dim, ids).movedim(self._dim, 0).flatten(1)

    def scatter(self, ids: Tensor, rows: Tensor) -> None:
        """Writes [n, size] to blocks [n]."""
        shape = self._tensor.movedim(self._dim, 0).shape[1:]
        blocks = rows.reshape(len(ids), *shape).movedim(0, self._dim)
        self._tensor.index_copy_(self._dim, ids, blocks)
