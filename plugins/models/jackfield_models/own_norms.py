"""RMSNorm of ours in a model of transformers: one kernel where its code launches six.

Which of its modules are an RMSNorm, and whether they multiply by the weight or by one more (Gemma),
is seen by what they compute.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor, nn

from jackfield.compute import ops
from jackfield_models.trial import Trial


class OwnRMSNorm(nn.Module):
    """In the place of ``norm``: [..., N] -> [..., N]; the weight has ``more`` added to it."""

    _sum: Tensor | None

    def __init__(self, norm: Any, more: float) -> None:
        super().__init__()
        self.weight = norm.weight
        self._eps = _eps(norm)
        # In float32, as transformers adds it.
        both = norm.weight.detach().float() + more if more else None
        self.register_buffer("_sum", both, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return ops.rms_norm(x, self.weight if self._sum is None else self._sum, self._eps)


def norm_trial(model: Any) -> Trial:
    """Of all that may be an RMSNorm."""
    return Trial(model, _kind, [partial(OwnRMSNorm, more=0.0), partial(OwnRMSNorm, more=1.0)])


def _kind(layer: Any) -> object:
    names = [name for name, _ in (*layer.named_parameters(), *layer.named_buffers())]
    if names != ["weight"] or layer.weight.dim() != 1 or _eps(layer) is None:
        return None
    return layer.weight.shape


def _eps(norm: Any) -> Any:
    return getattr(norm, "variance_epsilon", getattr(norm, "eps", None))
