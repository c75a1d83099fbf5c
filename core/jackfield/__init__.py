"""An LLM serving engine made of a small kernel and plugins."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from jackfield.contracts.grammar import StructuredOutputs
    from jackfield.contracts.pooling import PoolingParams
    from jackfield.contracts.sampling import SamplingParams
    from jackfield.llm import LLM

__all__ = ["LLM", "PoolingParams", "SamplingParams", "StructuredOutputs", "__version__"]
_MODULES = {
    "LLM": "jackfield.llm",
    "PoolingParams": "jackfield.contracts.pooling",
    "SamplingParams": "jackfield.contracts.sampling",
    "StructuredOutputs": "jackfield.contracts.grammar",
}


def __getattr__(name: str) -> object:
    """Imports the public classes when they are used: ``--help`` must not pay for them."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)
