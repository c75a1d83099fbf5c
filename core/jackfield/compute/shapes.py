"""Sizes rounded up, because on the CPU every new shape of a matrix product costs.

oneDNN generates machine code for each shape: 1 to 2 ms and 0.6 MiB that stay.
"""

from __future__ import annotations


def padded_rows(n: int) -> int:
    """Rows of activations to compute for n of them: at most 1/16 more where it takes time; where
    reading the weights takes the time, below 32 rows, the next multiple of 4."""
    step = 4 if n <= 32 else max(8, power_of_2_below(n) // 16)
    return -(-n // step) * step


def padded_keys(n: int, block_size: int) -> int:
    """Keys to attend to for n of them: whole blocks, at most 32 or 1/8 more."""
    step = max(32, power_of_2_below(n) // 8, block_size)
    return -(-(-(-n // step) * step) // block_size) * block_size


def power_of_2_below(n: int) -> int:
    """The largest power of 2 that is at most n; 1 for n below 1."""
    return 1 << max(0, n.bit_length() - 1)
