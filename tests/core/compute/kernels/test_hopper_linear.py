from __future__ import annotations

import pytest
import torch

from jackfield.compute.kernels import few_rows, hopper_linear
from jackfield.compute.kernels.linear_config import float8_config, linear_config

SHAPES = [(4096, 1024), (1024, 2048), (6144, 4096), (4096, 12288), (151936, 1024), (896, 4864)]
SHARED_BYTES = 227 * 1024


@pytest.mark.parametrize(("n", "k"), SHAPES)
@pytest.mark.parametrize("m", [1, 2, 16, 17, 32, 33, 64, 65, 128, 129, 200, 256])
@pytest.mark.parametrize("itemsize", [1, 2])
def test_a_configuration_fits_a_processor_and_covers_the_inner_dimension(
    m: int, n: int, k: int, itemsize: int
) -> None:
    if itemsize == 1 and m > hopper_linear.MAX_FLOAT8_ROWS:
        return
    config = float8_config(m, n, k) if itemsize == 1 else linear_config(m, n, k)
    tile = (config.block_n + config.block_m) * config.block_k * itemsize
    steps = -(-k // (config.block_k * config.split))
    assert 1 <= config.stages <= steps and config.stages * tile < SHARED_BYTES
    # A stage that is filled again while a product runs is another one than that product's.
    assert config.pending < config.stages or steps == 1
    assert config.split * n <= 8192 or config.split == 1


def test_what_it_takes_is_said_by_shape_and_dtype() -> None:
    assert hopper_linear.takes(1, 1024, 2048, torch.bfloat16)
    assert hopper_linear.takes(64, 6144, 4096, torch.float16)
    assert hopper_linear.takes(256, 6144, 1024, torch.bfloat16)
    assert not hopper_linear.takes(65, 6144, 4096, torch.bfloat16)  # cuBLAS is as fast
    assert not hopper_linear.takes(257, 6144, 1024, torch.bfloat16)
    assert not hopper_linear.takes(8, 1024, 2044, torch.bfloat16)
    assert not hopper_linear.takes(8, 1024, 2048, torch.float32)


def test_norms_are_in_products_where_both_products_are_here() -> None:
    def weight(n: int, k: int) -> torch.Tensor:
        return torch.empty((n, k), dtype=torch.bfloat16, device="meta")

    small, large = weight(1024, 1024), weight(24576, 4096)
    assert hopper_linear.fuses(256, small, small)
    assert hopper_linear.fuses(64, large, large) and not hopper_linear.fuses(256, small, large)
    assert not hopper_linear.fuses(8, small, weight(1000, 1024))  # rows come in groups of 16


def test_rows_in_numbers_that_no_kernel_is_made_for_are_left_to_others() -> None:
    x, w = torch.zeros(300, 64), torch.zeros(8, 64)
    assert few_rows.linear(x, w, None) is None
