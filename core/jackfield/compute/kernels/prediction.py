"""Which variants an engine will want that has launched nothing yet: those that take longest."""

from __future__ import annotations

import torch
import triton
from triton.backends.compiler import GPUTarget

from jackfield.compute.attention.triton import TritonAttention
from jackfield.compute.kernels.tracing import tracing
from jackfield.compute.kernels.variant import TargetDriver, Variant
from jackfield.compute.kv_cache import text_config
from jackfield.compute.warm_up import warm_up_attention
from jackfield.config.plan import WorkerPlan
from jackfield.contracts.attention import AttentionSpec

_OURS = ("auto", TritonAttention.name)


def predicted(plan: WorkerPlan, capability: tuple[int, int]) -> list[Variant]:
    """What the attention will warm up with on an NVIDIA GPU, up to 3.4 s of compilation each, for
    the model that ``plan.config`` seems to describe: if it turns out to be another, only
    processor time is lost. To be called where torch is a stand-in (``shapes``)."""
    spec = _spec(plan)
    if plan.attention_backend not in _OURS or spec is None:
        return []
    target = GPUTarget("cuda", 10 * capability[0] + capability[1], 32)
    triton.runtime.driver.set_active(TargetDriver(target))
    variants: list[Variant] = []

    def note(
        compile_here: object, source: object, *, options: dict[str, object], **_: object
    ) -> Variant:
        variants.append(Variant(source, target, options))
        return variants[-1]

    device = torch.device("cuda", 0)
    with tracing(note):
        backend = TritonAttention(device, getattr(torch, plan.dtype), plan.block_size)
        warm_up_attention([spec], backend, plan, device)
    return variants


def _spec(plan: WorkerPlan) -> AttentionSpec | None:
    """Of a decoder whose layers are all the same; None for others."""
    config = text_config(plan.config)
    heads, hidden = config.get("num_attention_heads"), config.get("hidden_size")
    if not isinstance(heads, int) or not isinstance(hidden, int):
        return None
    if config.get("sliding_window") and config.get("use_sliding_window", True):
        return None
    kv_heads, head_dim = config.get("num_key_value_heads"), config.get("head_dim")
    return AttentionSpec(
        layer=0,
        num_heads=heads,
        num_kv_heads=kv_heads if isinstance(kv_heads, int) else heads,
        head_dim=head_dim if isinstance(head_dim, int) else hidden // heads,
        scale=1.0,
    )
