"""Kernels in C for the CPU, compiled on the machine that they run on.

``kernels_for(dtype)`` and ``code_kernels_for(dtype)`` are what the rest of ``compute`` asks;
without a C compiler the answer is None, and torch operations do the same work.
"""

from __future__ import annotations

from jackfield.compute.native.library import (
    WHOLE_ROW,
    CodeKernels,
    Codes,
    Kernels,
    Turn,
    attends,
    code_kernels_for,
    kernels_for,
    multiplies,
)
from jackfield.compute.native.prompts import attends_prompts, prompt_kernels_for

__all__ = [
    "WHOLE_ROW",
    "CodeKernels",
    "Codes",
    "Kernels",
    "Turn",
    "attends",
    "attends_prompts",
    "code_kernels_for",
    "kernels_for",
    "multiplies",
    "prompt_kernels_for",
]
