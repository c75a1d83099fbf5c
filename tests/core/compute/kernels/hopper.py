"""Compiles kernels for Hopper without a GPU: what a launch would compile, and its cost.

Inside ``compiling()`` a launch compiles for sm_90 exactly as it would on the device (same
specialization of arguments, same options) and runs nothing. Not to be used where the interpreter
is on.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.runtime.jit import JITFunction

from jackfield.compute.kernels import hopper_attention, launch

H200_PROCESSORS = 132


@dataclass(frozen=True)
class Compiled:
    kernel: str
    variant: str
    seconds: float
    registers: int
    spilled_bytes: int
    shared_bytes: int
    ptx: str


class Launcher:
    """Would be compiled for a kernel."""

    def __init__(self, source: Any, metadata: Any) -> None:
        self.name = source.name


class Driver:
    """Answers what a launch asks of the device."""

    launcher_cls = Launcher

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


def _resources(cubin: bytes) -> tuple[int, int]:
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        text = subprocess.run(
            [tool, "--dump-resource-usage", file.name], capture_output=True, text=True, check=True
        ).stdout
    registers = int(re.findall(r"REG:(\d+)", text)[-1])
    stack = int(re.findall(r"STACK:(\d+)", text)[-1])
    return registers, stack


@contextmanager
def compiling() -> Iterator[list[Compiled]]:
    """Yields the list that each launch inside appends to."""
    compiled: list[Compiled] = []
    run = JITFunction.run

    def compile_only(self: Any, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> Any:
        assert all(n > 0 for n in grid), f"{self.__name__} launched with grid {grid}"
        start = time.perf_counter()
        kernel = run(self, *args, grid=grid, warmup=True, **kwargs)
        seconds = time.perf_counter() - start
        usage = _resources(kernel.asm["cubin"])
        shared = kernel.metadata.shared
        compiled.append(
            Compiled(self.__name__, kernel.hash, seconds, *usage, shared, kernel.asm["ptx"])
        )
        return kernel

    triton.runtime.driver.set_active(Driver())
    with (
        mock.patch.object(JITFunction, "run", compile_only),
        mock.patch.object(launch, "_overlaps", lambda device: True),
    ):
        yield compiled


def launch_attention() -> Tensor:
    """Hopper's own attention, of 300 bfloat16 queries in 32 heads; the pages that it was over."""
    q = torch.empty(300, 32, 128, dtype=torch.bfloat16)
    pages = torch.empty(3, 8, 64, 128, dtype=torch.bfloat16)
    numbers = torch.zeros(400, dtype=torch.int32)
    hopper_attention.hopper_attention(
        q,
        pages,
        pages,
        numbers,
        numbers,
        numbers,
        numbers.view(20, 20),
        q,
        first_seq=1,
        num_seqs=4,
        num_tokens=300,
        scale=0.1,
    )
    return pages
