"""Root mean square normalization (arXiv 1910.07467)."""

from __future__ import annotations

from typing import overload

import torch
from torch import Tensor, nn

from jackfield.compute import ops
from jackfield.compute.weights import LoadableLayer
from jackfield.contracts.model import BuildContext


class RMSNorm(LoadableLayer):
    """x / rms(x) * weight, computed in float32; ``size`` is the last dimension of x."""

    def __init__(self, size: int, *, eps: float, context: BuildContext) -> None:
        super().__init__()
        self.eps = eps
        empty = torch.empty(size, dtype=context.dtype, device=context.device)
        self.weight = nn.Parameter(empty, requires_grad=False)

    @overload
    def forward(self, x: Tensor) -> Tensor: ...
    @overload
    def forward(self, x: Tensor, residual: Tensor) -> tuple[Tensor, Tensor]: ...
    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor | tuple[Tensor, Tensor]:
        """[T, size] -> [T, size]; with a residual: (norm of the sum, the sum), and the
        residual's memory may be reused for the sum."""
        if residual is None:
            return ops.rms_norm(x, self.weight, self.eps)
        return ops.add_rms_norm(x, residual, self.weight, self.eps)
