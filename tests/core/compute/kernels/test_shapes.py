"""Tensors without numbers have the shapes, strides and offsets that torch's have."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from jackfield.compute.kernels import shapes

CPU = shapes.Device("cpu")


def both(*sizes: int, dtype: str = "bfloat16") -> tuple[Any, Any]:
    return torch.empty(sizes, dtype=getattr(torch, dtype)), shapes.Shape(
        sizes, shapes.DTYPES[dtype], CPU
    )


def same(real: torch.Tensor, ours: Any, base: torch.Tensor) -> None:
    assert ours.shape == tuple(real.shape)
    assert ours.stride() == real.stride()
    assert ours.stride(-1) == real.stride(-1)
    assert ours.numel() == real.numel()
    assert ours.element_size() == real.element_size()
    assert repr(ours.dtype) == str(real.dtype)
    # Where there is nothing torch may have no address.
    assert not real.numel() or ours.data_ptr() % 16 == (real.data_ptr() - base.data_ptr()) % 16


@given(st.lists(st.integers(1, 5), min_size=3, max_size=3), st.data())
def test_views_parts_and_slices_are_torchs(sizes: list[int], data: st.DataObject) -> None:
    real, ours = both(*sizes)
    same(real, ours, real)
    same(real.view(-1, sizes[2]), ours.view(-1, sizes[2]), real)
    cut = data.draw(st.integers(0, sizes[1]))
    parts = [cut, sizes[1] - cut]
    for theirs, part in zip(torch.split(real, parts, 1), ours.split(parts, 1), strict=True):
        same(theirs, part, real)
        same(theirs.contiguous(), part.contiguous(), real)
    first = data.draw(st.integers(0, sizes[0] - 1))
    stop = data.draw(st.integers(first, sizes[0]))
    same(real[first:stop], ours[first:stop], real)
    same(real[first], ours[first], real)


@pytest.mark.parametrize("name", sorted(shapes.DTYPES))
def test_dtypes_have_torchs_names_and_sizes(name: str) -> None:
    real = getattr(torch, name)
    assert str(real) == repr(shapes.DTYPES[name])
    assert real.itemsize == shapes.DTYPES[name].itemsize


def test_what_lies_apart_is_not_seen_in_other_dimensions() -> None:
    _, ours = both(2, 4, 8)
    part = ours.split([1, 3], 1)[1]
    with pytest.raises(AssertionError, match="contiguous"):
        part.view(-1)


def test_torch_that_is_here_has_no_stand_in() -> None:
    with pytest.raises(AssertionError, match="here already"):
        shapes.stand_in(lambda: (9, 0))
