"""A kernel's variant: what another process needs to compile it for the same cache."""

from __future__ import annotations

import importlib
import io
import pickle
from dataclasses import dataclass
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.runtime.jit import JITCallable, JITFunction

from jackfield.compute.kernels.launch import QuickLaunch

MAX_BYTES = 128 << 10
"""Of a packed variant; usual ones have some 2,000."""
DONE = b"done"
"""What a compiler answers when a variant is in the cache."""


@dataclass(frozen=True, slots=True)
class Variant:
    """``source`` (Triton's ``ASTSource`` or Gluon's) for a target, with the compiler's options."""

    source: Any
    target: GPUTarget
    options: dict[str, object]

    def key(self) -> str:
        """The same for the same variant in every process."""
        return f"{self.source.hash()}-{self.target}-{sorted(self.options.items())}"

    def compile(self) -> Any:
        """The kernel, which is in Triton's cache on disk then. Raises what Triton does."""
        triton.runtime.driver.set_active(TargetDriver(self.target))
        return triton.compile(self.source, target=self.target, options=self.options)


def pack(variant: Variant) -> bytes:
    """Raises what ``pickle`` does where a constant cannot be sent."""
    file = io.BytesIO()
    source = variant.source
    parts = (source.fn, source.signature, source.constants, source.attrs)
    _Pickler(file).dump((type(source), *parts, variant.target, variant.options))
    return file.getvalue()


def unpack(packed: bytes) -> Variant:
    """The bytes come from our own engine. ``LookupError`` where this process has another kernel."""
    kind, kernel, signature, constants, attributes, target, options = pickle.loads(packed)
    return Variant(kind(kernel, signature, constants, attributes), target, options)


def cache_key(kernel: Any) -> str:
    """Triton's key of a kernel's source. On its own that depends on whether the functions that the
    kernel calls have theirs already, if they use constants of their module: here they always
    have, so that every process finds the same."""
    if kernel.hash is None:
        for name in kernel.fn.__code__.co_names:
            called = kernel.__globals__.get(name)
            if isinstance(called, JITCallable) and called is not kernel:
                cache_key(called)
    key: str = kernel.cache_key
    return key


def find_kernel(module: str, name: str, key: str) -> Any:
    """The kernel of a module, by its name in it, if its source has the key."""
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    if isinstance(found, QuickLaunch):
        found = found.kernel
    if not isinstance(found, JITFunction) or cache_key(found) != key:
        raise LookupError(f"{module} has another {name}")
    return found


class _Pickler(pickle.Pickler):
    """Kernels by name: the other process has the same source."""

    def reducer_override(self, value: object) -> Any:
        if not isinstance(value, JITFunction):
            return NotImplemented
        return find_kernel, (value.fn.__module__, value.fn.__qualname__, cache_key(value))


class TargetDriver:
    """Answers what Triton asks of the device, without one."""

    def __init__(self, target: GPUTarget) -> None:
        self._target = target

    def get_current_target(self) -> GPUTarget:
        return self._target

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0
