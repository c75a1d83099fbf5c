"""Compiling kernels in parallel, before a request waits for one."""

from __future__ import annotations

import logging
import os
import queue
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import torch
import triton
from torch import Tensor
from torch.nn import functional

from jackfield.compute.kernels.tracing import tracing
from jackfield.compute.kernels.variant import DONE, Variant, pack

log = logging.getLogger(__name__)

_MANY_ROWS = 2048
_SWITCH_SECONDS = 0.0005
"""How long a thread that loads kernels may keep the one that launches from going on. By Python's
default it is 5 ms, which each of a step's hundreds of calls into torch may have to wait."""
_PATIENCE_SECONDS = 60.0
"""A variant takes 4 s at most on a core of its own."""


class Precompiler:
    """Compiles what is launched while it traces, in the background, or loads it from Triton's cache
    on disk; ``finish`` waits until all of it is ready to run.

    ``sockets``: file descriptors of processes that compile beside this one
    (``compile_process``). Without them threads do, and hold each other up, because the half of a
    compilation is Python. What those processes cannot compile is compiled here.
    """

    def __init__(self, sockets: Sequence[int] = ()) -> None:
        self._compilers = Compilers(sockets)
        self._pool = ThreadPoolExecutor(len(sockets) or max(1, (os.cpu_count() or 1) - 1))
        self._kernels: list[Any] = []
        self._switch_seconds = sys.getswitchinterval()
        sys.setswitchinterval(_SWITCH_SECONDS)

    @contextmanager
    def tracing(self) -> Iterator[None]:
        """Launches inside run nothing, nor are matrix products of many rows computed; what they
        would write stays undefined. For the whole process."""
        with tracing(self._submit) as kernels, _no_long_products():
            yield
        self._kernels += kernels

    def finish(self) -> None:
        """Waits for all that was traced; raises what a compilation has raised. Called once."""
        self._pool.shutdown()
        self._compilers.close()
        sys.setswitchinterval(self._switch_seconds)
        for kernel in self._kernels:
            for variants, *_ in kernel.device_caches.values():
                for key, variant in variants.items():
                    if isinstance(variant, Future):
                        variants[key] = variant.result()

    def _submit(self, compile_here: Callable[..., Any], source: Any, **rest: Any) -> Future[Any]:
        """What Triton keeps as the variant until ``finish``: a launch would wait for its result."""
        return self._pool.submit(_compile, self._compilers, compile_here, source, **rest)


class Compilers:
    """Processes that each compile a variant at a time. The sockets stay their owner's."""

    def __init__(self, sockets: Sequence[int]) -> None:
        self._idle: queue.SimpleQueue[socket.socket] = queue.SimpleQueue()
        for descriptor in sockets:
            connection = socket.socket(fileno=os.dup(descriptor))
            connection.settimeout(_PATIENCE_SECONDS)
            self._idle.put(connection)

    def compile(self, source: Any, target: Any, options: dict[str, object]) -> None:
        """Waits until a process has compiled ``source`` into the cache on disk, or cannot.
        At most as many threads call this at a time as there are processes."""
        try:
            connection = self._idle.get_nowait()
        except queue.Empty:
            return
        try:
            answer = _ask(connection, pack(Variant(source, target, options)))
        except Exception as error:  # whatever constants raise when they are packed
            answer = f"{type(error).__name__}: {error}".encode()
        if answer:
            self._idle.put(connection)
        else:
            connection.close()
        if answer != DONE:
            reason = answer.decode(errors="replace") or "its compiler does not answer"
            log.warning("kernel %s is compiled by the engine itself: %s", source.name, reason)

    def close(self) -> None:
        """Lets go of them."""
        while not self._idle.empty():
            self._idle.get().close()


def _ask(connection: socket.socket, packed: bytes) -> bytes:
    """Nothing from a process that has ended, or is too long about it."""
    try:
        connection.send(packed)
        return connection.recv(1 << 12)
    except OSError:
        return b""


@contextmanager
def _no_long_products() -> Iterator[None]:
    """Steps of many tokens are there for the variants that they launch: half a second of
    products for a model of 8 billion weights, and the start's first real step would wait. Of few
    tokens they are computed, because cuBLAS loads its code, too, when it is first used. Replaced
    for the whole process: a ``TorchFunctionMode`` would see every look at a shape."""
    compute, compute_sum = functional.linear, torch.addmm

    # Called by models of transformers too: any arguments that torch takes.
    def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        if input.shape[:-1].numel() > _MANY_ROWS:
            return input.new_empty((*input.shape[:-1], len(weight)))
        return compute(input, weight, bias)

    def addmm(*given: Any, out: Tensor | None = None, **named: Any) -> Tensor:
        if out is not None and len(out) > _MANY_ROWS:
            return out
        return compute_sum(*given, out=out, **named)

    functional.linear = linear
    torch.addmm = addmm
    try:
        yield
    finally:
        functional.linear, torch.addmm = compute, compute_sum


class _NotCachedError(Exception):
    pass


def _compile(
    compilers: Compilers,
    compile_here: Callable[..., Any],
    source: Any,
    target: Any,
    options: dict[str, object],
    **rest: Any,
) -> Any:
    """Triton's ``compile``, which loads what is in the cache. What is not gets there first, with
    its launcher: that is C, which Triton compiles when a kernel is first launched."""
    # Triton asks the source for its code after it has looked into the cache.
    source.make_ir = _not_cached
    try:
        return compile_here(source, target=target, options=options, **rest)
    except _NotCachedError:
        compilers.compile(source, target, options)
    finally:
        del source.make_ir
    kernel = compile_here(source, target=target, options=options, **rest)
    triton.runtime.driver.active.launcher_cls(kernel.src, kernel.metadata)
    return kernel


def _not_cached(*args: object, **kwargs: object) -> Any:
    raise _NotCachedError
