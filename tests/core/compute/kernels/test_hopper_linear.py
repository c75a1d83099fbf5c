from __future__ import annotations

import pytest
import torch

from jackfield.compute.kernels import few_rows, hopper_linear

SHAPES = [(4096, 1024), (1024, 2048), (6144, 4096), (4096, 12288), (151936, 1024), (896, 4864)]
SHARED_BYTES = 227 * 1024


@pytest.mark.parametrize(("n", "k"), SHAPES)
@pytest.mark.parametrize("m", [2, 16, 17, 32, 33, 64])
def test_a_configuration_fits_a_processor_and_covers_the_inner_dimension(
    m: int, n: int, k: int
) -> None:
    config = hopper_linear.linear_config(m, n, k)
    rows = 64 + max(16, 1 << (m - 1).bit_length())
    assert 1 <= config.stages and config.stages * rows * config.block_k * 2 < SHARED_BYTES
    assert (config.stages - 1) * config.block_k * config.split < k + config.block_k * config.split
    assert config.split * n <= 8192 or config.split == 1


def test_what_it_takes_is_said_by_shape_and_dtype() -> None:
    assert hopper_linear.supports(2, 1024, 2048, torch.bfloat16)
    assert hopper_linear.supports(64, 6144, 4096, torch.float16)
    assert hopper_linear.supports(64, 4096, 12288, torch.bfloat16)
    assert not hopper_linear.supports(64, 4096, 4096, torch.bfloat16)  # cuBLAS is as fast
    assert not hopper_linear.supports(65, 6144, 4096, torch.bfloat16)
    assert not hopper_linear.supports(1, 6144, 4096, torch.bfloat16)
    assert not hopper_linear.supports(8, 1024, 2044, torch.bfloat16)
    assert not hopper_linear.supports(8, 1024, 2048, torch.float32)


def test_rows_in_numbers_that_no_kernel_is_made_for_are_left_to_others() -> None:
    x, w = torch.zeros(300, 64), torch.zeros(8, 64)
    assert few_rows.linear(x, w, None) is None
