"""Prints the keys of the variants that an engine on Hopper warms its attention up with, as JSON:
``predicted`` as a compiler expects them, without torch; ``traced`` as torch's tensors give them."""

from __future__ import annotations

import json
import os
import sys
from typing import Any
from unittest import mock

os.environ["TRITON_INTERPRET"] = "0"

from jackfield.config.plan import WorkerPlan

HOPPER = (9, 0)


def plan_of(options: dict[str, Any]) -> WorkerPlan:
    """A small model of 4 heads of 128 over 2, or what ``options`` make of it."""
    plan: dict[str, Any] = {
        "model": "none",
        "config": {"hidden_size": 512, "num_attention_heads": 4, "num_key_value_heads": 2},
        "device": "cuda",
        "dtype": "bfloat16",
        "max_model_len": 512,
        "max_num_seqs": 300,
        "max_num_batched_tokens": 512,
        "block_size": 64,
    }
    return WorkerPlan(**{**plan, **options})


def predicted(plan: WorkerPlan) -> list[str]:
    from jackfield.compute.kernels import shapes

    shapes.stand_in(lambda: HOPPER)
    from jackfield.compute.kernels import prediction

    return [variant.key() for variant in prediction.predicted(plan, HOPPER)]


def traced(plan: WorkerPlan) -> list[str]:
    import torch
    import triton
    from triton.backends.compiler import GPUTarget

    from jackfield.compute.attention import triton as attention
    from jackfield.compute.kernels import hopper_attention, launch
    from jackfield.compute.kernels.tracing import tracing
    from jackfield.compute.kernels.variant import TargetDriver, Variant
    from jackfield.compute.warm_up import warm_up_attention
    from jackfield.contracts.attention import AttentionSpec

    target, found = GPUTarget("cuda", 90, 32), []

    def note(
        compile_here: object, source: Any, *, options: dict[str, object], **_: object
    ) -> Variant:
        variant = Variant(source, target, options)
        found.append(variant.key())
        return variant

    triton.runtime.driver.set_active(TargetDriver(target))
    device = torch.device("cpu")
    with (
        mock.patch.object(launch, "_overlaps", lambda device: True),
        mock.patch.object(attention, "runs_hopper_kernels", lambda device: True),
        mock.patch.object(hopper_attention, "runs_hopper_kernels", lambda device: True),
        tracing(note),
    ):
        backend = attention.TritonAttention(device, getattr(torch, plan.dtype), plan.block_size)
        warm_up_attention([AttentionSpec(0, 4, 2, 128, 0.1)], backend, plan, device)
    return found


if __name__ == "__main__":
    by = {"predicted": predicted, "traced": traced}[sys.argv[1]]
    print(json.dumps(by(plan_of(json.loads(sys.argv[2])))))
