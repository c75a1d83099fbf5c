"""Our rotation in the place of transformers', where that does the same."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import ModuleType

import pytest
import tests.interpreter
import torch
from tests.checkpoints import make, reference
from torch import Tensor
from transformers.models.deepseek_v3 import modeling_deepseek_v3
from transformers.models.gemma import modeling_gemma
from transformers.models.gpt_neox import modeling_gpt_neox
from transformers.models.phi3 import modeling_phi3

from jackfield.compute.kernels.rotation import rotate
from jackfield_models.own_rotation import RotationTrial, Turned

DEVICE = tests.interpreter.DEVICE


def heads(num: int, tokens: int, size: int, dtype: torch.dtype) -> Tensor:
    """[1, num, tokens, size], tokens outermost in memory and room behind each."""
    x = torch.randn(1, tokens, num + 1, size)[:, :, :num].to(DEVICE, dtype)
    return x.transpose(1, 2)


def angles(tokens: int, size: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    phi = torch.randn(1, tokens, size // 2).to(DEVICE).repeat(1, 1, 2)
    return phi.cos().to(dtype), phi.sin().to(dtype)


@pytest.mark.parametrize(
    ("module", "size", "turned"),
    [
        (modeling_gemma, 256, 256),
        (modeling_deepseek_v3, 24, 24),
        (modeling_phi3, 96, 72),
        (modeling_gpt_neox, 64, 16),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_heads_are_rotated_as_transformers_does_in_float64(
    module: ModuleType, size: int, turned: int, dtype: torch.dtype
) -> None:
    for num_heads, num_kv_heads, tokens in ((5, 1, 3), (8, 8, 1), (12, 2, 2), (1, 1, 0)):
        q, k = (heads(n, tokens, size, dtype) for n in (num_heads, num_kv_heads))
        cos, sin = angles(tokens, turned, torch.float32)
        expected = module.apply_rotary_pos_emb(q.double(), k.double(), cos.double(), sin.double())
        made = rotate(q[0], k[0], cos[0], sin[0])
        for own, its in zip(made, expected, strict=True):
            assert own.dtype == dtype and own.is_contiguous()
            tolerance = 1e-6 if dtype == torch.float32 else 1.6e-2
            torch.testing.assert_close(
                own.double(), its[0].transpose(0, 1), rtol=tolerance, atol=tolerance
            )


@pytest.fixture
def restored() -> Iterator[None]:
    before = modeling_gemma.apply_rotary_pos_emb
    yield
    modeling_gemma.apply_rotary_pos_emb = before


def plain(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor) -> Turned:
    made = modeling_phi3.apply_rotary_pos_emb(q[None], k[None], cos[None], sin[None])
    turned_q, turned_k = (x[0].transpose(0, 1) for x in made)
    return turned_q, turned_k


@pytest.mark.usefixtures("restored")
@torch.inference_mode()
def test_a_function_that_agrees_is_replaced_for_tensors_on_a_gpu() -> None:
    model = reference(make("GemmaForCausalLM"))
    module = sys.modules[type(model).__module__]
    theirs, calls = module.apply_rotary_pos_emb, []

    def counted(*given: Tensor) -> Turned:
        calls.append(1)
        return plain(*given)

    for _ in range(2):
        with RotationTrial(model, counted) as rotation:
            model(torch.tensor([[5, 6, 7]]))
        rotation.use()
        assert len(calls) == 3  # layers
        assert module.apply_rotary_pos_emb.jackfield_original is theirs
        calls.clear()
        model(torch.tensor([[5, 6, 7]]))
        assert not calls


@pytest.mark.usefixtures("restored")
@torch.inference_mode()
def test_functions_that_do_something_else_stay() -> None:
    model = reference(make("GemmaForCausalLM"))
    theirs = modeling_gemma.apply_rotary_pos_emb
    with RotationTrial(model, lambda q, k, cos, sin: plain(q, k, cos, -sin)) as rotation:
        model(torch.tensor([[5, 6, 7]]))
    rotation.use()
    assert modeling_gemma.apply_rotary_pos_emb is theirs
