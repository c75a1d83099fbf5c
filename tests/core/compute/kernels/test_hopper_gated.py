from __future__ import annotations

import pytest
import torch

from jackfield.compute.kernels import few_rows, hopper_gated

GATE_UP = (24576, 4096)


@pytest.mark.parametrize("rows", [65, 128, 224, 256, 384, 512, 1024, 2048, 8192, 32000])
def test_the_gate_of_a_large_weight_is_multiplied_here(rows: int) -> None:
    assert hopper_gated.takes(rows, *GATE_UP, torch.bfloat16)


@pytest.mark.parametrize("rows", [1, 64, 129, 192, 257, 320, 530])
def test_rows_that_would_leave_a_tile_half_empty_are_left_to_others(rows: int) -> None:
    assert not hopper_gated.takes(rows, *GATE_UP, torch.bfloat16)


def test_what_it_takes_is_said_by_shape_and_dtype() -> None:
    assert hopper_gated.takes(128, *GATE_UP, torch.float16)
    assert not hopper_gated.takes(128, *GATE_UP, torch.float32)
    assert hopper_gated.takes(1024, 6144, 1024, torch.bfloat16)
    assert not hopper_gated.takes(1024, 4096, 1024, torch.bfloat16)
    assert not hopper_gated.takes(128, 24584, 4096, torch.bfloat16)  # halves of whole eights
    assert not hopper_gated.takes(128, 24576, 4092, torch.bfloat16)


def test_without_such_a_device_the_gate_is_a_kernel_of_its_own() -> None:
    x, w = torch.zeros(128, 4096), torch.zeros(8192, 4096)
    assert few_rows.linear_gated(x, w, None) is None
