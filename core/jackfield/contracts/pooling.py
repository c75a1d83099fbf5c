"""A prompt that ends in a vector: as the one door takes it, and what comes out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class PoolingRequest:
    """One prompt; ``prompt_token_ids`` is checked and fits the context."""

    request_id: str
    prompt_token_ids: tuple[int, ...]
    prompt_text: str | None = None
    priority: int = 0
    cache_salt: str | None = None
    user: str | None = None


@dataclass(frozen=True, slots=True)
class Pooled:
    """What the model made of a prompt: float32 [D], or [T, D] where each of its T tokens has a
    vector; as it is: not normalized, no activation."""

    vector: Vector
    num_cached_tokens: int = 0


@dataclass(frozen=True, slots=True)
class PoolingParams:
    """What is done to a vector at last; vLLM's names. None means what the model's files, and the
    server's options, say.

    ``dimensions`` cuts an embedding (Matryoshka); ``normalize`` makes its length 1;
    ``use_activation`` turns the logits of a classifier into probabilities.
    """

    dimensions: int | None = None
    normalize: bool | None = None
    use_activation: bool | None = None
