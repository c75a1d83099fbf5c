"""What can be said of Gluon's kernels for codes without a GPU: what they take, and what fits."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from tests.core.compute.kernels.coded_cases import Format, make_codes

from jackfield.compute.kernels import coded_hopper, coded_row, coded_rows
from jackfield.compute.kernels.coded_layout import DeviceCodes
from jackfield.compute.kernels.coded_row import RowConfig

CPU = torch.device("cpu")
SHARED_BYTES = 227 * 1024
SHAPES = [(48, 1024), (48, 640), (32, 2048), (5120, 4096), (32, 4096), (32, 12288), (16, 28672)]


def codes_of(kind: str, outputs: int, inputs: int, groups: int, shifted: bool) -> DeviceCodes:
    return make_codes(Format(kind, outputs, inputs, groups, shifted), CPU)[0]


@pytest.mark.parametrize(("outputs", "inputs"), SHAPES)
@pytest.mark.parametrize("kind", ["int4", "e4m3"])
@pytest.mark.parametrize("choose", [coded_row.row_config, coded_row.gated_config])
def test_a_row_and_some_steps_fit_a_processor(
    kind: str, outputs: int, inputs: int, choose: Callable[[DeviceCodes], RowConfig]
) -> None:
    codes = codes_of(kind, outputs, inputs, 1, False)
    config = choose(codes)
    step = config.unroll * config.warps * 64
    stage_bytes = config.strips * 16 * step * codes.bits // 8
    num_steps = -(-inputs // step)
    assert coded_row.takes(codes) and num_steps >= 2
    assert min(config.stages, num_steps) * stage_bytes + num_steps * step * 2 < SHARED_BYTES


@pytest.mark.parametrize("num_rows", [2, 8, 17, 64, 128, 300])
@pytest.mark.parametrize("kind", ["int4", "e4m3"])
def test_some_rows_and_some_steps_fit_a_processor(kind: str, num_rows: int) -> None:
    codes = codes_of(kind, 64, 4096, 1, False)
    config = coded_rows.rows_config(num_rows, codes)
    step = config.unroll * 64
    stage_bytes = config.groups * 64 * step * codes.bits // 8
    row_bytes = config.depth * config.rows * step * 2
    assert config.groups in (1, 2, 3, 4) and config.rows in (8, 16, 32, 64, 128)
    # The sums take another way to memory, half of them at once.
    sums = config.groups * 64 * config.rows * 2
    assert config.stages * stage_bytes + row_bytes + sums < SHARED_BYTES


def test_what_they_take_is_said_by_bits_groups_and_length() -> None:
    assert coded_row.takes(codes_of("int4", 32, 1024, 16, True))
    assert coded_row.takes(codes_of("int4", 32, 1024, 32, False))
    assert coded_row.takes(codes_of("int8", 32, 1024, 1, False))
    assert not coded_row.takes(codes_of("int4", 32, 1024, 64, False))  # groups of 16
    assert not coded_row.takes(codes_of("int8", 32, 1024, 32, False))  # groups of 32
    assert not coded_row.takes(codes_of("int4", 32, 512, 8, False))  # one step
    assert coded_row.takes_gated(codes_of("int4", 32, 1024, 16, False))
    assert not coded_row.takes_gated(codes_of("int4", 48, 1024, 16, False))  # halves of 24
    assert coded_rows.takes(codes_of("fp4", 32, 1024, 64, True))
    assert not coded_rows.takes(codes_of("int8", 32, 1024, 32, False))
    assert coded_rows.takes_gated(codes_of("int4", 64, 1024, 16, False))
    assert not coded_rows.takes_gated(codes_of("int4", 32, 1024, 16, False))  # halves of one strip
    assert coded_hopper.takes(1, codes_of("int4", 32, 1024, 64, False))  # by the kernel for rows
    assert not coded_hopper.takes(1, codes_of("int8", 32, 1024, 32, False))
