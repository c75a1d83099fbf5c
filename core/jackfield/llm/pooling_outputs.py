"""What ``LLM.embed``, ``encode``, ``classify`` and ``score`` return; vLLM's names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

Output = TypeVar("Output")


@dataclass(frozen=True, slots=True)
class PoolingOutput:
    """A vector, or one for each token: an embedding, or what a classifier says of each label."""

    data: list[float] | list[list[float]]


@dataclass(frozen=True, slots=True)
class EmbeddingOutput:
    """A text as a vector."""

    embedding: list[float]

    @property
    def hidden_size(self) -> int:
        """Its dimensions."""
        return len(self.embedding)


@dataclass(frozen=True, slots=True)
class ClassificationOutput:
    """A probability for each label."""

    probs: list[float]

    @property
    def num_classes(self) -> int:
        """How many labels there are."""
        return len(self.probs)


@dataclass(frozen=True, slots=True)
class ScoringOutput:
    """How well two texts go together."""

    score: float


@dataclass(frozen=True, slots=True)
class PooledRequestOutput(Generic[Output]):
    """One prompt and what it has ended in."""

    request_id: str
    outputs: Output
    prompt_token_ids: tuple[int, ...]
    num_cached_tokens: int = 0
    finished: bool = True
