"""Memory that is taken by use, against what the system says of the process."""

from __future__ import annotations

import mmap
import sys
from pathlib import Path

import pytest
import torch

from jackfield.compute.demand_paging import give_back, untouched_zeros

MIB = 1 << 20
linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def resident_mib() -> float:
    """Of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * mmap.PAGESIZE / MIB


@linux
def test_what_was_never_written_costs_nothing_and_what_is_given_back_no_more() -> None:
    before = resident_mib()
    zeros = untouched_zeros((4, 64, MIB // 2), torch.bfloat16)
    assert resident_mib() - before < 16
    assert not zeros[:, 0, ::4096].any()
    zeros.fill_(1)
    assert resident_mib() - before > 240
    give_back(zeros, 1, 16, 48)
    assert resident_mib() - before < 144
    assert not zeros[:, 16:48].any()
    assert (zeros[:, :16] == 1).all() and (zeros[:, 48:] == 1).all()


@pytest.mark.parametrize("dim", [0, 1, 2])
@pytest.mark.parametrize("width", [3, 1000])
def test_neighbours_keep_what_they_hold_whatever_the_size_of_a_page(dim: int, width: int) -> None:
    zeros = untouched_zeros((7, 11, 13, width), torch.float32)
    zeros.fill_(2)
    give_back(zeros, dim, 2, 5)
    kept = torch.ones(zeros.shape[dim], dtype=torch.bool)
    kept[2:5] = False
    assert (zeros.movedim(dim, 0)[kept] == 2).all()
    given = zeros.movedim(dim, 0)[~kept]
    assert ((given == 0) | (given == 2)).all()
