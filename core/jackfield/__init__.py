"""An LLM serving engine made of a small kernel and plugins."""

from __future__ import annotations

from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from jackfield.contracts.grammar import StructuredOutputs
    from jackfield.contracts.pooling import PoolingParams
    from jackfield.contracts.sampling import SamplingParams
    from jackfield.llm import LLM

__all__ = ["LLM", "PoolingParams", "SamplingParams", "StructuredOutputs", "__version__"]


def __getattr__(name: str) -> object:
    """Imports the public classes when they are used: ``--help`` must not pay for them."""
    if name == "LLM":
        from jackfield.llm import LLM

        return LLM
    if name == "StructuredOutputs":
        from jackfield.contracts.grammar import StructuredOutputs

        return StructuredOutputs
    if name == "PoolingParams":
        from jackfield.contracts.pooling import PoolingParams

        return PoolingParams
    if name == "SamplingParams":
        from jackfield.contracts.sampling import SamplingParams

        return SamplingParams
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
