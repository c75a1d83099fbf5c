"""Products by coded weights against float64, for every kind of code."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from jackfield.compute.layers import coded_weight
from jackfield.compute.layers.coded_weight import CodedWeight
from jackfield.compute.native import code_kernels_for

E2M1 = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6])
TABLES = {
    "int4": (4, torch.arange(16) - 8.0),
    "fp4": (4, torch.cat((E2M1, -E2M1))),
    "int8": (8, None),
    "e4m3": (8, torch.arange(256).to(torch.uint8).view(torch.float8_e4m3fn).float()),
}


@pytest.fixture(params=["compiled", "torch"], autouse=True)
def means(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Every law holds with the compiled kernels and where there is no compiler."""
    if request.param == "torch":
        monkeypatch.setattr(coded_weight, "code_kernels_for", lambda dtype: None)
    elif code_kernels_for(torch.float32) is None:
        pytest.skip("no C compiler on this machine")
    return str(request.param)


def make(
    kind: str, num_rows: int, inputs: int, groups: int, shifted: bool
) -> tuple[CodedWeight, Tensor]:
    """A random weight and its numbers in float64."""
    bits, table = TABLES[kind]
    codes = torch.randint(0, 2**bits, (num_rows, inputs))
    if kind == "e4m3":
        codes[codes & 0x7F == 0x7F] = 0  # NaN
    entries = codes.to(torch.uint8).view(torch.int8).double()
    if table is not None:
        entries = table.double()[codes]
    scales = torch.rand(num_rows, groups) * 0.1
    shifts = torch.randn(num_rows, groups) if shifted else None
    exact = entries.view(num_rows, groups, -1) * scales.double()[..., None]
    if shifts is not None:
        exact += shifts.double()[..., None]
    stored = codes.to(torch.uint8).view(torch.int8) if table is None else codes
    weight = CodedWeight.pack(stored, scales, bits=bits, table=table, shifts=shifts)
    return weight, exact.view(num_rows, inputs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", list(TABLES))
@pytest.mark.parametrize(
    ("num_rows", "inputs", "groups", "shifted"),
    [
        (33, 256, 2, True),
        (16, 192, 12, False),
        (5, 96, 1, True),
        (64, 96, 3, True),
        (8, 80, 5, False),
    ],
)
@pytest.mark.parametrize("num_tokens", [1, 3, 4, 9, 20])
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
    assert weight.shape == (num_rows, inputs)
    x, bias = torch.randn(num_tokens, inputs).to(dtype), torch.randn(num_rows).to(dtype)
    out = weight.multiply(x, bias)
    expected = x.double() @ exact.T + bias.double()
    assert out.dtype is dtype
    error = (out.double() - expected).norm() / expected.norm()
    assert float(error) < (1e-5 if dtype is torch.float32 else 2e-2)
    torch.testing.assert_close(weight.decode(torch.float64), exact, rtol=1e-6, atol=1e-6)


def test_groups_that_are_no_power_of_2_are_multiplied_too() -> None:
    weight, exact = make("int4", 8, 192, 2, False)
    assert weight.group_size == 96
    x = torch.randn(3, 192)
    torch.testing.assert_close(
        weight.multiply(x).double(), x.double() @ exact.T, rtol=1e-4, atol=1e-4
    )


def test_four_bits_take_half_a_byte() -> None:
    assert make("int4", 8, 128, 1, False)[0].packed.nbytes == 8 * 128 // 2


def test_shapes_that_cannot_be_packed_are_refused() -> None:
    with pytest.raises(ValueError, match="65 inputs are not 2 groups"):
        CodedWeight.pack(torch.zeros(2, 65, dtype=torch.int8), torch.ones(2, 2), bits=8)
