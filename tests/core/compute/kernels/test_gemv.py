from __future__ import annotations

import pytest
import tests.interpreter
import torch

from jackfield.compute.kernels import gemv
from jackfield.compute.kernels.gemv import (
    GemvConfig,
    WideConfig,
    linear_small,
)

DEVICE = tests.interpreter.DEVICE


def relative_error(
    shape: tuple[int, int, int],
    dtype: torch.dtype,
    bias: bool,
    config: GemvConfig | WideConfig | None = None,
) -> float:
    torch.manual_seed(0)
    m, n, k = shape
    x = torch.randn(m, k).to(DEVICE, dtype)
    w = torch.randn(n, k).to(DEVICE, dtype)
    b = torch.randn(n).to(DEVICE, dtype) if bias else None
    expected = x.double() @ w.double().T + (b.double() if b is not None else 0)
    out = linear_small(x, w, b, config)
    assert out.shape == (m, n) and out.dtype == dtype
    return float((out.double() - expected).norm() / expected.norm())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("config", [GemvConfig(1, 256, 1), GemvConfig(4, 128, 2)])
def test_one_row_agrees_with_float64(dtype: torch.dtype, config: GemvConfig) -> None:
    tolerance = {torch.float32: 1e-6, torch.float16: 5e-4, torch.bfloat16: 8e-3}[dtype]
    for n, k in ((7, 320), (8, 256), (6, 72)):
        for bias in (False, True):
            assert relative_error((1, n, k), dtype, bias, config) < tolerance


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("n", "k"), [(7, 320), (70, 1536), (64, 128)])
def test_a_gated_row_agrees_with_float64(bias: bool, n: int, k: int) -> None:
    torch.manual_seed(0)
    x, w = torch.randn(1, k).to(DEVICE).half(), torch.randn(2 * n, k).to(DEVICE).half() / 20
    b = torch.randn(2 * n).to(DEVICE).half() if bias else None
    product = x.double() @ w.double().T + (b.double() if b is not None else 0)
    gate, up = product.chunk(2, -1)
    expected = torch.nn.functional.silu(gate) * up
    out = gemv.gemv_gated(x, w, b)
    assert out.shape == (1, n) and out.dtype == x.dtype
    assert float((out.double() - expected).norm() / expected.norm()) < 1e-3


@pytest.mark.parametrize("num_rows", [2, 5, 16])
def test_few_rows_agree_with_float64_however_the_inner_dimension_is_split(num_rows: int) -> None:
    for split in (1, 2, 4):
        config = WideConfig(32, 32, 3, split)
        # Twice: a split launch must leave its arrival counts as it found them.
        for bias in (False, True):
            assert relative_error((num_rows, 72, 256), torch.float16, bias, config) < 5e-4


def test_inner_dimensions_that_fill_no_tile_agree_with_float64() -> None:
    assert relative_error((3, 40, 72), torch.float16, True, WideConfig(32, 32, 3, 1)) < 5e-4


@pytest.mark.parametrize(
    ("n", "k"), [(4096, 1024), (1024, 3072), (4096, 14336), (4096, 11008), (3584, 18944), (896, 72)]
)
def test_every_chosen_split_divides_the_inner_dimension_into_whole_tiles(n: int, k: int) -> None:
    config = gemv.wide_config(n, k)
    assert config.split == 1 or k % (config.split * config.block_k) == 0
    assert config.split == 1 or n <= gemv._MAX_SPLIT_OUTPUTS


def test_supports_names_what_is_taken() -> None:
    assert gemv.supports(1, 5, 64, torch.float32)
    assert gemv.supports(16, 1024, 2048, torch.bfloat16)
    assert not gemv.supports(17, 1024, 2048, torch.bfloat16)
    assert not gemv.supports(2, 1024, 2048, torch.float32)
    assert not gemv.supports(1, 1024, 2044, torch.bfloat16)
    assert not gemv.supports(0, 1024, 2048, torch.bfloat16)
