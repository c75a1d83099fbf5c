"""Decode steps as CUDA graphs: from one packed buffer to logits, and from there to sampled ids.

A step is captured for a batch size; a smaller batch is filled up with padding. A few sizes are
captured at start, 40 to 60 ms each; others while there is nothing to do, or when they are first
needed. How to sample is in small graphs of their own, captured in milliseconds when a size first
meets a mode, so that a change of mode stops nobody.
"""

from __future__ import annotations

import bisect
import gc
import logging
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from jackfield.compute.sampler import SamplingMode
from jackfield.compute.transfer import Uploads
from jackfield.contracts.work import Int32Array

log = logging.getLogger(__name__)

_SIZES = (1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 160, 192, 224, 256, 320, 384, 448, 512)
_FIRST = (1, 8, 32, 128)
"""What is captured at start, with the largest: whatever comes first, its size or one near it."""
_RESERVE_BYTES = 2 << 30
_OFTEN = 128
"""Steps that may take a larger size before their own is captured: a capture costs about what their
padding does, and holds up every request at once."""


def graph_sizes(
    max_num_seqs: int, max_graph_batch: int, asked: tuple[int, ...] = ()
) -> tuple[int, ...]:
    """Batch sizes to capture: those asked for that can come, or the usual ones and the largest
    batch there can be."""
    if asked:
        return tuple(size for size in asked if size <= max_num_seqs)
    largest = min(max_num_seqs, max_graph_batch, _SIZES[-1])
    return (*(size for size in _SIZES if size < largest), largest) if largest > 0 else ()


class GraphRecorder(Protocol):
    """Turns a function of fixed tensors into something that can be run again cheaply."""

    def record(self, body: Callable[[], None]) -> Callable[[], None]:
        """Runs ``body`` at least once and returns a replay of what it enqueued."""
        ...

    def cut(self) -> None:
        """Called within ``body``: what it has enqueued so far is launched by itself, so that the
        device begins with it while the host launches the rest."""
        ...

    def has_room(self) -> bool:
        """Whether there is memory for graphs that may never be needed."""
        ...


class CaptureError(RuntimeError):
    """A step does what no graph can hold: it waits for the device, say."""


class CudaGraphRecorder:
    """Captures on a stream of its own; all graphs share one memory pool, since they never run
    at the same time."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool = torch.cuda.graph_pool_handle()
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._parts: list[torch.cuda.CUDAGraph] = []
        self._is_capturing = False
        self._cuts = True

    def record(self, body: Callable[[], None]) -> Callable[[], None]:
        """Runs ``body`` once, so that kernels are compiled and loaded, then captures it. Raises
        ``CaptureError`` where it cannot be."""
        current = torch.cuda.current_stream()
        self._stream.wait_stream(current)
        try:
            with torch.cuda.stream(self._stream), _no_collection():
                body()
                parts = self._capture_in_parts(body)
        finally:
            current.wait_stream(self._stream)
        if len(parts) == 1:
            return parts[0].replay

        def replay() -> None:
            for part in parts:
                part.replay()

        return replay

    def _capture_in_parts(self, body: Callable[[], None]) -> list[torch.cuda.CUDAGraph]:
        try:
            return self._capture(body)
        except CaptureError as error:
            if len(self._parts) < 2:
                raise
            log.warning("steps with prompts are launched whole, not in parts: %s", error)
            self._cuts = False
            return self._capture(body)

    def _capture(self, body: Callable[[], None]) -> list[torch.cuda.CUDAGraph]:
        parts: list[torch.cuda.CUDAGraph] = []
        self._parts = parts
        self._begin()
        try:
            body()
            self._end()
        except BaseException as error:
            if self._is_capturing:
                # It may end with an error of its own, which says less.
                with suppress(RuntimeError):
                    self._end()
            if not isinstance(error, RuntimeError) or isinstance(error, torch.OutOfMemoryError):
                raise
            raise CaptureError(str(error).partition("\n")[0]) from error
        return parts

    def cut(self) -> None:
        """The rest is a graph of its own. A graph of kernels alone starts when its launch returns:
        1.3 us a kernel on an H200's host."""
        if self._is_capturing and self._cuts:
            self._end()
            self._begin()

    def has_room(self) -> bool:
        """Leaves 2 GiB to what cannot do without; a graph takes 10 to 30 MiB."""
        return torch.cuda.mem_get_info(self._device)[0] > _RESERVE_BYTES

    def _begin(self) -> None:
        self._parts.append(graph := torch.cuda.CUDAGraph())
        # Not torch.cuda.graph: that waits for the device and empties the allocator's cache.
        graph.capture_begin(pool=self._pool, capture_error_mode="thread_local")
        self._is_capturing = True

    def _end(self) -> None:
        self._is_capturing = False
        self._parts[-1].capture_end()


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


@dataclass(frozen=True, slots=True)
class StepLogits:
    """What a captured step leaves to sample from: logits [N, V]; the rows and positions that the
    ids go to, int64 [N] each."""

    logits: Tensor
    rows: Tensor
    positions: Tensor


SampleLogits = Callable[[StepLogits, SamplingMode, bool], Tensor]
Sampler = tuple[Callable[[], None], list[Tensor]]


class SampledGraph:
    """A step captured up to its logits, and small graphs that sample from them, one a mode.

    ``body`` enqueues the step and returns what it leaves, None if there is nothing to sample;
    ``sample`` enqueues the sampling, under masks if told so, and returns ids int32 [N].
    """

    def __init__(
        self,
        recorder: GraphRecorder,
        body: Callable[[], StepLogits | None],
        sample: SampleLogits,
    ) -> None:
        self._recorder = recorder
        self._sample = sample
        self._samplers: dict[tuple[SamplingMode, bool], Sampler] = {}
        self.left: StepLogits | None = None
        """Of the step that was replayed last; holds until the next one is."""

        def keep() -> None:
            self.left = body()

        self.replay = recorder.record(keep)

    def prepare(self, mode: SamplingMode, masked: bool = False) -> Sampler:
        """Captures the sampling of a mode, unless it is there."""
        sampler = self._samplers.get((mode, masked))
        if sampler is not None:
            return sampler
        kept: list[Tensor] = []

        def keep() -> None:
            assert self.left is not None
            kept[:] = [self._sample(self.left, mode, masked)]

        sampler = self._samplers[mode, masked] = (self._recorder.record(keep), kept)
        return sampler

    def sample(self, mode: SamplingMode, masked: bool = False) -> Tensor:
        """Samples the step that was replayed. ids int32 [N], valid until the next call."""
        replay, kept = self.prepare(mode, masked)
        replay()
        return kept[0]


class DecodeGraphs:
    """Graphs of decode steps by size.

    ``body(packed, size)`` enqueues one step: it reads ``packed`` (int32, as ``batch.pack_decode``
    makes it with ``size`` block changes). ``padding(size)`` is a packed step that changes nothing.
    """

    def __init__(
        self,
        sizes: tuple[int, ...],
        recorder: GraphRecorder,
        body: Callable[[Tensor, int], StepLogits],
        sample: SampleLogits,
        padding: Callable[[int], Int32Array],
        uploads: Uploads,
        device: torch.device,
    ) -> None:
        self._sizes = sizes
        self._recorder = recorder
        self._body, self._sample = body, sample
        self._padding = padding
        self._uploads = uploads
        self._packed = torch.zeros(4 * max(sizes, default=0), dtype=torch.int32, device=device)
        self._graphs: dict[int, SampledGraph] = {}
        self._num_wanted: Counter[int] = Counter()

    def __len__(self) -> int:
        """Graphs captured so far."""
        return len(self._graphs)

    def size_for(self, num_seqs: int) -> int | None:
        """The smallest size that holds a batch; None if none does."""
        place = bisect.bisect_left(self._sizes, num_seqs)
        return self._sizes[place] if place < len(self._sizes) else None

    def choose(self, num_seqs: int) -> int | None:
        """The size to run a batch in: the smallest that holds it or, as long as that was not wanted
        often and is not captured, one that is. None if none holds it."""
        wanted = self.size_for(num_seqs)
        if wanted is None or wanted in self._graphs:
            return wanted
        self._num_wanted[wanted] += 1
        if self._num_wanted[wanted] >= _OFTEN:
            return wanted
        return min((size for size in self._graphs if size > wanted), default=wanted)

    def capture(self, mode: SamplingMode) -> None:
        """Captures a few sizes, largest first: smaller ones then reuse its memory."""
        for size in reversed(self._sizes):
            if size in (*_FIRST, self._sizes[-1]):
                self._graph(size).prepare(mode)

    def capture_next(self, mode: SamplingMode) -> bool:
        """Captures one more size, the smallest; False if there is none left."""
        missing = next((size for size in self._sizes if size not in self._graphs), None)
        if missing is not None:
            self._graph(missing).prepare(mode)
        return missing is not None

    def run(self, packed: Int32Array, size: int) -> SampledGraph:
        """Replays one step up to its logits."""
        graph = self._graph(size)
        self._uploads.upload_into(packed, self._packed)
        graph.replay()
        return graph

    def _graph(self, size: int) -> SampledGraph:
        graph = self._graphs.get(size)
        if graph is None:
            self._uploads.upload_into(self._padding(size), self._packed)
            packed = self._packed[: 4 * size]
            graph = SampledGraph(self._recorder, lambda: self._body(packed, size), self._sample)
            self._graphs[size] = graph
        return graph
