"""Compiling kernels in parallel, before a request waits for one."""

from __future__ import annotations

import logging
import os
import queue
import socket
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any

import triton
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from triton.runtime.jit import JITFunction

from jackfield.compute.kernels.variant import DONE, pack

log = logging.getLogger(__name__)

_MANY_ROWS = 2048


@contextmanager
def compiling_only(sockets: Sequence[int] = ()) -> Iterator[None]:
    """Launches inside compile, or load from Triton's cache on disk, and run nothing, nor do matrix
    products of many rows; what they would write stays undefined. At the end all are ready.

    ``sockets``: file descriptors of processes that compile beside this one
    (``compile_process``). Without them threads do, and hold each other up, because the half of a
    compilation is Python. What those processes cannot compile is compiled here.
    """
    compilers = Compilers(sockets)
    threads = len(sockets) or max(1, (os.cpu_count() or 1) - 1)
    try:
        with (
            ThreadPoolExecutor(threads) as pool,
            _launches_that_compile(compilers),
            _CompileMode(pool),
            _NoLongProducts(),
        ):
            yield
    finally:
        compilers.close()


class Compilers:
    """Processes that each compile a variant at a time. The sockets stay their owner's."""

    def __init__(self, sockets: Sequence[int]) -> None:
        self._idle: queue.SimpleQueue[socket.socket] = queue.SimpleQueue()
        for descriptor in sockets:
            self._idle.put(socket.socket(fileno=os.dup(descriptor)))

    def compile(self, source: Any, target: Any, options: dict[str, object]) -> None:
        """Waits until a process has compiled ``source`` into the cache on disk, or cannot.
        At most as many threads call this at a time as there are processes."""
        try:
            connection = self._idle.get_nowait()
        except queue.Empty:
            return
        try:
            connection.send(pack(source, target, options))
            answer = connection.recv(1 << 12)
        except Exception as error:  # whatever constants raise when they are packed, or OSError
            answer = f"{type(error).__name__}: {error}".encode()
        if answer:
            self._idle.put(connection)
        else:
            connection.close()
        if answer != DONE:
            reason = answer.decode(errors="replace") or "its compiler has ended"
            log.warning("kernel %s is compiled by the engine itself: %s", source.name, reason)

    def close(self) -> None:
        """Lets go of them."""
        while not self._idle.empty():
            self._idle.get().close()


class _CompileMode(triton.AsyncCompileMode):  # type: ignore[misc]
    """Triton's own, but a variant under way counts as one that the kernel has: a model launches
    each of them once a layer, and Triton would derive its key anew each time."""

    def submit(self, key: Any, compile_fn: Any, finalize_fn: Any) -> Any:
        future = super().submit(key, compile_fn, finalize_fn)
        finalize_fn(future)
        return future


@contextmanager
def _launches_that_compile(compilers: Compilers) -> Iterator[None]:
    """Triton has a compile-only call for one launch, but launches here lie inside layers; so the
    call that all launches go through is made to compile only."""
    run = JITFunction.run
    compiles: dict[int, tuple[Any, Callable[..., Any]]] = {}

    def compile_only(self: Any, *args: Any, grid: Any, warmup: bool, **options: Any) -> Any:
        if id(self) not in compiles:
            # A kernel gets its compiler with what binds its arguments, once a device.
            self.device_caches[triton.runtime.driver.active.get_current_device()]
            compiles[id(self)] = (self, self.compile)
            self.compile = partial(_compile, compilers, self.compile)
        return run(self, *args, grid=grid, warmup=True, **options)

    JITFunction.run = compile_only
    try:
        yield
    finally:
        JITFunction.run = run
        for kernel, compile_here in compiles.values():
            kernel.compile = compile_here


class _NoLongProducts(TorchFunctionMode):
    """Steps of many tokens are there for the variants that they launch: half a second of
    products for a model of 8 billion weights, and the start's first real step would wait. Of few
    tokens they are computed, because cuBLAS loads its code, too, when it is first used."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is functional.linear and args[0].shape[:-1].numel() > _MANY_ROWS:
            x, weight = args[:2]
            return x.new_empty((*x.shape[:-1], len(weight)))
        return func(*args, **(kwargs or {}))


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
