"""Memory of the host that is taken from the system page by page as it is written, and goes back."""

from __future__ import annotations

import ctypes
import functools
import mmap
from collections.abc import Callable
from math import prod
from typing import cast

import torch
from torch import Tensor

_Advise = Callable[[ctypes.c_void_p, ctypes.c_size_t, int], int]


def untouched_zeros(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """A zeroed tensor that costs no memory where it was never written."""
    num_bytes = max(1, prod(shape) * dtype.itemsize)
    if not hasattr(mmap, "MAP_PRIVATE"):
        return torch.zeros(shape, dtype=dtype)
    # Private: the pages of a shared mapping could not be given back.
    memory = mmap.mmap(-1, num_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_NOHUGEPAGE"):
        # Else the first write to a place takes 2 MiB: a short prompt's KV, a little in each of
        # many layers and heads, takes most of a GiB and 2 s.
        memory.madvise(mmap.MADV_NOHUGEPAGE)
    return torch.frombuffer(memory, dtype=dtype, count=prod(shape)).view(shape)


def give_back(tensor: Tensor, dim: int, first: int, last: int) -> None:
    """Places ``first .. last - 1`` of dimension ``dim`` of a contiguous tensor of
    ``untouched_zeros`` may lose what they hold: the whole pages within go back to the system.
    Afterwards they hold zeros, or what they held."""
    advise = _advise()
    if advise is None:
        return
    size = tensor.stride(dim) * tensor.itemsize
    outer = prod(tensor.shape[:dim])
    for index in range(outer):
        start = tensor.data_ptr() + (index * tensor.shape[dim] + first) * size
        end = start + (last - first) * size
        start = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE
        end = end // mmap.PAGESIZE * mmap.PAGESIZE
        if start < end:
            advise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), mmap.MADV_DONTNEED)


@functools.cache
def _advise() -> _Advise | None:
    """The C library's call, on systems that have it."""
    if not hasattr(mmap, "MADV_DONTNEED"):
        return None
    return cast(_Advise | None, getattr(ctypes.CDLL(None), "madvise", None))
