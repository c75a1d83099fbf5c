"""The CPU operations against float64 arithmetic and transformers' own layers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from transformers.models.qwen3.modeling_qwen3 import Qwen3RMSNorm, apply_rotary_pos_emb

from jackfield.compute import ops
from jackfield.compute.native import kernels_for

TOLERANCE = {torch.float32: 2e-6, torch.bfloat16: 2**-8}
DTYPES = list(TOLERANCE)


@pytest.fixture(params=["compiled", "torch"], autouse=True)
def means(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Every law holds with the compiled kernels and where there is no compiler."""
    if request.param == "torch":
        monkeypatch.setattr(ops, "kernels_for", lambda dtype: None)
    elif kernels_for(torch.float32) is None:
        pytest.skip("no C compiler on this machine")
    return str(request.param)


def assert_rounded_once(actual: Tensor, exact: Tensor, size: float = 1.0) -> None:
    """Within one unit in the last place of ``exact``, or of values of ``size`` near zero."""
    tolerance = TOLERANCE[actual.dtype]
    torch.testing.assert_close(actual.double(), exact, rtol=tolerance, atol=tolerance * size)


def exact_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    wide = x.double()
    return wide / (wide.square().mean(-1, keepdim=True) + eps).sqrt() * weight.double()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 64), (5, 1024), (300, 96), (2, 3, 80), (0, 64)])
def test_rms_norm_is_the_float64_norm_rounded_once(
    shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    x = (torch.randn(shape) * 3).to(dtype)
    weight = torch.randn(shape[-1]).to(dtype)
    before = x.clone()
    assert_rounded_once(ops.rms_norm(x, weight, 1e-6), exact_norm(x, weight, 1e-6))
    assert torch.equal(x, before)


def test_rms_norm_of_tiny_values_is_bounded_by_eps() -> None:
    x = torch.full((2, 64), 1e-4)
    assert_rounded_once(ops.rms_norm(x, torch.ones(64), 1e-5), exact_norm(x, torch.ones(64), 1e-5))


def test_rms_norm_in_float32_equals_transformers() -> None:
    x = torch.randn(7, 128)
    norm = Qwen3RMSNorm(128, eps=1e-6)
    torch.nn.init.normal_(norm.weight)
    weight = norm.weight.detach()
    torch.testing.assert_close(ops.rms_norm(x, weight, 1e-6), norm(x).detach())


@pytest.mark.parametrize("dtype", DTYPES)
def test_add_rms_norm_returns_the_sum_and_its_norm(dtype: torch.dtype) -> None:
    x, residual, weight = (torch.randn(s).to(dtype) for s in ((9, 256), (9, 256), (256,)))
    total = x + residual
    normed, new_residual = ops.add_rms_norm(x.clone(), residual.clone(), weight, 1e-6)
    assert torch.equal(new_residual, total)
    assert_rounded_once(normed, exact_norm(total, weight, 1e-6))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", [0, 1, 33])
def test_silu_and_mul_gates_the_second_half_by_the_first(rows: int, dtype: torch.dtype) -> None:
    x = torch.randn(rows, 2 * 96).to(dtype)
    gate, up = x.double().chunk(2, dim=-1)
    # Two roundings: of the gate, and of the product.
    torch.testing.assert_close(
        ops.silu_and_mul(x).double(),
        gate * gate.sigmoid() * up,
        rtol=2 * TOLERANCE[dtype],
        atol=1e-6,
    )


def exact_rope(x: Tensor, angles: Tensor) -> Tensor:
    """x float64 [T, N, D]; angles float64 [T, R / 2]: rotation of the pairs (i, i + R / 2)."""
    half = angles.shape[-1]
    pairs = torch.complex(x[..., :half], x[..., half : 2 * half])
    turned = pairs * torch.polar(torch.ones_like(angles), angles)[:, None]
    return torch.cat((turned.real, turned.imag, x[..., 2 * half :]), -1)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("normed", [(True, True), (False, False), (True, False), (False, True)])
@pytest.mark.parametrize(
    ("heads", "kv_heads", "head_dim", "rotary_dim"),
    [(4, 2, 64, 64), (2, 2, 80, 32), (8, 1, 128, 128), (1, 1, 96, 96), (3, 1, 256, 64)],
)
def test_qk_norm_rope_is_the_float64_one_rounded_once(
    heads: int,
    kv_heads: int,
    head_dim: int,
    rotary_dim: int,
    normed: tuple[bool, bool],
    dtype: torch.dtype,
) -> None:
    tokens = 11
    qkv = torch.randn(tokens, (heads + 2 * kv_heads) * head_dim).to(dtype)
    before = qkv.clone()
    positions = torch.randint(0, 50, (tokens,))
    table = torch.randn(50, rotary_dim // 2, dtype=torch.float64) * 3
    cos_sin = torch.cat((table.cos(), table.sin()), -1).float()
    weights = [torch.rand(head_dim).to(dtype) + 0.5 if n else None for n in normed]
    q, k, v = ops.qk_norm_rope(
        qkv, positions, cos_sin, weights[0], weights[1], 1e-6, heads, kv_heads, head_dim
    )
    parts = torch.split(qkv.double().view(tokens, -1, head_dim), [heads, kv_heads, kv_heads], 1)
    for got, part, weight in zip((q, k), parts[:2], weights, strict=True):
        expected = part if weight is None else exact_norm(part, weight, 1e-6)
        assert got.dtype == dtype
        assert_rounded_once(got, exact_rope(expected, table[positions]), size=4.0)
    assert torch.equal(v.double(), parts[2])
    assert torch.equal(qkv, before)


def test_qk_norm_rope_in_float32_equals_transformers() -> None:
    heads, kv_heads, head_dim, tokens = 4, 2, 64, 9
    qkv = torch.randn(tokens, (heads + 2 * kv_heads) * head_dim)
    norms = [Qwen3RMSNorm(head_dim, eps=1e-6) for _ in range(2)]
    for norm in norms:
        torch.nn.init.normal_(norm.weight)
    frequencies = 10000.0 ** -(torch.arange(0, head_dim, 2) / head_dim)
    angles = torch.outer(torch.arange(100.0), frequencies)
    positions = torch.randint(0, 100, (tokens,))
    q, k, _ = ops.qk_norm_rope(
        qkv,
        positions,
        torch.cat((angles.cos(), angles.sin()), -1),
        norms[0].weight.detach(),
        norms[1].weight.detach(),
        1e-6,
        heads,
        kv_heads,
        head_dim,
    )
    parts = qkv.view(tokens, -1, head_dim)
    doubled = torch.cat((angles, angles), -1)[positions][None]
    expected_q, expected_k = apply_rotary_pos_emb(
        norms[0](parts[:, :heads]).transpose(0, 1)[None],
        norms[1](parts[:, heads : heads + kv_heads]).transpose(0, 1)[None],
        doubled.cos(),
        doubled.sin(),
    )
    torch.testing.assert_close(q, expected_q[0].transpose(0, 1).detach())
    torch.testing.assert_close(k, expected_k[0].transpose(0, 1).detach())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("width", [1, 7, 256, 257, 4099])
def test_greedy_takes_the_first_of_the_largest_and_writes_it(
    dtype: torch.dtype, width: int
) -> None:
    rows, positions = torch.tensor([3, 0, 2, 1, 5]), torch.tensor([0, 3, 1, 3, 2])
    # Few different numbers: most rows have their largest several times, or it is a zero.
    logits = torch.randint(-3, 4, (5, width)).to(dtype) / 2
    logits[3] = torch.where(torch.rand(width) < 0.5, 0.0, -0.0)
    logits[4] = -logits[4].abs() - 1
    token_ids = torch.full((6, 4), -9, dtype=torch.int32)
    wanted = torch.tensor([row.index(max(row)) for row in logits.double().tolist()])
    untouched = token_ids.clone().index_put_((rows, positions), wanted.int())
    chosen = ops.choose_greedily(logits, rows, positions, token_ids)
    assert chosen.dtype is torch.int32
    assert chosen.tolist() == wanted.tolist()
    assert torch.equal(token_ids, untouched)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("bad", [float("nan"), -float("nan"), float("inf")])
def test_greedy_finds_no_token_where_a_logit_is_no_number(dtype: torch.dtype, bad: float) -> None:
    logits = torch.randn(4, 600).to(dtype)
    logits[1, 431] = bad
    logits[2] = -float("inf")
    logits[3, 1:] = -float("inf")
    token_ids = torch.zeros((4, 1), dtype=torch.int32)
    first = torch.arange(4)
    chosen = ops.choose_greedily(logits, first, torch.zeros(4, dtype=torch.int64), token_ids)
    assert chosen.tolist() == [int(logits[0].double().argmax()), -1, -1, 0]
    assert ((0 <= token_ids) & (token_ids < 600)).all()
