"""How many KV blocks fit, and the tensors that hold them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from types import MappingProxyType

import torch

from jackfield.compute.eight_bit_kv import is_eight_bit
from jackfield.compute.transfer import device_zeros
from jackfield.config.plan import WorkerPlan
from jackfield.contracts.attention import AttentionBackend, AttentionSpec, KVLayer
from jackfield.errors import ConfigError

_GIB = 1 << 30
_WORKSPACE_BYTES = 256 << 20
"""Libraries' workspaces, on a GPU."""

_CPU_BYTES = 4 * _GIB
"""Of the KV cache on the CPU, unless the option says otherwise or half of what is free is less."""
_CPU_FIRST_BYTES = 256 << 20
"""So much of it is used before free cached blocks are used again; see ``CacheGrowth``."""

LOGPROB_SLICE_BYTES = 64 << 20
"""Float32 logits of prompt positions that may exist at once."""


@dataclass(frozen=True, slots=True)
class Needs:
    """Bytes of a device that the KV cache may not have: the model's weights, which are there
    already; ``activations`` of a step; and what libraries and graphs take ``beside`` them."""

    weights: int = 0
    activations: int = 0
    beside: int = 0


def bytes_per_block(
    specs: Sequence[AttentionSpec], backend: AttentionBackend, dtype: torch.dtype
) -> int:
    """Bytes of one block's keys and values over all layers."""
    sizes = (prod(backend.kv_shape(1, spec.num_kv_heads, spec.head_dim)) for spec in specs)
    return 2 * sum(sizes) * dtype.itemsize


def block_dim(backend: AttentionBackend, spec: AttentionSpec) -> int:
    """Which dimension of a layer's keys and values counts blocks."""
    one, two = (backend.kv_shape(n, spec.num_kv_heads, spec.head_dim) for n in (1, 2))
    return next(dim for dim, size in enumerate(one) if two[dim] != size)


def num_first_blocks(plan: WorkerPlan, block_bytes: int, *, on_cpu: bool) -> int | None:
    """``KVCapacity.num_first_blocks``: on the CPU, unless the user says how much memory it is."""
    said = (plan.cpu_kv_cache_bytes, plan.kv_cache_bytes, plan.num_blocks_override)
    is_said = any(value is not None for value in said)
    return None if is_said or not on_cpu else max(1, _CPU_FIRST_BYTES // block_bytes)


def activation_bytes(
    config: Mapping[str, object], plan: WorkerPlan, num_tokens: int, itemsize: int
) -> int:
    """An upper bound of what a step of ``num_tokens`` needs beside weights and KV, from the model's
    sizes: in the layers, or behind them, where the logits of all rows exist in the model's dtype
    and twice in float32."""
    hidden = _size(text_config(config), "hidden_size", 4096)
    tokens = max(num_tokens, plan.max_num_seqs)
    logits = plan.max_num_seqs * vocabulary_size(config) * (itemsize + 8)
    behind = tokens * hidden * itemsize + logits + 3 * LOGPROB_SLICE_BYTES
    return max(layer_bytes(config, tokens, itemsize), behind)


def layer_bytes(config: Mapping[str, object], num_tokens: int, itemsize: int) -> int:
    """What the layers need at once for so many tokens: of each the residual, its norm and two more
    of the hidden size; the merged gate and up projections and their product; queries, keys, values
    and the attention output; in a mixture of experts the output of each expert that it has."""
    text = text_config(config)
    hidden = _size(text, "hidden_size", 4096)
    heads = _size(text, "num_attention_heads", 32)
    head_dim = _size(text, "head_dim", hidden // heads)
    experts = _size(text, "num_experts_per_tok", 1)
    inner = max(
        _size(text, "intermediate_size", 4 * hidden),
        experts * _size(text, "moe_intermediate_size", 0),
    )
    per_token = 4 * hidden + 3 * inner + 4 * heads * head_dim
    if "moe_intermediate_size" in text:
        per_token += experts * hidden
    return num_tokens * per_token * itemsize


def text_config(config: Mapping[str, object]) -> Mapping[str, object]:
    """The part of a checkpoint's config that describes its language model."""
    inner = config.get("text_config")
    return {**config, **inner} if isinstance(inner, Mapping) else config


def vocabulary_size(config: Mapping[str, object]) -> int:
    """Rows of the embedding."""
    return _size(text_config(config), "vocab_size", 262_144)


def num_kv_blocks(
    plan: WorkerPlan,
    block_bytes: int,
    needs: Needs,
    memory: tuple[int, int],
    *,
    on_cpu: bool,
) -> int:
    """KV blocks, block 0 (for padding) included: what memory allows, and not more than
    ``max_num_seqs`` sequences of full length can use.

    ``memory``: (free, total) bytes after the weights are loaded. Weights, activations and the KV
    cache of this engine have the share of a GPU that the plan says; the rest lies outside of it,
    and all of it has to be free. Raises ``ConfigError`` where not even one sequence of
    ``max_model_len`` fits.
    """
    per_sequence = -(-plan.max_model_len // plan.block_size)
    if plan.num_blocks_override is not None:
        num_blocks = plan.num_blocks_override
    else:
        budget = (_cpu_budget if on_cpu else _gpu_budget)(plan, needs, *memory)
        num_blocks = min(max(budget, 0) // block_bytes, plan.max_num_seqs * per_sequence + 1)
    fits = num_blocks > 1 if plan.limit_context else num_blocks > per_sequence
    if not fits:
        raise ConfigError(_too_small(plan, num_blocks, block_bytes, on_cpu))
    return num_blocks


def _cpu_budget(plan: WorkerPlan, needs: Needs, free: int, total: int) -> int:
    if plan.kv_cache_bytes is not None:
        return plan.kv_cache_bytes
    if plan.cpu_kv_cache_bytes is not None:
        return plan.cpu_kv_cache_bytes
    return min(_CPU_BYTES, free // 2)


def _gpu_budget(plan: WorkerPlan, needs: Needs, free: int, total: int) -> int:
    room = free - needs.beside - _WORKSPACE_BYTES - needs.activations
    if plan.kv_cache_bytes is not None:
        if plan.kv_cache_bytes > room:
            raise ConfigError(
                f"--kv-cache-memory-bytes {plan.kv_cache_bytes}: beside the model and a step "
                f"{max(room, 0)} bytes of the device are free"
            )
        return plan.kv_cache_bytes
    share = plan.gpu_memory_utilization
    own = int(total * share if share <= 1 else share) - needs.weights - needs.activations
    return min(own, room)


def _too_small(plan: WorkerPlan, num_blocks: int, block_bytes: int, on_cpu: bool) -> str:
    tokens = max(num_blocks - 1, 0) * plan.block_size
    if plan.num_blocks_override is not None:
        more = "raise --num-gpu-blocks-override"
    elif plan.kv_cache_bytes is not None:
        more = "raise --kv-cache-memory-bytes"
    elif on_cpu:
        more = "raise --cpu-kv-cache-gib"
    else:
        more = "raise --gpu-memory-utilization"
    size = num_blocks * block_bytes / _GIB
    head = (
        f"the KV cache ({size:.2f} GiB) holds {tokens} tokens, but one request may have"
        f" {plan.max_model_len}: {more}"
    )
    return f"{head} or set --max-model-len to at most {tokens}" if tokens else head


def check_kv_dtype(backend: AttentionBackend, dtype: torch.dtype) -> None:
    """``ConfigError`` where the backend has no kernels for pages of 8 bits, on its device."""
    taken: tuple[torch.dtype, ...] = getattr(backend, "kv_dtypes", ())
    if is_eight_bit(dtype) and dtype not in taken:
        choices = " or ".join(["the model's dtype by name", *map(_flag, taken)])
        raise ConfigError(
            f"attention backend {backend.name!r} has no kernels for keys and values as "
            f"{_flag(dtype)} on this device: set --kv-cache-dtype to {choices}"
        )


def _flag(dtype: torch.dtype) -> str:
    # float8_e4m3fn is --kv-cache-dtype fp8_e4m3.
    return str(dtype).removeprefix("torch.").replace("float8", "fp8").removesuffix("fn")


def allocate_kv(
    specs: Sequence[AttentionSpec],
    backend: AttentionBackend,
    num_blocks: int,
    dtype: torch.dtype,
    device: torch.device,
    scales: Mapping[int, tuple[float, float]] = MappingProxyType({}),
) -> tuple[KVLayer, ...]:
    """Zeroed keys and values of every layer: what was never written must be finite, because
    a masked score is still multiplied. ``scales`` of 8-bit keys and values by layer; 1 where
    there are none."""
    layers = []
    for spec in specs:
        shape = backend.kv_shape(num_blocks, spec.num_kv_heads, spec.head_dim)
        key, value = (device_zeros(shape, dtype, device) for _ in range(2))
        own = None
        if is_eight_bit(dtype):
            own = torch.tensor(scales.get(spec.layer, (1.0, 1.0)), device=device)
        layers.append(KVLayer(key, value, scales=own))
    return tuple(layers)


def _size(config: Mapping[str, object], name: str, default: int) -> int:
    value = config.get(name)
    if isinstance(value, (list, tuple)):
        return max((v for v in value if isinstance(v, int)), default=default)
    return value if isinstance(value, int) else default
