"""What a backend compiles ahead, for the layers that a model has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from jackfield.compute.kv_cache import allocate_kv, check_kv_dtype
from jackfield.config.plan import WorkerPlan
from jackfield.contracts.attention import AttentionBackend, AttentionSpec


def warm_up_attention(
    specs: Sequence[AttentionSpec],
    backend: AttentionBackend,
    plan: WorkerPlan,
    device: torch.device,
) -> None:
    """Lets the backend launch what it needs for each kind of layer in ``specs``, if it wants to;
    over one block of KV, because neither the weights nor the KV cache need be there."""
    warm_up = getattr(backend, "warm_up", None)
    if warm_up is None:
        return
    dtype: torch.dtype = getattr(torch, plan.kv_dtype or plan.dtype)
    check_kv_dtype(backend, dtype)
    kinds = tuple(dict.fromkeys(replace(spec, layer=0) for spec in specs))
    for kv, spec in zip(allocate_kv(kinds, backend, 1, dtype, device), kinds, strict=True):
        warm_up(kv, spec, plan.max_num_seqs)
