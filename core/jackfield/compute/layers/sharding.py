"""Which part of a layer belongs to this worker."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from jackfield.contracts.model import TensorParallelGroup
from jackfield.errors import CheckpointError, ConfigError


class Shard(NamedTuple):
    """``length`` of ``full`` features, from ``start`` on."""

    full: int
    start: int
    length: int

    def of(self, tensor: Tensor, dim: int) -> Tensor:
        """This shard of a tensor whose ``dim`` spans the full features, packed or in groups or
        not (it may have fewer entries than there are features)."""
        size = tensor.shape[dim]
        start, length = self.scaled(self.start, size), self.scaled(self.length, size)
        return tensor.narrow(dim, start, length)

    def scaled(self, features: int, size: int) -> int:
        """``features`` counted in a dimension of ``size`` entries for all ``full`` features."""
        return rescale(features, self.full, size)


def rescale(features: int, full: int, size: int) -> int:
    """``features`` of ``full`` in a dimension that has ``size`` entries for all of them."""
    if features * size % full:
        raise CheckpointError(
            f"a shard of {features} of {full} features cannot be cut out of {size} packed entries"
        )
    return features * size // full


def whole(features: int) -> Shard:
    """Everything: what is not sharded."""
    return Shard(features, 0, features)


def even_shard(features: int, group: TensorParallelGroup, what: str) -> Shard:
    """This worker's equal share; ``ConfigError`` where there is none."""
    if features % group.size:
        raise ConfigError(
            f"{what} has {features} features, which {group.size} workers cannot share evenly; "
            f"choose another --tensor-parallel-size"
        )
    length = features // group.size
    return Shard(features, group.rank * length, length)


def kv_head_shard(num_kv_heads: int, group: TensorParallelGroup) -> Shard:
    """The KV heads of this worker; several workers have the same one if there are too few."""
    if group.size <= num_kv_heads:
        return even_shard(num_kv_heads, group, "the number of KV heads")
    if group.size % num_kv_heads:
        raise ConfigError(
            f"{num_kv_heads} KV heads cannot be shared by {group.size} workers; "
            f"choose another --tensor-parallel-size"
        )
    return Shard(num_kv_heads, group.rank * num_kv_heads // group.size, 1)
