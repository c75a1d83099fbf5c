"""Products by tiles of codes against float64; the numbers are exactly the coded weight's."""

from __future__ import annotations

import pytest
import torch
from tests.core.compute.layers.test_coded_weight import make

from jackfield.compute.layers.coded_weight import CodedWeight
from jackfield.compute.layers.tiled_weight import TiledWeight
from jackfield.compute.native.code_tiles import Coding, tile_kernels_for

pytestmark = pytest.mark.skipif(
    tile_kernels_for(torch.bfloat16) is None, reason="the processor has no AVX-512 VNNI"
)
DTYPES = (torch.bfloat16, torch.float16)
SHAPES = [
    (33, 256, 2, True),
    (16, 192, 12, False),
    (5, 96, 1, True),
    (64, 96, 3, True),
    (8, 80, 5, False),
    (100, 1024, 16, True),
    (47, 4096, 1, False),
]
CODINGS = {"int4": Coding.HALVES, "fp4": Coding.LOOKED_UP, "int8": Coding.BYTES}


def tiled(weight: CodedWeight, dtype: torch.dtype = torch.bfloat16) -> TiledWeight:
    found = TiledWeight.of(weight, dtype)
    assert found is not None
    return found


def error(weight: TiledWeight, exact: torch.Tensor, x: torch.Tensor) -> float:
    """Of the product, relative to what it sums up: the sum may be nearly 0."""
    expected = x.double() @ exact.T
    size = x.double().norm(dim=1, keepdim=True) * exact.norm(dim=1)
    return float(((weight.multiply(x).double() - expected) / size).abs().max())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", list(CODINGS))
@pytest.mark.parametrize(("num_rows", "inputs", "groups", "shifted"), SHAPES)
@pytest.mark.parametrize("num_tokens", [1, 2, 3, 5, 6, 7, 20, 300])
def test_the_product_is_the_float64_one(
    kind: str,
    num_rows: int,
    inputs: int,
    groups: int,
    shifted: bool,
    num_tokens: int,
    dtype: torch.dtype,
) -> None:
    weight, exact = make(kind, num_rows, inputs, groups, shifted)
    found = tiled(weight, dtype)
    assert found.shape == (num_rows, inputs) and found.tiles.coding is CODINGS[kind]
    x = torch.randn(num_tokens, inputs).to(dtype)
    x[0] *= torch.logspace(-3, 1, inputs).to(dtype)  # each group has a scale of its own
    x[-1, ::7] = 0
    assert error(found, exact, x) < 1e-2
    bias = torch.randn(num_rows).to(dtype)
    torch.testing.assert_close(found.multiply(x, bias), found.multiply(x) + bias)


@pytest.mark.parametrize("kind", list(CODINGS))
@pytest.mark.parametrize(("num_rows", "inputs", "groups", "shifted"), SHAPES)
def test_the_numbers_are_those_of_the_codes(
    kind: str, num_rows: int, inputs: int, groups: int, shifted: bool
) -> None:
    weight, _ = make(kind, num_rows, inputs, groups, shifted)
    found = tiled(weight)
    assert torch.equal(found.decode(torch.float32), weight.decode(torch.float32))
    rows = torch.tensor([num_rows - 1, 0, 3, 3])
    assert torch.equal(found.look_up(rows, torch.bfloat16), weight.decode(torch.bfloat16)[rows])


def test_eight_bits_by_channel_have_activations_of_sixteen() -> None:
    by_channel, exact = make("int8", 64, 1024, 1, False)
    grouped, exact_grouped = make("int8", 64, 1024, 32, False)
    x = torch.randn(9, 1024).half()
    fine, coarse = tiled(by_channel, torch.float16), tiled(grouped, torch.float16)
    assert (fine.tiles.planes, coarse.tiles.planes) == (2, 1)
    # Outputs of float16 are themselves exact to 5e-4 of their size.
    assert error(fine, exact, x) < 1e-4 < error(coarse, exact_grouped, x) < 1e-3


def test_codes_that_fit_into_six_bits_take_six() -> None:
    codes = torch.randint(-32, 32, (32, 128), dtype=torch.int8)
    scales = torch.rand(32, 8).half().float()
    weight = CodedWeight.pack(codes, scales, bits=8)
    found = tiled(weight)
    assert found.tiles.coding is Coding.SIX
    assert found.nbytes == 32 * 128 * 6 // 8 + scales.numel() * 2
    exact = codes.double() * scales.double().repeat_interleave(16, 1)
    assert torch.equal(found.decode(torch.float64), exact)
    assert error(found, exact, torch.randn(11, 128).bfloat16()) < 1e-2


def test_scales_of_two_levels_stay_two() -> None:
    lower, upper = torch.randint(-128, 128, (20, 2, 16)), torch.rand(20, 2).half()
    codes = torch.randint(0, 16, (20, 512))
    scales = (lower * upper.float()[..., None]).flatten(1)
    weight = CodedWeight.pack(
        codes, scales, bits=4, table=torch.arange(16) - 8.0, upper_scales=upper
    )
    found = tiled(weight)
    assert found.tiles.scales.dtype is torch.int8
    assert torch.equal(found.decode(torch.float32), weight.decode(torch.float32))
    exact = weight.decode(torch.float64)
    assert error(found, exact, torch.randn(3, 512).bfloat16()) < 1e-2


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_is_not_hidden(value: float) -> None:
    weight, _ = make("int4", 16, 128, 2, False)
    x = torch.randn(3, 128).bfloat16()
    x[1, 77] = value
    out = tiled(weight).multiply(x)
    assert not bool(out[1].isfinite().any()) and bool(out[[0, 2]].isfinite().all())


def test_other_weights_and_activations_are_left_to_the_codes() -> None:
    assert TiledWeight.of(make("int4", 16, 128, 2, False)[0], torch.float32) is None
    assert TiledWeight.of(make("int4", 8, 192, 2, False)[0], torch.bfloat16) is None
    assert TiledWeight.of(make("e4m3", 16, 128, 2, False)[0], torch.bfloat16) is None
    quantiles = torch.linspace(-1, 1, 16).tanh()
    codes = torch.randint(0, 16, (16, 128))
    weight = CodedWeight.pack(codes, torch.rand(16, 2), bits=4, table=quantiles)
    assert TiledWeight.of(weight, torch.bfloat16) is None


def test_a_product_of_another_dtype_is_one_by_the_numbers() -> None:
    weight, exact = make("int4", 16, 128, 2, False)
    x = torch.randn(2, 128)
    torch.testing.assert_close(
        tiled(weight).multiply(x).double(), x.double() @ exact.T, rtol=1e-4, atol=1e-4
    )
