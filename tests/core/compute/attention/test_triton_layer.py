from __future__ import annotations

import dataclasses

import pytest
import torch
from tests.core.compute.attention.reference import make_case
from tests.interpreter import DEVICE

from jackfield.compute.attention.triton import TritonAttention
from jackfield.compute.layers.attention import Attention
from jackfield.compute.layers.norm import RMSNorm
from jackfield.compute.layers.rotary import Rope
from jackfield.contracts.attention import AttentionSpec, KVLayer
from jackfield.contracts.model import BuildContext, TensorParallelGroup


class InTwoSteps:
    """The backend without its optional method."""

    def __init__(self, backend: TritonAttention) -> None:
        self.write, self.attend = backend.write, backend.attend


@pytest.mark.parametrize("kv_dtype", [torch.float32, torch.float8_e4m3fn])
def test_a_layer_gives_the_same_whether_the_backend_rotates_or_not(kv_dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    spec = AttentionSpec(0, 4, 2, 64, 0.125)
    backend = TritonAttention(DEVICE, torch.float32, 16)
    case = make_case(backend, [(1, 20), (9, 9)], spec, 16, torch.float32, DEVICE, kv_dtype)
    qkv = torch.randn(10, 8 * 64, device=DEVICE)
    angles = torch.randn(64, 32, device=DEVICE)
    rope = Rope(torch.cat([angles.cos(), angles.sin()], 1))
    outputs, pages = [], []
    for offered in (backend, InTwoSteps(backend)):
        context = BuildContext(
            dtype=torch.float32,
            device=DEVICE,
            group=TensorParallelGroup(),
            attention_backend=offered,  # type: ignore[arg-type]
            max_model_len=64,
            max_num_batched_tokens=64,
        )
        q_norm, k_norm = (RMSNorm(64, eps=1e-6, context=context) for _ in "qk")
        for norm in (q_norm, k_norm):
            norm.weight.data.copy_(torch.linspace(0.5, 1.5, 64))
        layer = Attention(spec, context, rope, q_norm, k_norm)
        kv = KVLayer(case.kv.key.clone(), case.kv.value.clone(), scales=case.kv.scales)
        layer.bind_kv(kv)
        outputs.append(layer(qkv, case.batch.positions, dataclasses.replace(case.batch)))
        pages.append(torch.stack([kv.key, kv.value]).float().nan_to_num())
    torch.testing.assert_close(*outputs, rtol=1e-5, atol=1e-5)
    # Rotated in another order of operations, few numbers are rounded to their other neighbour.
    assert ((pages[0] - pages[1]).abs() > 1e-5).sum() <= (kv_dtype != torch.float32) * 20
    assert not torch.equal(pages[0][0], case.kv.key.float().nan_to_num())
