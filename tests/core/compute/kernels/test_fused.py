from __future__ import annotations

import pytest
import tests.interpreter
import torch
import torch.nn.functional as F
from torch import Tensor

from jackfield.compute.kernels.activation import gelu_and_mul, silu_and_mul
from jackfield.compute.kernels.kv_write import kv_write
from jackfield.compute.kernels.norm import add_rms_norm, rms_norm
from jackfield.compute.kernels.rotary import qk_norm_rope, qk_norm_rope_write

DEVICE = tests.interpreter.DEVICE
EPS = 1e-5
DTYPES = [torch.float32, torch.float16, torch.bfloat16]
# One rounding of the result; the interpreter truncates to bfloat16, hence two.
ULPS = {torch.float32: 2e-6, torch.float16: 1e-3, torch.bfloat16: 1.6e-2}


def random(*shape: int, dtype: torch.dtype) -> Tensor:
    return torch.randn(shape).to(DEVICE, dtype)


def assert_rounded_once(actual: Tensor, expected: Tensor) -> None:
    tolerance = ULPS[actual.dtype]
    torch.testing.assert_close(actual.double(), expected, rtol=tolerance, atol=tolerance)


def normed(x: Tensor, weight: Tensor) -> Tensor:
    x = x.double()
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + EPS) * weight.double()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", [64, 100, 1536])
def test_rms_norm_agrees_with_float64(width: int, dtype: torch.dtype) -> None:
    x, weight = random(3, 2, width + 8, dtype=dtype)[..., :width], random(width, dtype=dtype)
    out = rms_norm(x, weight, EPS)
    assert out.shape == x.shape and out.is_contiguous()
    assert_rounded_once(out, normed(x, weight))


@pytest.mark.parametrize("dtype", DTYPES)
def test_add_rms_norm_norms_the_rounded_sum_and_keeps_it_in_place(dtype: torch.dtype) -> None:
    x, weight = random(3, 100, dtype=dtype), random(100, dtype=dtype)
    residual = random(3, 104, dtype=dtype)[:, :100]
    expected = x.double() + residual.double()
    out, total = add_rms_norm(x, residual, weight, EPS)
    assert total.data_ptr() == residual.data_ptr()
    assert_rounded_once(total, expected)
    assert_rounded_once(out, normed(total, weight))


@pytest.mark.parametrize("dtype", DTYPES)
def test_gates_agree_with_float64(dtype: torch.dtype) -> None:
    x = random(3, 2 * 1100, dtype=dtype) * 3
    gate, up = x.double().chunk(2, -1)
    assert_rounded_once(silu_and_mul(x), F.silu(gate) * up)
    assert_rounded_once(gelu_and_mul(x), F.gelu(gate, approximate="tanh") * up)


def rotated(x: Tensor, cos_sin: Tensor, positions: Tensor) -> Tensor:
    cos, sin = cos_sin[positions].double()[:, None].chunk(2, -1)
    rotary = cos_sin.shape[1]
    first, second = x.double()[..., :rotary].chunk(2, -1)
    turned = [first * cos - second * sin, second * cos + first * sin]
    return torch.cat([*turned, x.double()[..., rotary:]], -1)


# head_dim, rotary dimensions, heads, KV heads, tokens, norm of q, norm of k
ROTARY = [
    (64, 64, 4, 2, 5, True, True),
    (80, 40, 3, 1, 4, False, False),
    (96, 96, 6, 2, 2, False, True),
    (128, 64, 1, 1, 3, True, False),
    (256, 256, 2, 1, 2, True, True),
]


@pytest.mark.parametrize("shape", ROTARY)
@pytest.mark.parametrize(
    ("dtype", "heads_a_program"),
    [*((dtype, 1) for dtype in DTYPES), *((torch.float32, heads) for heads in (4, 8, 16))],
)
def test_rotation_and_write_agree_with_float64(
    shape: tuple[int, int, int, int, int, bool, bool],
    dtype: torch.dtype,
    heads_a_program: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if heads_a_program > 1:
        monkeypatch.setattr("jackfield.compute.kernels.rotary._FEW_HEADS", 0)
    if heads_a_program > 4:
        monkeypatch.setattr("jackfield.compute.kernels.rotary._SOME_HEADS", 0)
    if heads_a_program > 8:
        monkeypatch.setattr("jackfield.compute.kernels.rotary._MANY_HEADS", 0)
    head_dim, rotary, num_heads, num_kv_heads, num_tokens, norm_q, norm_k = shape
    block_size = 8
    qkv = random(num_tokens, (num_heads + 2 * num_kv_heads) * head_dim, dtype=dtype)
    positions = torch.randint(0, 50, (num_tokens,), device=DEVICE)
    angles = torch.rand(50, rotary // 2, device=DEVICE) * 7
    cos_sin = torch.cat([angles.cos(), angles.sin()], 1)
    q_weight = random(head_dim, dtype=dtype) if norm_q else None
    k_weight = random(head_dim, dtype=dtype) if norm_k else None
    turn = (qkv, positions, cos_sin, q_weight, k_weight, EPS, num_heads, num_kv_heads, head_dim)
    shape_of_pages = (num_tokens // block_size + 2, num_kv_heads, block_size, head_dim)
    k_pages = torch.zeros(shape_of_pages, device=DEVICE, dtype=dtype)
    v_pages = torch.zeros_like(k_pages)
    slots = torch.randperm(num_tokens + block_size, device=DEVICE)[:num_tokens]

    plain = qk_norm_rope(*turn)
    q, k, v = qk_norm_rope_write(*turn, k_pages, v_pages, slots)

    x = qkv.view(num_tokens, -1, head_dim)
    expected_q, expected_k, expected_v = torch.split(x, [num_heads, num_kv_heads, num_kv_heads], 1)
    for out, source, weight in ((q, expected_q, q_weight), (k, expected_k, k_weight)):
        source = source.double() if weight is None else normed(source, weight)
        tolerance = 4 * ULPS[dtype]
        expected = rotated(source, cos_sin, positions)
        torch.testing.assert_close(out.double(), expected, rtol=tolerance, atol=tolerance)
    assert torch.equal(v, expected_v)
    assert all(torch.equal(a, b) for a, b in zip(plain, (q, k, v), strict=True))
    for page, written in ((k_pages, k), (v_pages, v)):
        assert torch.equal(page[slots // block_size, :, slots % block_size], written)
        assert int(page.ne(0).any(-1).any(1).sum()) == num_tokens


@pytest.mark.parametrize("block_size", [8, 128])
def test_kv_write_stores_each_token_at_its_slot_and_nothing_else(block_size: int) -> None:
    packed = random(9, 5, 80, dtype=torch.bfloat16)
    k, v = packed[:, :2], packed[:, 3:]
    k_pages = torch.zeros((3, 2, block_size, 80), device=DEVICE, dtype=k.dtype)
    v_pages = torch.zeros_like(k_pages)
    slots = torch.randperm(3 * block_size, device=DEVICE)[:9]
    kv_write(k, v, k_pages, v_pages, slots)
    for page, written in ((k_pages, k), (v_pages, v)):
        assert torch.equal(page[slots // block_size, :, slots % block_size], written)
        assert int(page.ne(0).any(-1).any(1).sum()) == 9


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_pages_hold_numbers_whatever_is_written(dtype: torch.dtype) -> None:
    k, v = (random(3, 2, 16, dtype=dtype) for _ in "kv")
    k[0, 0, 3], v[1, 1, 5], v[2, 0, 0] = float("nan"), float("inf"), -float("inf")
    pages = [torch.zeros(2, 2, 16, 16, dtype=dtype, device=DEVICE) for _ in "kv"]
    kv_write(k, v, pages[0], pages[1], torch.tensor([4, 0, 17], device=DEVICE))
    assert all(bool(page.isfinite().all()) for page in pages)
    assert pages[0][0, 0, 4, 3] > 6e4 and pages[1][0, 1, 0, 5] > 6e4
    assert torch.equal(pages[1][1, 1, 1], v[2, 1])


def test_a_step_without_tokens_launches_nothing() -> None:
    none = torch.empty((0, 64), device=DEVICE)
    weight = torch.ones(64, device=DEVICE)
    assert rms_norm(none, weight, EPS).shape == (0, 64)
    assert add_rms_norm(none, none, weight, EPS)[0].shape == (0, 64)
    assert silu_and_mul(none).shape == (0, 32)
    assert gelu_and_mul(none).shape == (0, 32)
