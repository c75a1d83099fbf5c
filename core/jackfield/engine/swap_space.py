"""KV of preempted requests in the host's memory: which request has which host block.

A preempted request's blocks are copied out, and back when it runs again, so that nothing is
computed twice (``--preemption-mode swap``). Where there is no room it is computed again. Copies
are made by the worker before the next step it computes: first all that go out, then all that
come back.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from jackfield.contracts.work import BlockSwaps, Int32Array
from jackfield.engine.request import Request


class SwapSpace:
    """``num_blocks`` blocks in the host's memory, and the copies that the next step has to make."""

    def __init__(self, num_blocks: int) -> None:
        self._free = list(range(num_blocks - 1, -1, -1))
        self._out: list[tuple[int, int]] = []
        self._back: dict[Request, list[tuple[int, int]]] = {}

    @property
    def num_free(self) -> int:
        """Host blocks that no request has."""
        return len(self._free)

    def save(self, request: Request, blocks: Sequence[int], num_tokens: int) -> None:
        """Copies out the first ``num_tokens`` tokens of a request; ``blocks`` hold them. Does
        nothing where there is no room. What the next step would have brought back stays saved."""
        if request in self._back:
            del self._back[request]
            return
        if not blocks or len(blocks) > len(self._free):
            return
        request.host_blocks = [self._free.pop() for _ in blocks]
        request.num_saved_tokens = num_tokens
        self._out += zip(blocks, request.host_blocks, strict=True)

    def bring_back(self, request: Request, first: int, blocks: Sequence[int]) -> None:
        """Copies what was saved back, from its block ``first`` on, into ``blocks``."""
        self._back[request] = list(zip(request.host_blocks[first:], blocks, strict=True))

    def is_coming_back(self, request: Request) -> bool:
        """Whether the next step brings it back, so that its blocks hold nothing yet."""
        return request in self._back

    def drop(self, request: Request) -> None:
        """Forgets what was saved."""
        self._back.pop(request, None)
        self._free += request.host_blocks
        request.host_blocks = []
        request.num_saved_tokens = 0

    def take(self) -> BlockSwaps | None:
        """The copies for the next step, if any. What it brings back is not kept any longer."""
        if not self._out and not self._back:
            return None
        back = [pair for pairs in self._back.values() for pair in pairs]
        swaps = BlockSwaps(_pairs(self._out), _pairs(back))
        self._out = []
        for request in list(self._back):
            self.drop(request)
        return swaps


def _pairs(pairs: Sequence[tuple[int, int]]) -> Int32Array:
    return np.array(pairs, dtype=np.int32).reshape(-1, 2)
