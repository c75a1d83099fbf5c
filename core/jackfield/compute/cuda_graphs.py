"""Decode steps as CUDA graphs: from one packed buffer to sampled ids, a launch for the whole step.

A graph is captured for a batch size and a sampling mode; a smaller batch is filled up with
padding. Greedy graphs are captured at start, those of other modes when first needed.
"""

from __future__ import annotations

import bisect
import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor

from jackfield.compute.sampler import SamplingMode
from jackfield.compute.transfer import Uploads
from jackfield.contracts.work import Int32Array

_SIZES = (1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 160, 192, 224, 256, 320, 384, 448, 512)


def graph_sizes(max_num_seqs: int, max_graph_batch: int) -> tuple[int, ...]:
    """Batch sizes to capture: the usual ones, and the largest batch there can be."""
    largest = min(max_num_seqs, max_graph_batch, _SIZES[-1])
    return (*(size for size in _SIZES if size < largest), largest) if largest > 0 else ()


class GraphRecorder(Protocol):
    """Turns a function of fixed tensors into something that can be run again cheaply."""

    def record(self, body: Callable[[], None]) -> Callable[[], None]:
        """Runs ``body`` at least once and returns a replay of what it enqueued."""
        ...


class CudaGraphRecorder:
    """Captures on a stream of its own; all graphs share one memory pool, since they never run
    at the same time."""

    def __init__(self, device: torch.device) -> None:
        self._pool = torch.cuda.graph_pool_handle()
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def record(self, body: Callable[[], None]) -> Callable[[], None]:
        """Runs ``body`` once, so that kernels are compiled and loaded, then captures it."""
        current = torch.cuda.current_stream()
        self._stream.wait_stream(current)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.stream(self._stream), _no_collection():
            body()
            # Not torch.cuda.graph: that waits for the device and empties the allocator's cache.
            graph.capture_begin(pool=self._pool, capture_error_mode="thread_local")
            try:
                body()
            finally:
                graph.capture_end()
        current.wait_stream(self._stream)
        return graph.replay


@contextmanager
def _no_collection() -> Iterator[None]:
    """A collection during a capture may free tensors, which a capture does not allow, and
    takes most of its time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class DecodeGraphs:
    """Graphs of decode steps by (size, mode).

    Without a mode nothing is sampled; the body keeps the logits.

    ``body(packed, size, mode, out)`` enqueues one step: it reads ``packed`` (int32, as
    ``batch.pack_decode`` makes it with ``size`` block changes) and writes ids to ``out``
    (int32 [size]). ``padding(size)`` is a packed step that changes nothing.
    """

    def __init__(
        self,
        sizes: tuple[int, ...],
        recorder: GraphRecorder,
        body: Callable[[Tensor, int, SamplingMode | None, Tensor], None],
        padding: Callable[[int], Int32Array],
        uploads: Uploads,
        device: torch.device,
    ) -> None:
        self._sizes = sizes
        self._recorder = recorder
        self._body = body
        self._padding = padding
        self._uploads = uploads
        largest = max(sizes, default=0)
        self._packed = torch.zeros(4 * largest, dtype=torch.int32, device=device)
        self._out = torch.zeros(largest, dtype=torch.int32, device=device)
        self._graphs: dict[tuple[int, SamplingMode | None], Callable[[], None]] = {}

    def __len__(self) -> int:
        """Graphs captured so far."""
        return len(self._graphs)

    @property
    def max_size(self) -> int:
        """The largest size."""
        return max(self._sizes, default=0)

    def size_for(self, num_seqs: int) -> int | None:
        """The smallest size that holds a batch; None if none does."""
        place = bisect.bisect_left(self._sizes, num_seqs)
        return self._sizes[place] if place < len(self._sizes) else None

    def capture(self, mode: SamplingMode) -> None:
        """Captures every size, largest first: smaller ones then reuse its memory."""
        for size in reversed(self._sizes):
            self._graph(size, mode)

    def run(self, packed: Int32Array, size: int, mode: SamplingMode | None) -> Tensor:
        """One step. Returns ids, int32 [size], valid on the device until the next call."""
        replay = self._graph(size, mode)
        self._uploads.upload_into(packed, self._packed)
        replay()
        return self._out[:size]

    def _graph(self, size: int, mode: SamplingMode | None) -> Callable[[], None]:
        replay = self._graphs.get((size, mode))
        if replay is None:
            self._uploads.upload_into(self._padding(size), self._packed)
            packed, out = self._packed[: 4 * size], self._out[:size]
            replay = self._recorder.record(lambda: self._body(packed, size, mode, out))
            self._graphs[size, mode] = replay
        return replay
