"""The gated feed-forward block, SwiGLU (arXiv 2002.05202)."""

from __future__ import annotations

from torch import Tensor, nn

from jackfield.compute import ops
from jackfield.compute.kernels.scaled_rows import PassedRows, RoundedRows
from jackfield.compute.layers.linear import MergedColumnParallelLinear, RowParallelLinear
from jackfield.contracts.model import BuildContext
from jackfield.errors import CheckpointError


def check_activation(name: str) -> None:
    """``CheckpointError`` for a gate that is not SiLU."""
    if name not in ("silu", "swish"):
        raise CheckpointError(
            f"the activation {name!r} is not supported here; try --model-impl transformers"
        )


class GatedMLP(nn.Module):
    """down(silu(gate(x)) * up(x)), gate and up as one multiplication; with ``clamp`` (alpha,
    limit) ``ops.clamped_swiglu`` is between."""

    def __init__(
        self,
        hidden: int,
        intermediate: int,
        *,
        bias: bool = False,
        activation: str = "silu",
        clamp: tuple[float, float] | None = None,
        context: BuildContext,
        prefix: str,
    ) -> None:
        super().__init__()
        check_activation(activation)
        self._clamp = clamp
        self.gate_up_proj = MergedColumnParallelLinear(
            hidden,
            {"gate_proj": intermediate, "up_proj": intermediate},
            bias=bias,
            context=context,
            prefix=f"{prefix}.gate_up_proj",
        )
        self.down_proj = RowParallelLinear(
            intermediate, hidden, bias=bias, context=context, prefix=f"{prefix}.down_proj"
        )

    def forward(self, x: Tensor) -> Tensor:
        """[T, hidden] -> [T, hidden]."""
        down: Tensor = self.down_proj(self.inner(x))
        return down

    def inner(self, x: Tensor | PassedRows) -> Tensor | RoundedRows:
        """What the last product multiplies: [T, hidden] -> [T, intermediate]."""
        if self._clamp is None:
            return self.gate_up_proj.gated(x, self.down_proj)
        assert isinstance(x, Tensor), "rows are only made for the usual gate"
        return ops.clamped_swiglu(self.gate_up_proj(x), *self._clamp)

    @property
    def takes_passed_rows(self) -> bool:
        """Whether ``inner`` does, if the first product's method does."""
        return self._clamp is None
