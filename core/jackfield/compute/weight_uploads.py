"""Weights from mapped files to the GPU, several tensors at a time.

One thread that copies out of a mapped file reaches a tenth of what the bus takes: it waits for page
faults, and the driver copies what is not pinned a second time. Here several threads copy into small
pinned buffers, and from each the device copies on a stream of the thread's own.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

_THREADS = 8
_BUFFER_BYTES = 8 << 20
_BUFFERS_A_THREAD = 2
_AHEAD_BYTES = 1 << 30
"""So much of the device's memory holds tensors that no layer has taken yet."""


def uploaded(
    weights: Iterable[tuple[str, Tensor]], device: torch.device
) -> Iterator[tuple[str, Tensor]]:
    """The same tensors in the same order, on ``device``; those ahead are on their way already.

    The tensors given in are not changed meanwhile; one that is on a device stays as it is. An error
    of ``weights`` or of a copy is raised where its tensor would be given out.
    """
    waiting: deque[tuple[str, Future[_Arrival]]] = deque()
    ahead = 0
    local = threading.local()
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="upload") as pool:
        try:
            for name, tensor in weights:
                waiting.append((name, pool.submit(_upload, local, tensor, device)))
                ahead += tensor.nbytes
                while ahead > _AHEAD_BYTES or len(waiting) > 4 * _THREADS:
                    name, arrived = _next(waiting)
                    ahead -= arrived.nbytes
                    yield name, arrived
            while waiting:
                yield _next(waiting)
        finally:
            pool.shutdown(cancel_futures=True)


class _Arrival:
    """A tensor that is on the device once ``copied`` has happened."""

    def __init__(self, tensor: Tensor, copied: torch.cuda.Event | None) -> None:
        self._tensor = tensor
        self._copied = copied

    def taken(self) -> Tensor:
        """The tensor, for what is enqueued on the current stream from now on."""
        if self._copied is not None:
            self._copied.wait()
        return self._tensor


def _next(waiting: deque[tuple[str, Future[_Arrival]]]) -> tuple[str, Tensor]:
    name, future = waiting.popleft()
    return name, future.result().taken()


def _event() -> torch.cuda.Event:
    return torch.cuda.Event()  # type: ignore[no-untyped-call]


class _Lane:
    """One thread's way to the device: pinned buffers in turn, and a stream."""

    def __init__(self, device: torch.device) -> None:
        pinned = device.type == "cuda"
        self.stream = torch.cuda.Stream(device) if pinned else None  # type: ignore[no-untyped-call]
        self._buffers = [
            torch.empty(_BUFFER_BYTES, dtype=torch.uint8, pin_memory=pinned)
            for _ in range(_BUFFERS_A_THREAD)
        ]
        self._read = [_event() if pinned else None for _ in self._buffers]
        self._turn = 0

    def copy(self, source: Tensor, target: Tensor) -> None:
        """uint8 [n] to uint8 [n], n at most a buffer's size."""
        self._turn = (self._turn + 1) % len(self._buffers)
        read = self._read[self._turn]
        if read is not None:
            read.synchronize()
        buffer = self._buffers[self._turn][: len(source)]
        buffer.copy_(source)
        target.copy_(buffer, non_blocking=True)
        if read is not None:
            read.record()


def _upload(local: threading.local, tensor: Tensor, device: torch.device) -> _Arrival:
    if tensor.device.type != "cpu":
        return _Arrival(tensor, None)
    lane: _Lane | None = getattr(local, "lane", None)
    if lane is None:
        lane = local.lane = _Lane(device)
    target = torch.empty(tensor.shape, dtype=tensor.dtype, device=device)
    source = tensor.contiguous().view(-1).view(torch.uint8)
    flat = target.view(-1).view(torch.uint8)
    if lane.stream is None:
        _copy_all(lane, source, flat)
        return _Arrival(target, None)
    # The memory may have been another tensor's, which a layer's copy still reads.
    lane.stream.wait_stream(torch.cuda.default_stream(device))
    with torch.cuda.stream(lane.stream):
        _copy_all(lane, source, flat)
        copied = _event()
        copied.record()
    return _Arrival(target, copied)


def _copy_all(lane: _Lane, source: Tensor, target: Tensor) -> None:
    for begin in range(0, len(source), _BUFFER_BYTES):
        piece = slice(begin, begin + _BUFFER_BYTES)
        lane.copy(source[piece], target[piece])
