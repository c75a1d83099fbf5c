"""Weights beyond what the device holds: some layers stay in the host's memory and are copied ahead.

The layers that stay are spread evenly over the model, so that the layers between them are computed
while the next ones are on the way. They take turns in a few *slots* on the device: a layer's
tensors are views of its slot for good, so that kernels and captured graphs know one address, and
what is copied there before its turn is its own weights. Copies run on a stream of their own; a
slot is filled again as soon as the layer that was in it is computed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import fields, is_dataclass
from functools import partial
from math import prod
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from jackfield.errors import ConfigError

_SLOTS = 2
_ALIGNMENT = 512
_LEAST_BYTES = 1 << 20
"""Smaller tensors (norms, scales, biases) stay on the device."""


class Streams(Protocol):
    """The device's memory and copies, as far as they are needed here."""

    def host_buffer(self, num_bytes: int) -> Tensor:
        """uint8 [num_bytes] in the host's memory, from which the device can copy by itself."""
        ...

    def on_device(self, host: Tensor) -> Tensor:
        """The same memory, as a tensor of the device."""
        ...

    def fork(self) -> None:
        """Copies to come wait for all that the device has been told to compute until now."""
        ...

    def copy(self, source: Tensor, target: Tensor) -> None:
        """Enqueues a copy beside what is computed."""
        ...

    def mark(self) -> Callable[[], None]:
        """What is computed waits, once the result is called, for the copies until now."""
        ...


class CudaStreams:
    """One stream for copies, beside the current one; all of it can be captured in a graph."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def host_buffer(self, num_bytes: int) -> Tensor:
        """Pinned memory."""
        return torch.empty(num_bytes, dtype=torch.uint8, pin_memory=True)

    def on_device(self, host: Tensor) -> Tensor:
        """Pinned memory has the same address on the device (unified virtual addressing)."""
        return torch.as_tensor(_OfDevice(host), device=self._device)

    def fork(self) -> None:
        """An event, no wait of the host."""
        self._stream.wait_stream(torch.cuda.current_stream())

    def copy(self, source: Tensor, target: Tensor) -> None:
        """By the copy engine."""
        with torch.cuda.stream(self._stream):
            target.copy_(source, non_blocking=True)

    def mark(self) -> Callable[[], None]:
        """An event behind the copies."""
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record(self._stream)
        return lambda: torch.cuda.current_stream().wait_event(event)


class _OfDevice:
    """Says of pinned memory that it is a CUDA array."""

    def __init__(self, host: Tensor) -> None:
        self._host = host
        self.__cuda_array_interface__ = {
            "shape": (host.numel(),),
            "typestr": "|u1",
            "data": (host.data_ptr(), False),
            "version": 3,
        }


class Offload:
    """``budget_bytes`` of weights in the host's memory. Made before the model is, installed when
    its weights are loaded; ``num_layers`` as the checkpoint's config says."""

    def __init__(
        self,
        budget_bytes: int,
        num_layers: int,
        streams: Streams,
        device: torch.device,
        least_bytes: int | None = None,
    ) -> None:
        self._budget_bytes = budget_bytes
        self._num_layers = num_layers
        self._streams = streams
        self._device = device
        self._least_bytes = _LEAST_BYTES if least_bytes is None else least_bytes
        self._chosen: tuple[int, ...] | None = None
        self._hosts: dict[int, Tensor] = {}

    def placing(self, layer: int) -> AbstractContextManager[object]:
        """Large tensors that are made inside, for a layer, are in the host's memory if the layer is
        to stay there: a model need not fit on the device while it is loaded. Layer 0 comes
        first; it shows how large a layer is."""
        if layer == 0:
            return _Counting(self)
        if self._chosen is None or layer not in self._chosen:
            return nullcontext()
        return _InHostMemory(self)

    def choose(self, layer_bytes: int) -> None:
        """Decides which layers stay in the host's memory, from the size of one."""
        if layer_bytes and self._num_layers:
            self._chosen = spread(self._budget_bytes, layer_bytes, self._num_layers)

    def empty(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor | None:
        """A tensor of the device that is in the host's memory; None where it is too small."""
        num_bytes = prod(shape) * dtype.itemsize
        if num_bytes < self._least_bytes:
            return None
        host = self._streams.host_buffer(num_bytes)
        found = self._streams.on_device(host)
        self._hosts[found.data_ptr()] = host
        return found.view(dtype).view(tuple(shape))

    def install(self, model: nn.Module) -> str:
        """Moves what is chosen, and lets the layers fetch their weights; a line about it.

        Raises ``ConfigError`` for a model without a list of layers.
        """
        layers = layers_of(model)
        if not layers:
            raise ConfigError(f"--cpu-offload-gb: {type(model).__name__} has no list of layers")
        sizes = [sum(t.nbytes for t in self._large(layer)) for layer in layers]
        if self._chosen is None or max(self._chosen, default=0) >= len(layers):
            self._chosen = spread(self._budget_bytes, max(sizes), len(layers))
        chosen = [layers[index] for index in self._chosen]
        slots = [self._slot(max(sizes)) for _ in range(min(_SLOTS, len(chosen)))]
        moved = [self._move(layer, slots[place % len(slots)]) for place, layer in enumerate(chosen)]
        self._hosts.clear()
        _Ahead(self._streams, moved, len(slots)).attach(layers[0], chosen)
        size = sum(source.nbytes for layer in moved for source, _ in layer)
        return (
            f"{len(chosen)} of {len(layers)} layers in the host's memory, {size / 2**30:.2f} GiB, "
            f"copied ahead into {len(slots)} places on the device"
        )

    def _large(self, layer: nn.Module) -> list[Tensor]:
        return [tensor for tensor in tensors_of(layer) if tensor.nbytes >= self._least_bytes]

    def _slot(self, num_bytes: int) -> Tensor:
        room = num_bytes + 64 * _ALIGNMENT
        return torch.empty(room, dtype=torch.uint8, device=self._device)

    def _move(self, layer: nn.Module, slot: Tensor) -> _Moved:
        """Makes the large tensors of a layer views of the slot; their values are in the host's
        memory afterwards."""
        moved: _Moved = []
        offset = 0
        for tensor in self._large(layer):
            num_bytes = tensor.nbytes
            host = self._hosts.get(tensor.data_ptr())
            if host is None or host.numel() != num_bytes:
                host = self._streams.host_buffer(num_bytes)
                host.copy_(tensor.contiguous().view(-1).view(torch.uint8))
            target = slot[offset : offset + num_bytes]
            tensor.data = target.view(tensor.dtype).view(tensor.shape)
            moved.append((host, target))
            offset += -(-num_bytes // _ALIGNMENT) * _ALIGNMENT
        return moved


_Moved = list[tuple[Tensor, Tensor]]
"""Of a layer: (in the host's memory, in the slot), uint8 both."""


class _Ahead:
    """Copies layers into their slots, so many ahead as there are slots."""

    def __init__(self, streams: Streams, moved: Sequence[_Moved], num_slots: int) -> None:
        self._streams, self._moved, self._num_slots = streams, moved, num_slots
        self._arrivals: dict[int, Callable[[], None]] = {}

    def attach(self, first: nn.Module, layers: Sequence[nn.Module]) -> None:
        """``first`` is computed before ``layers``, those in their order."""
        first.register_forward_pre_hook(lambda *_: self._begin())
        for place, layer in enumerate(layers):
            layer.register_forward_pre_hook(partial(self._await, place))
            layer.register_forward_hook(partial(self._leave, place))

    def _begin(self) -> None:
        for place in range(self._num_slots):
            self._fetch(place)

    def _fetch(self, place: int) -> None:
        if place < len(self._moved):
            self._streams.fork()
            for source, target in self._moved[place]:
                self._streams.copy(source, target)
            self._arrivals[place] = self._streams.mark()

    def _await(self, place: int, *_: object) -> None:
        self._arrivals.pop(place)()

    def _leave(self, place: int, *_: object) -> None:
        self._fetch(place + self._num_slots)


class _Counting(TorchFunctionMode):
    """Adds up what is made inside; then the layers can be chosen."""

    def __init__(self, offload: Offload) -> None:
        super().__init__()
        self._offload = offload
        self._bytes = 0

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        made = function(*args, **(kwargs or {}))
        if function is torch.empty and made.nbytes >= self._offload._least_bytes:
            self._bytes += made.nbytes
        return made

    def __exit__(self, *exception: object) -> None:
        super().__exit__(*exception)  # type: ignore[no-untyped-call]
        self._offload.choose(self._bytes)


class _InHostMemory(TorchFunctionMode):
    """Gives what ``torch.empty`` would make on the device a place in the host's memory."""

    def __init__(self, offload: Offload) -> None:
        super().__init__()
        self._offload = offload

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        device = kwargs.get("device")
        if function is torch.empty and device is not None and "dtype" in kwargs:
            shape = args[0] if len(args) == 1 and not isinstance(args[0], int) else args
            found = None
            if torch.device(device) == self._offload._device:
                found = self._offload.empty(shape, kwargs["dtype"])
            if found is not None:
                return found
        return function(*args, **kwargs)


def spread(budget_bytes: int, layer_bytes: int, num_layers: int) -> tuple[int, ...]:
    """Layers whose absence frees the budget, the slots taken into account: evenly over all but the
    first one. Raises ``ConfigError`` where there are too few."""
    count = -(-budget_bytes // layer_bytes) + _SLOTS
    if count >= num_layers:
        most = max(num_layers - 1 - _SLOTS, 0) * layer_bytes
        raise ConfigError(
            f"--cpu-offload-gb {budget_bytes / 2**30:g} is more than the model's layers can give: "
            f"at most {most / 2**30:.2f}"
        )
    step = (num_layers - 1) / count
    return tuple(1 + int((place + 0.5) * step) for place in range(count))


def tensors_of(module: nn.Module) -> Iterator[Tensor]:
    """Every tensor of a module and its children, once: parameters, buffers, and those in
    dataclasses that it holds (codes of quantized weights)."""
    seen: set[int] = set()
    for child in module.modules():
        held = [*child._parameters.values(), *child._buffers.values(), *vars(child).values()]
        for tensor in (found for value in held for found in _within(value)):
            if id(tensor) not in seen:
                seen.add(id(tensor))
                yield tensor


def _within(value: object) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple | list):
        for each in value:
            yield from _within(each)
    elif is_dataclass(value) and not isinstance(value, type):
        for field in fields(value):
            yield from _within(getattr(value, field.name, None))


def layers_of(model: nn.Module) -> nn.ModuleList:
    """The longest list of modules that is in no other one; an empty one without any."""
    lists = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
    inner = {id(each) for one in lists for each in one.modules() if each is not one}
    outer = [each for each in lists if id(each) not in inner]
    return max(outer, key=len, default=nn.ModuleList())
