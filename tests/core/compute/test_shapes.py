"""Padded sizes: never too small, never much too large, and few of them."""

from __future__ import annotations

import pytest

from jackfield.compute.shapes import padded_keys, padded_rows, power_of_2_below


def test_rows_grow_by_a_sixteenth_or_to_the_next_multiple_of_8() -> None:
    for n in range(1, 5000):
        assert n <= padded_rows(n) <= n + max(7, n // 16)
        assert padded_rows(padded_rows(n)) == padded_rows(n)


def test_few_numbers_of_rows_remain() -> None:
    assert len({padded_rows(n) for n in range(1, 2049)}) < 90
    assert padded_rows(0) == 0


@pytest.mark.parametrize("block_size", [1, 8, 16, 48, 128])
def test_keys_fill_whole_blocks(block_size: int) -> None:
    for n in range(1, 3000):
        padded = padded_keys(n, block_size)
        assert padded % block_size == 0
        assert n <= padded < n + max(32, n // 8) + 2 * block_size


def test_power_of_2_below_is_the_largest_that_fits() -> None:
    assert [power_of_2_below(n) for n in (0, 1, 2, 3, 4, 7, 8, 1000)] == [1, 1, 2, 2, 4, 4, 8, 512]
