"""Kernels in C for the CPU, compiled on the machine that they run on.

``kernels_for(dtype)`` is what the rest of ``compute`` asks; without a C compiler the answer is
None, and torch operations do the same work.
"""

from __future__ import annotations

from jackfield.compute.native.library import Kernels, Turn, attends, kernels_for

__all__ = ["Kernels", "Turn", "attends", "kernels_for"]
