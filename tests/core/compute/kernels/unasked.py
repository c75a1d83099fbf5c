"""Compilers on a machine that seems to have a GPU of Hopper's kind; the words are sockets."""

from __future__ import annotations

import os
import sys
from unittest import mock

os.environ["TRITON_INTERPRET"] = "0"

from triton.backends.nvidia import driver

from jackfield.compute.kernels import compile_process


def launcher(source: object, metadata: object) -> None:
    """C that is linked with the driver's library, which is not here."""


if __name__ == "__main__":
    with (
        mock.patch.object(compile_process, "compute_capability", lambda: (9, 0)),
        mock.patch.object(driver, "CudaLauncher", launcher),
    ):
        sys.exit(compile_process.main(sys.argv[1:]))
