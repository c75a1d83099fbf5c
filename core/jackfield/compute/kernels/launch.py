"""Launching kernels: cheaply, overlapping where the device can, on as many processors as it has."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import torch
import triton
from torch import Tensor
from triton.compiler import CompiledKernel
from triton.runtime.jit import JITFunction

_run = JITFunction.run


class QuickLaunch:
    """A kernel launched as Triton's are, ``kernel[grid](*args, **constants)``, but at once.

    Triton derives the variant from all arguments at each launch, 20 to 40 microseconds; here it is
    looked up by what it can depend on. The caller passes arguments by position, and constants
    and options by name and in the same order always.
    """

    def __init__(self, kernel: Any) -> None:
        self.kernel = kernel
        self._variants: dict[tuple[object, ...], tuple[CompiledKernel, tuple[object, ...]]] = {}

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        return partial(self._launch, grid)

    def _launch(self, grid: tuple[int, ...], *args: Any, **constants: Any) -> None:
        passed: list[object] = []
        key: list[object] = []
        for arg in args:
            if isinstance(arg, Tensor):
                pointer = arg.data_ptr()
                passed.append(pointer)
                key.append(arg.dtype)
                key.append(pointer & 15)
            else:
                passed.append(arg)
                key.append(_kind(arg))
        key += constants.values()
        variant = self._variants.get(tuple(key))
        if variant is None or JITFunction.run is not _run:
            self._launch_slowly(tuple(key), grid, args, constants)
        else:
            kernel, rest = variant
            kernel[(*grid, 1, 1)[:3]](*passed, *rest)

    def _launch_slowly(
        self,
        key: tuple[object, ...],
        grid: tuple[int, ...],
        args: tuple[Any, ...],
        constants: dict[str, Any],
    ) -> None:
        traced = getattr(JITFunction.run, "traced", None)
        if traced is not None:
            if (id(self), key) in traced:
                return
            traced.add((id(self), key))
        kernel = self.kernel[grid](*args, **constants)
        if isinstance(kernel, CompiledKernel) and JITFunction.run is _run:
            names = self.kernel.arg_names[len(args) :]
            self._variants[key] = (kernel, tuple(constants[name] for name in names))


def _kind(arg: object) -> object:
    """What a variant can depend on in an argument that is no tensor."""
    if type(arg) is int:
        return (arg == 1, arg & 15, arg >> 31)
    if isinstance(arg, float):
        return float
    # A tensor descriptor.
    return (arg.base.dtype, *arg.block_shape)  # type: ignore[attr-defined]


def quick(kernel: Any) -> Any:
    """Makes launches of a kernel quick; the interpreter's stay as they are."""
    return QuickLaunch(kernel) if isinstance(kernel, JITFunction) else kernel


@cache
def num_processors(device: torch.device) -> int:
    """Streaming multiprocessors of the device; 4 where the interpreter plays the device."""
    if device.type != "cuda":
        return 4
    return torch.cuda.get_device_properties(device).multi_processor_count


@cache
def _overlaps(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (9, 0)


def overlaps(x: Tensor) -> bool:
    """Whether kernels on x's device are launched as programmatic dependents (Hopper and newer)."""
    return _overlaps(x.device)


@cache
def converts_e4m3(device: torch.device) -> bool:
    """Whether kernels on the device make other numbers of E4M3, and it of them: GPUs from Ada and
    Hopper on do."""
    return device.type != "cuda" or torch.cuda.get_device_capability(device) >= (8, 9)


_SHARED_KIB = {
    (7, 5): 64,
    (8, 0): 163,
    (8, 7): 163,
    (9, 0): 227,
    (10, 0): 227,
    (10, 3): 227,
    (11, 0): 227,
}
"""By compute capability, where it is not 99: CUDA's programming guide, technical specifications."""

LARGE_ROOM = 227 << 10
"""What an H200 has, and where no GPU is asked."""


def shared_bytes_of(capability: tuple[int, int]) -> int:
    """Shared memory that a program may have on GPUs of this compute capability."""
    return _SHARED_KIB.get(capability, 99) << 10


@cache
def shared_bytes(device: torch.device) -> int:
    """The same of a device."""
    if device.type != "cuda":
        return LARGE_ROOM
    return shared_bytes_of(torch.cuda.get_device_capability(device))


@cache
def runs_hopper_kernels(device: torch.device) -> bool:
    """Whether the kernels in Gluon run on the device: they use what only Hopper has, and are
    written for one version of Triton, in which that language is an experiment."""
    if device.type != "cuda" or not triton.__version__.startswith("3.6."):
        return False
    return torch.cuda.get_device_capability(device)[0] == 9


# Triton has both, for kernels too: a call from here takes 2.5 microseconds, a launch makes several.
def power_of_2(n: int) -> int:
    """The smallest power of two that is at least n."""
    return 1 << max(0, n - 1).bit_length()


def cdiv(n: int, size: int) -> int:
    """How many pieces of ``size`` n makes, the last perhaps shorter."""
    return -(-n // size)
