"""Launches that run nothing: whoever traces is given each variant that they would have launched."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import triton
from triton.runtime.jit import JITFunction

from jackfield.compute.kernels.variant import cache_key


@contextmanager
def tracing(submit: Callable[..., Any]) -> Iterator[list[Any]]:
    """Gives each new variant to ``submit(compile, source, target=..., options=...)``, whose result
    Triton keeps as the variant; ``compile`` is what Triton would have called with the rest. For
    the whole process. Yields the kernels that are launched, in which Triton keeps them.

    Triton has a compile-only call for one launch, but launches here lie inside layers: the call
    that all of them go through is made to compile only.
    """
    run = JITFunction.run
    kernels: list[Any] = []
    compile_here: dict[int, Callable[..., Any]] = {}

    def compile_only(kernel: Any, /, *args: Any, grid: Any, warmup: bool, **rest: Any) -> Any:
        if id(kernel) not in compile_here:
            cache_key(kernel)
            # A kernel gets its compiler with what binds its arguments, once a device.
            kernel.device_caches[triton.runtime.driver.active.get_current_device()]
            kernels.append(kernel)
            compile_here[id(kernel)] = kernel.compile
            kernel.compile = partial(submit, kernel.compile)
        return run(kernel, *args, grid=grid, warmup=True, **rest)

    # What has been traced: layers launch the same over and over (``launch.QuickLaunch``).
    compile_only.traced = set()  # type: ignore[attr-defined]
    JITFunction.run = compile_only
    try:
        yield kernels
    finally:
        JITFunction.run = run
        for kernel in kernels:
            kernel.compile = compile_here[id(kernel)]
