"""Products by coded weights in the interpreter against float64."""

from __future__ import annotations

import pytest
import tests.interpreter
import torch
from tests.core.compute.kernels.coded_cases import Format, make, make_codes
from torch import Tensor

from jackfield.compute.kernels.coded import (
    CodedConfig,
    coded_config,
    fits,
    linear_codes,
)
from jackfield.compute.kernels.coded_decode import decoded
from jackfield.compute.kernels.coded_layout import device_codes
from jackfield.compute.layers.coded_weight import CodedWeight

DEVICE = tests.interpreter.DEVICE

# Every kind of code and of group: a whole row, whole blocks, parts of a block; outputs that fill no
# strip, inputs that fill no block.
FORMATS = [
    Format("int4", 32, 256, 2, False),
    Format("int4", 24, 128, 2, True),
    Format("int4", 33, 80, 1, False),
    Format("int4", 32, 128, 1, True),
    Format("int4", 32, 192, 6, True),
    Format("fp4", 32, 128, 8, False),
    Format("fp4", 32, 128, 2, False),
    Format("any", 32, 128, 2, False),
    Format("int8", 32, 192, 1, False),
    Format("int8", 24, 192, 3, True),
    Format("int8", 32, 128, 4, True),
    Format("e4m3", 32, 160, 5, False),
    Format("e4m3", 32, 256, 2, False),
    Format("e5m2", 32, 128, 1, False),
]
CONFIGS = [
    CodedConfig(1, 1, 1, 1, 1, 1),
    CodedConfig(2, 1, 1, 2, 1, 1),
    CodedConfig(2, 2, 1, 1, 1, 1),
    CodedConfig(1, 1, 2, 2, 2, 2),
    CodedConfig(4, 1, 2, 1, 1, 2),
]


def error(actual: Tensor, expected: Tensor) -> float:
    return float((actual.double() - expected).norm() / expected.norm())


@pytest.mark.parametrize("form", FORMATS, ids=str)
def test_products_agree_with_float64_however_they_are_cut(form: Format) -> None:
    torch.manual_seed(0)
    codes, exact = make_codes(form, DEVICE)
    bias = torch.randn(form.outputs).to(DEVICE).half()
    fitting = [config for config in CONFIGS if fits(config, codes)]
    for number in (FORMATS.index(form), FORMATS.index(form) + 2):
        config = fitting[number % len(fitting)]
        x = torch.randn(8 * config.eights - number % 8, form.inputs).to(DEVICE).half()
        expected = x.double() @ exact.T + bias.double()
        # Twice: a split launch must leave its arrival counts as it found them.
        for _ in range(1 + (config.split > 1)):
            out = linear_codes(x, codes, bias, config)
            assert out.shape == expected.shape and out.dtype is x.dtype
            assert error(out, expected) < 6e-4


def test_rows_beyond_a_tile_and_no_bias() -> None:
    torch.manual_seed(0)
    codes, exact = make_codes(Format("int4", 16, 128, 1, False), DEVICE)
    x = torch.randn(19, 128).to(DEVICE).half()
    assert error(linear_codes(x, codes, None, CONFIGS[0]), x.double() @ exact.T) < 6e-4


@pytest.mark.parametrize("form", FORMATS, ids=str)
def test_decoded_numbers_are_the_coded_ones(form: Format) -> None:
    torch.manual_seed(0)
    codes, exact = make_codes(form, DEVICE)
    assert error(decoded(codes, torch.float16), exact) < 6e-4
    if codes.outputs > 16:
        some = codes.rows(slice(16, codes.outputs))
        assert error(decoded(some, torch.float32), exact[16:]) < 6e-4


def test_the_chosen_configuration_stays_within_a_group() -> None:
    for form in (
        *FORMATS,
        Format("int4", 4096, 4096, 64, False),
        Format("int8", 512, 512, 4, False),
    ):
        codes, _ = make_codes(form, DEVICE)
        assert all(fits(coded_config(rows, codes), codes) for rows in (1, 8, 16, 30, 64, 200))


def test_what_the_kernels_have_no_way_with_is_left_to_others() -> None:
    assert device_codes(make(Format("int4", 16, 192, 2, False), DEVICE)[0]) is None  # groups of 96
    table = torch.randn(256, device=DEVICE)
    codes = torch.randint(0, 256, (16, 64), device=DEVICE)
    scales = torch.ones(16, 1, device=DEVICE)
    assert device_codes(CodedWeight.pack(codes, scales, bits=8, table=table)) is None


def test_eight_bits_stay_where_they_are() -> None:
    weight, _ = make(Format("e4m3", 32, 128, 1, False), DEVICE)
    codes = device_codes(weight)
    assert codes is not None and codes.words.data_ptr() == weight.packed.data_ptr()
