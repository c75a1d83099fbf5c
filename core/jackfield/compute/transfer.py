"""How small arrays travel between the host and the device without either waiting."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from jackfield.compute.demand_paging import untouched_zeros

Int32Array = npt.NDArray[np.int32]


def device_zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """A zeroed tensor; on the CPU its pages are only taken from the system once written."""
    if device.type != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    return untouched_zeros(shape, dtype)


@dataclass(slots=True)
class _Staging:
    """One pinned buffer; ``copied`` fires when the device has read it."""

    pinned: Tensor
    array: Int32Array
    copied: torch.cuda.Event


class Uploads:
    """Host to device: one asynchronous copy an array, through a ring of pinned buffers.

    On the CPU the array itself becomes the tensor, so that the caller must not reuse it.
    """

    def __init__(self, device: torch.device, depth: int = 4) -> None:
        self._device = device
        self._pinned = device.type == "cuda"
        # The one stream that is uploaded on: to ask which one is current costs as much as a copy.
        self._stream = torch.cuda.current_stream(device) if self._pinned else None
        self._ring: list[_Staging] = []
        self._depth = depth
        self._next = 0

    def upload(self, values: Int32Array) -> Tensor:
        """int32 [n] -> int32 [n] on the device."""
        if not self._pinned:
            return torch.from_numpy(values).to(self._device)
        target = torch.empty(len(values), dtype=torch.int32, device=self._device)
        self.upload_into(values, target)
        return target

    def upload_into(self, values: Int32Array, target: Tensor) -> None:
        """Copies ``values`` to the start of ``target``, int32 [m] with m at least n."""
        n = len(values)
        if not self._pinned:
            target[:n].copy_(torch.from_numpy(values))
            return
        staging = self._take(n)
        staging.array[:n] = values
        target[:n].copy_(staging.pinned[:n], non_blocking=True)
        staging.copied.record(self._stream)

    def _take(self, n: int) -> _Staging:
        """The next buffer of the ring, at least n long, which the device has read."""
        slot = self._next % self._depth
        self._next += 1
        if slot >= len(self._ring):
            self._ring.append(_new_staging(n))
        staging = self._ring[slot]
        staging.copied.synchronize()
        if len(staging.array) < n:
            staging = self._ring[slot] = _new_staging(n)
        return staging


def _new_staging(n: int) -> _Staging:
    pinned = torch.empty(max(4096, 1 << (n - 1).bit_length()), dtype=torch.int32, pin_memory=True)
    return _Staging(pinned, cast(Int32Array, pinned.numpy()), torch.cuda.Event())  # type: ignore[no-untyped-call]


def to_host(tensor: Tensor) -> Tensor:
    """Starts the copy of a device tensor to the host; valid once a later event has fired.

    The tensor itself where it is on the host already.
    """
    if tensor.device.type == "cpu":
        return tensor
    pinned = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
    pinned.copy_(tensor, non_blocking=True)
    return pinned


class SoFar:
    """What the device was given until now, where any of the tensors is on one."""

    def __init__(self, *tensors: Tensor | None) -> None:
        self._event: torch.cuda.Event | None = None
        if any(tensor is not None and tensor.is_cuda for tensor in tensors):
            self._event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._event.record()

    def wait(self) -> None:
        """Blocks until it is computed; what comes later goes on meanwhile."""
        if self._event is not None:
            self._event.synchronize()
