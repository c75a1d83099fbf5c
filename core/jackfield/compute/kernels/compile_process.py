"""Compilers for an engine: ``python -m jackfield.compute.kernels.compile_process SOCKET ...``.

What kernels need is imported once; then a process is forked for each socket (a file descriptor,
message by message). It compiles one variant after the other into Triton's cache on disk, and ends
when the engine closes its end.
"""

from __future__ import annotations

import os
import socket
import sys

# Most kernels need it, and torch: imported before the fork. Compilers import others as they come.
import jackfield.compute.attention.triton  # noqa: F401
from jackfield.compute.kernels.variant import DONE, MAX_BYTES, compile_packed


def main(arguments: list[str]) -> int:
    """Returns when all compilers have ended."""
    sockets = [socket.socket(fileno=int(word)) for word in arguments]
    for connection in sockets:
        if os.fork() == 0:
            for other in sockets:
                if other is not connection:
                    other.close()
            _serve(connection)
            os._exit(0)
    for connection in sockets:
        connection.close()
    for _ in sockets:
        os.wait()
    return 0


def _serve(connection: socket.socket) -> None:
    try:
        while packed := connection.recv(MAX_BYTES):
            connection.send(_answer(packed))
    except OSError:
        return  # the engine is gone


def _answer(packed: bytes) -> bytes:
    """``DONE``, or why not."""
    try:
        compile_packed(packed)
    except Exception as error:  # whatever a compiler raises: the engine meets it itself
        return f"{type(error).__name__}: {error}".encode()[:1000]
    return DONE


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
