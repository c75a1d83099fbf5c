"""What is done to a vector at last: an embedding cut and normalized, scores to probabilities."""

from __future__ import annotations

import numpy as np

from jackfield.contracts.pooling import PoolingParams, Vector
from jackfield.errors import RequestError
from jackfield.planning.pooling import Activation, PoolingPlan

_SMALLEST_NORM = 1e-12


def check_params(plan: PoolingPlan, params: PoolingParams) -> None:
    """Refuses what this model cannot do, before anything is computed."""
    if plan.task == "classify":
        for name in ("dimensions", "normalize"):
            if getattr(params, name) is not None:
                raise RequestError(
                    f"{name} is for embeddings; this model scores labels", param=name
                )
        return
    if params.use_activation is not None:
        raise RequestError(
            "use_activation is for classifiers; this model makes embeddings, see normalize",
            param="use_activation",
        )
    if params.dimensions is not None:
        _check_dimensions(plan, params.dimensions)


def _check_dimensions(plan: PoolingPlan, dimensions: int) -> None:
    if plan.matryoshka is None:
        raise RequestError(
            "this model's embeddings cannot be cut to other dimensions: it is not known to be "
            "trained for that (start the server with --hf-overrides '{\"is_matryoshka\": true}' "
            "if it is)",
            param="dimensions",
        )
    if dimensions < 1:
        raise RequestError(f"dimensions must be at least 1, not {dimensions}", param="dimensions")
    if plan.matryoshka and dimensions not in plan.matryoshka:
        raise RequestError(
            f"dimensions must be one of {', '.join(map(str, plan.matryoshka))} for this model, "
            f"not {dimensions}",
            param="dimensions",
        )


def finish_vector(vector: Vector, plan: PoolingPlan, params: PoolingParams) -> Vector:
    """The vector as it is answered, or those of all tokens, [T, D]; ``params`` have been
    checked."""
    if plan.task == "classify":
        wanted = plan.use_activation if params.use_activation is None else params.use_activation
        return _activated(vector, plan.activation, wanted)
    dimensions = params.dimensions or plan.dimensions
    if dimensions is not None:
        size = vector.shape[-1]
        if dimensions > size:
            raise RequestError(
                f"dimensions is {dimensions}; this model has {size}", param="dimensions"
            )
        vector = vector[..., :dimensions]
    normalize = plan.normalize if params.normalize is None else params.normalize
    return unit(vector) if normalize else vector


def unit(vector: Vector) -> Vector:
    """The vector with length 1, or all of them."""
    norm = np.linalg.norm(vector, axis=-1, keepdims=True)
    scaled: Vector = vector / np.maximum(norm, np.float32(_SMALLEST_NORM))
    return scaled


def cosine(one: Vector, other: Vector) -> float:
    """How alike two embeddings are: 1 for the same direction."""
    return float(np.dot(unit(one), unit(other)))


def _activated(scores: Vector, activation: Activation, wanted: bool) -> Vector:
    if activation == "yes_no":
        # softmax over (no, yes) is the sigmoid of their difference.
        scores, activation = scores[1:] - scores[:1], "sigmoid"
    if not wanted or activation == "none":
        return scores
    if activation == "sigmoid":
        # By tanh, which does not overflow.
        sigmoid: Vector = np.float32(0.5) * (1 + np.tanh(scores / 2))
        return sigmoid
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    probabilities: Vector = powers / powers.sum(axis=-1, keepdims=True)
    return probabilities
