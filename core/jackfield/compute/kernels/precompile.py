"""Compiling kernels in parallel, before a request waits for one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import triton
from triton.runtime.jit import JITFunction


@contextmanager
def compiling_only() -> Iterator[None]:
    """Launches inside compile on threads, or load from Triton's cache on disk, and run nothing;
    what they would write stays undefined. At the end all of them are ready.

    Triton has a compile-only call for one launch, but launches here lie inside layers; so the
    call that all launches go through is made to compile only.
    """
    run = JITFunction.run

    def compile_only(self: Any, *args: Any, grid: Any, warmup: bool, **options: Any) -> Any:
        return run(self, *args, grid=grid, warmup=True, **options)

    threads = max(1, (os.cpu_count() or 1) - 1)
    with ThreadPoolExecutor(threads) as pool, triton.AsyncCompileMode(pool):
        JITFunction.run = compile_only
        try:
            yield
        finally:
            JITFunction.run = run
