"""Kernels in C for the CPU, compiled on the machine that they run on.

``kernels_for(dtype)`` is what the rest of ``compute`` asks; without a C compiler the answer is
None, and torch operations do the same work.
"""

from __future__ import annotations

from jackfield.compute.native.library import (
    WHOLE_ROW,
    Codes,
    Kernels,
    Turn,
    attends,
    kernels_for,
    multiplies,
)

__all__ = ["WHOLE_ROW", "Codes", "Kernels", "Turn", "attends", "kernels_for", "multiplies"]
