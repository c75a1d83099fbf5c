"""Compilers for an engine: ``python -m jackfield.compute.kernels.compile_process SOCKET ...``.

The engine's plan comes through standard input. What kernels need is imported once, without torch,
then processes are forked. Some compile what the plan lets expect, before anybody asks for it; one
for each socket (a file descriptor) compiles what the engine asks for, message by message, and ends
when the engine closes its end. All of it goes into Triton's cache on disk.
"""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import logging
import os
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING, BinaryIO

import msgspec

from jackfield.compute import kernels
from jackfield.compute.kernels import shapes
from jackfield.config.bytecode import keep_bytecode
from jackfield.config.plan import WorkerPlan
from jackfield.errors import ConfigError

if TYPE_CHECKING:
    from jackfield.compute.kernels.variant import Variant

log = logging.getLogger(__name__)

_MAJOR, _MINOR = 75, 76
"""The compute capability's parts in the driver's list of attributes."""


def main(arguments: list[str]) -> int:
    """Returns when all compilers have ended."""
    keep_bytecode()
    sockets = [socket.socket(fileno=int(word)) for word in arguments]
    plan = msgspec.json.decode(sys.stdin.buffer.read(), type=WorkerPlan)
    has_driver, variants = _prepare(plan)
    num_unasked = min(len(variants), len(sockets))
    with tempfile.TemporaryFile() as locks:
        compiler = Compiler(locks, has_driver)
        for place in range(num_unasked):
            _fork(partial(compiler.compile_unasked, variants[place::num_unasked]), but=sockets)
        _get_ready()
        for connection in sockets:
            others = [other for other in sockets if other is not connection]
            _fork(partial(compiler.serve, connection), but=others)
    for connection in sockets:
        connection.close()
    for _ in range(num_unasked + len(sockets)):
        os.wait()
    return 0


def _prepare(plan: WorkerPlan) -> tuple[bool, list[Variant]]:
    """Imports what compilers need. Whether there is a driver, and what may be compiled before the
    engine asks."""
    answer = _ask_driver()
    shapes.stand_in(lambda: capability or (0, 0))
    from jackfield.compute.kernels.prediction import predicted

    capability = answer()
    if capability is None:
        return False, []
    try:
        return True, predicted(plan, capability)
    except ConfigError:  # the engine says so
        return True, []
    except Exception:  # whatever is not like torch: the engine asks for the same a little later
        log.warning("no kernel is compiled before it is asked for", exc_info=True)
        return True, []


def _get_ready() -> None:
    """What every compiler would do at its first variant, once, while the engine still imports."""
    from triton.runtime.cache import triton_key

    # Triton hashes itself, half a second.
    triton_key()
    for module in iter_modules(kernels.__path__, f"{kernels.__name__}."):
        with suppress(Exception):  # it is imported again where it is needed
            import_module(module.name)


def _ask_driver() -> Callable[[], tuple[int, int] | None]:
    """Begins to find out the compute capability; what is returned waits for it. In a process of its
    own: the driver takes half a second, and starts threads, behind which nobody forks."""
    reading, writing = os.pipe()
    _fork(lambda: _write_capability(writing))
    os.close(writing)

    def answer() -> tuple[int, int] | None:
        with open(reading, "rb") as pipe:
            words = pipe.read().split()
        os.wait()
        return (int(words[0]), int(words[1])) if words else None

    return answer


def _write_capability(descriptor: int) -> None:
    capability = compute_capability()
    if capability is not None:
        os.write(descriptor, b"%d %d" % capability)


def _fork(work: Callable[[], None], but: Sequence[socket.socket] = ()) -> None:
    if os.fork() == 0:
        for connection in but:
            connection.close()
        try:
            work()
        finally:
            os._exit(0)


class Compiler:
    """Made once, before the processes are forked that compile: ``locks`` is a file that all of them
    have open. ``has_driver``: whether launchers, C over the driver's library, are compiled too."""

    def __init__(self, locks: BinaryIO, has_driver: bool) -> None:
        self._locks, self._has_driver = locks, has_driver

    def serve(self, connection: socket.socket) -> None:
        """Answers each packed variant, once it is compiled, until the other end is closed."""
        from jackfield.compute.kernels.variant import MAX_BYTES

        with suppress(OSError):  # the engine is gone
            while packed := connection.recv(MAX_BYTES):
                connection.send(self._answer(packed))

    def compile_unasked(self, variants: Sequence[Variant]) -> None:
        """One after the other."""
        for variant in variants:
            with suppress(Exception):  # the engine meets it itself
                self._compile(variant)

    def _answer(self, packed: bytes) -> bytes:
        """``DONE``, or why not."""
        from jackfield.compute.kernels.variant import DONE, unpack

        try:
            self._compile(unpack(packed))
        except Exception as error:  # whatever a compiler raises: the engine meets it itself
            return f"{type(error).__name__}: {error}".encode()[:1000]
        return DONE

    def _compile(self, variant: Variant) -> None:
        with self._held(variant.key()):
            kernel = variant.compile()
        if self._has_driver:
            from triton.backends.nvidia.driver import CudaLauncher

            CudaLauncher(kernel.src, kernel.metadata)

    @contextmanager
    def _held(self, key: str) -> Iterator[None]:
        """No other of the processes compiles the same: whoever comes later finds it compiled. A
        byte of a file stands for a key."""
        place = int.from_bytes(hashlib.sha256(key.encode()).digest()[:7])
        fcntl.lockf(self._locks, fcntl.LOCK_EX, 1, place)
        try:
            yield
        finally:
            fcntl.lockf(self._locks, fcntl.LOCK_UN, 1, place)


def compute_capability() -> tuple[int, int] | None:
    """Of the first GPU, from the driver; None where there is none."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    device, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    if driver.cuInit(0) or driver.cuDeviceGet(ctypes.byref(device), 0):
        return None
    for found, attribute in ((major, _MAJOR), (minor, _MINOR)):
        if driver.cuDeviceGetAttribute(ctypes.byref(found), attribute, device):
            return None
    return major.value, minor.value


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
