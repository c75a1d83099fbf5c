"""Compiles three variants of kernels for Hopper ahead of launches; ``python -m`` this says as JSON
how: which Triton found compiled, which it compiled itself, of which it made launchers, and how
many keys it derived.

Arguments: how many compilers to use, ``ended`` if they end before they are asked, ``launch`` if a
kernel is launched before all are ready. Triton's cache is where the environment says.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import sys
from collections.abc import Callable
from typing import Any
from unittest import mock

os.environ["TRITON_INTERPRET"] = "0"

import torch
import triton
from tests.core.compute.kernels.hopper import Driver, Launcher, launch_attention
from triton.compiler import CompiledKernel
from triton.runtime.jit import JITFunction

from jackfield.compute.kernels import launch, norm
from jackfield.compute.kernels.precompile import Precompiler
from jackfield.config.plan import WorkerPlan
from jackfield.engine import compilers

LAYERS = 20


def launch_all() -> None:
    """Two variants of one kernel, and one of Gluon's."""
    x, weight = torch.empty((4, 256)).bfloat16(), torch.empty(256).bfloat16()
    norm.rms_norm(x, weight, 1e-6)
    norm.rms_norm(x.float(), weight.float(), 1e-6)
    launch_attention()


def main(num: int, *how: str) -> None:
    """Prints ``{"found": [name], "compiled": [name], "launchers": [name], "launched": [name],
    "keys": number}``."""
    said: dict[str, Any] = {"found": [], "compiled": [], "launchers": [], "launched": [], "keys": 0}

    def listen(*, src: Any, cache_hit: bool, **rest: object) -> None:
        said["found" if cache_hit else "compiled"].append(src.name)

    class NotedLauncher(Launcher):
        def __init__(self, source: Any, metadata: Any) -> None:
            super().__init__(source, metadata)
            said["launchers"].append(self.name)

    def run(self: Any) -> Callable[..., None]:
        return lambda *arguments: said["launched"].append(self.name)

    pack_args = JITFunction._pack_args

    def derive(self: Any, *args: Any) -> Any:
        said["keys"] += 1
        return pack_args(self, *args)

    logging.basicConfig(level=logging.WARNING)
    triton.runtime.driver.set_active(Driver())
    triton.knobs.compilation.listener = listen
    plan = WorkerPlan(
        model="none",
        config={},
        device="cuda",
        dtype="bfloat16",
        max_model_len=1,
        max_num_seqs=1,
        max_num_batched_tokens=1,
        block_size=1,
        max_compilers=num,
    )
    with (
        mock.patch.object(JITFunction, "_pack_args", derive),
        mock.patch.object(CompiledKernel, "run", property(run)),
        mock.patch.object(CompiledKernel, "_init_handles", lambda self: None),
        mock.patch.object(Driver, "launcher_cls", NotedLauncher),
        mock.patch.object(launch, "_overlaps", lambda device: True),
        mock.patch.object(compilers, "num_processors", lambda: num + 2),
        compilers.compilers(plan) as worker,
    ):
        assert len(worker.compilers) == num
        if "ended" in how:
            for descriptor in worker.compilers:
                socket.socket(fileno=os.dup(descriptor)).shutdown(socket.SHUT_RDWR)
        precompiler = Precompiler(worker.compilers)
        for _ in range(2):
            with precompiler.tracing():
                for _ in range(LAYERS):
                    launch_all()
        if "launch" in how:
            # Nothing is finished: the launch waits for its kernel.
            x, weight = torch.empty((4, 256)).bfloat16(), torch.empty(256).bfloat16()
            norm.rms_norm(x, weight, 1e-6)
        precompiler.finish()
    print(json.dumps(said))


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:])
