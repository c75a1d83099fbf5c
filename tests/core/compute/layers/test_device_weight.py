"""E4M3 weights whose inputs are rounded, from product to product, in Triton's interpreter."""

from __future__ import annotations

import pytest
import tests.interpreter
import torch
import torch.nn.functional as F
from torch import Tensor

from jackfield.compute.kernels import float8
from jackfield.compute.kernels.scaled_rows import RoundedRows
from jackfield.compute.layers.coded_weight import CodedWeight
from jackfield.compute.layers.device_weight import DeviceWeight

DEVICE = tests.interpreter.DEVICE
EPS = 1e-6
HIDDEN, INNER = 64, 128


def weight_of(outputs: int, inputs: int) -> tuple[DeviceWeight, Tensor]:
    """E4M3 by channel, and the same numbers in float64."""
    numbers = torch.randn(outputs, inputs)
    scales = numbers.abs().amax(1, keepdim=True) / 448
    codes = (numbers / scales).to(torch.float8_e4m3fn)
    table = torch.arange(256, dtype=torch.uint8).view(torch.float8_e4m3fn).float()
    coded = CodedWeight.pack(codes.view(torch.uint8), scales, bits=8, table=table)
    weight = DeviceWeight.rounding_inputs(coded, None)
    assert weight is not None
    return weight, codes.double() * scales.double()


def error(actual: Tensor, expected: Tensor) -> float:
    return float((actual.double() - expected).norm() / expected.norm())


def test_rows_pass_from_product_to_product_rounded() -> None:
    o, exact_o = weight_of(HIDDEN, HIDDEN)
    gate_up, exact_gate_up = weight_of(2 * INNER, HIDDEN)
    down, exact_down = weight_of(HIDDEN, INNER)
    x = torch.randn(5, HIDDEN).to(DEVICE, torch.bfloat16)
    residual, norm = torch.randn(5, HIDDEN).bfloat16(), torch.rand(HIDDEN).bfloat16()
    total = residual.double() + x.double() @ exact_o.T
    normed = total * torch.rsqrt(total.square().mean(-1, keepdim=True) + EPS) * norm.double()
    gate, up = (normed @ exact_gate_up.T).chunk(2, -1)
    inner = F.silu(gate) * up

    passed = o.multiply_add(x, None, residual, norm, EPS, gate_up)
    assert isinstance(passed, RoundedRows)
    assert error(residual, total) < 0.03
    assert error(passed.rows.double() * passed.scales.double(), normed) < 0.05
    gated = gate_up.multiply_gated(passed, None, down)
    assert isinstance(gated, RoundedRows)
    assert error(gated.rows.double() * gated.scales.double(), inner) < 0.08
    assert error(down.multiply_passed(gated), inner @ exact_down.T) < 0.1


@pytest.mark.parametrize("rows", [1, 5])
def test_what_the_reader_does_not_round_stays_plain(rows: int) -> None:
    o, _ = weight_of(HIDDEN, HIDDEN)
    plain = DeviceWeight(o.codes)
    x = torch.randn(rows, HIDDEN).to(DEVICE, torch.bfloat16)
    residual = x.clone()
    assert plain.rounding(rows, x.dtype) is None
    assert o.multiply_add(x, None, residual, x[0], EPS, plain) is None
    assert o.multiply_gated(x, None, plain) is None
    assert torch.equal(residual, x)


def test_a_row_alone_is_not_rounded() -> None:
    weight, _ = weight_of(HIDDEN, HIDDEN)
    assert weight.rounding(1, torch.bfloat16) is None
    assert weight.rounding(2, torch.bfloat16) is not None
    assert weight.rounding(2, torch.float16) is None


def test_a_gpu_that_knows_no_e4m3_rounds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    weight, _ = weight_of(HIDDEN, HIDDEN)
    assert weight.rounding(5, torch.bfloat16) is not None
    monkeypatch.setattr(float8, "converts_e4m3", lambda device: False)
    assert weight.rounding(5, torch.bfloat16) is None


def test_only_hopper_multiplies_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    codes = torch.zeros(256, 256, dtype=torch.uint8)
    table = torch.arange(256, dtype=torch.uint8).view(torch.float8_e4m3fn).float()
    coded = CodedWeight.pack(codes, torch.ones(256, 2), bits=8, table=table)
    weight = DeviceWeight.rounding_inputs(coded, None)
    assert weight is not None
    assert weight.rounding(512, torch.bfloat16) is not None
    monkeypatch.setattr(float8, "multiplies_blocks", lambda device: False)
    assert weight.rounding(512, torch.bfloat16) is None


@pytest.mark.parametrize(
    ("capability", "blocks"), [((8, 9), False), ((9, 0), True), ((12, 0), False)]
)
def test_what_a_gpu_multiplies(
    capability: tuple[int, int], blocks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert float8.multiplies_blocks.__wrapped__(torch.device("cuda", 0)) is blocks
