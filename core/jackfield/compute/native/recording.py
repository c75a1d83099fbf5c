"""What a function calls of the compiled kernels, to be called again without Python's part of it.

A step streams all weights through the caches, so that the interpreter between two kernels runs from
memory: 40 to 100 microseconds a kernel, a fifth of a decode step of one sequence.
"""

from __future__ import annotations

import ctypes
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from jackfield.compute.native.calls import Call, noted_calls

_LINE = 64
"""Bytes that tensors are aligned to."""
_ALLOCATES = ("aten::empty", "aten::empty_like", "aten::new_empty")


class NotRecordable(Exception):
    """The function does something beside kernels, views and allocations; the message says what."""


class Arena:
    """Memory for the recording that runs; grows to what the largest one needs."""

    def __init__(self) -> None:
        self._memory = torch.empty(0, dtype=torch.uint8)

    def reserve(self, size: int) -> Tensor:
        """uint8 [size] at least, from a line on. What was in it before may be gone."""
        if len(self._memory) < size + _LINE:
            self._memory = torch.empty(size + _LINE, dtype=torch.uint8)
        return self._memory[-self._memory.data_ptr() % _LINE :]


@dataclass(slots=True)
class _Block:
    """Memory that the function allocated, and the calls between which it is in use."""

    address: int
    size: int
    first: int = -1
    last: int = -1
    offset: int = 0
    """In the arena."""


class Recording:
    """Runs ``function`` and keeps the kernels' calls; ``replay`` makes them again, on whatever is
    in the tensors that they read then.

    ``function`` returns one contiguous tensor that a kernel wrote: ``result``. What it allocates
    gets places in ``arena``, by when it is in use; everything else that kernels read and write
    stays where it is, and whoever records keeps it alive. Raises ``NotRecordable``.
    """

    def __init__(self, arena: Arena, function: Callable[[], Tensor]) -> None:
        with noted_calls() as calls, _Watch() as watch:
            result = function()
        if watch.unknown is not None:
            raise NotRecordable(watch.unknown)
        self._arena = arena
        self._base = 0
        self._dtype, self._shape, self._num_bytes = result.dtype, result.shape, result.nbytes
        blocks = _Blocks(watch.allocated)
        # (call, argument, block, bytes from its beginning)
        self._places = _addresses(calls, blocks)
        block = blocks.find(result.data_ptr())
        if block is None or block.first < 0 or not result.is_contiguous():
            raise NotRecordable("its result is not what a kernel wrote")
        block.last = len(calls)
        self._result = (block, result.data_ptr() - block.address)
        self._size = blocks.lay_out()
        self._calls = [(function.plain, arguments) for function, arguments in calls]
        self.result: Tensor | None = result

    def replay(self) -> Tensor:
        """The result; whatever is replayed next in the arena may overwrite it."""
        memory = self._arena.reserve(self._size)
        if memory.data_ptr() != self._base:
            self._move(memory.data_ptr())
        for function, arguments in self._calls:
            function(*arguments)
        block, within = self._result
        numbers = memory[block.offset + within :][: self._num_bytes].view(self._dtype)
        return numbers.view(self._shape)

    def forget_result(self) -> None:
        """Lets go of the tensor that ``function`` returned."""
        self.result = None

    def _move(self, base: int) -> None:
        changed: dict[int, list[object]] = {}
        for call, argument, block, within in self._places:
            arguments = changed.setdefault(call, list(self._calls[call][1]))
            arguments[argument] = base + block.offset + within
        for call, new in changed.items():
            self._calls[call] = (self._calls[call][0], tuple(new))
        self._base = base


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Keeps what is allocated, and the name of an operation that computes without a kernel."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.allocated: list[Tensor] = []
        self.unknown: str | None = None


def _watch(self: _Watch, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
    result = func(*args, **(kwargs or {}))
    if func._schema.name in _ALLOCATES:
        self.allocated.append(result)
    elif not func.is_view:
        self.unknown = func._schema.name
    return result


# Not in the class: torch would wrap it in what imports its compiler, for seconds.
_Watch.__torch_dispatch__ = _watch  # type: ignore[method-assign, assignment]


class _Blocks:
    def __init__(self, allocated: Sequence[Tensor]) -> None:
        storages = [tensor.untyped_storage() for tensor in allocated]
        blocks = [_Block(storage.data_ptr(), storage.nbytes()) for storage in storages]
        self._blocks = sorted(blocks, key=lambda block: block.address)
        self._starts = [block.address for block in self._blocks]

    def find(self, address: int) -> _Block | None:
        """The block that the address is in."""
        place = bisect_right(self._starts, address) - 1
        if place < 0 or address >= self._starts[place] + self._blocks[place].size:
            return None
        return self._blocks[place]

    def lay_out(self) -> int:
        """Gives every block an offset: no two that are in use at once overlap. The size of all."""
        placed: list[_Block] = []
        used = [block for block in self._blocks if block.first >= 0]
        for block in sorted(used, key=lambda block: block.first):
            placed = [other for other in placed if other.last >= block.first]
            end = 0
            for other in sorted(placed, key=lambda block: block.offset):
                if other.offset - end >= block.size:
                    break
                end = max(end, -(-(other.offset + other.size) // _LINE) * _LINE)
            block.offset = end
            placed.append(block)
        return max((block.offset + block.size for block in used), default=0)


def _addresses(calls: Sequence[Call], blocks: _Blocks) -> list[tuple[int, int, _Block, int]]:
    """Where calls are given an address in a block; notes their first and last use."""
    places = []
    for call, (function, arguments) in enumerate(calls):
        for argument, (kind, value) in enumerate(zip(function.types, arguments, strict=True)):
            if kind is not ctypes.c_void_p or not isinstance(value, int):
                continue
            block = blocks.find(value)
            if block is None:
                continue
            block.first = call if block.first < 0 else block.first
            block.last = call
            places.append((call, argument, block, value - block.address))
    return places
