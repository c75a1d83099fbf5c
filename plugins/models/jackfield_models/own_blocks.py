"""The gated feed-forward block of ours in a model of transformers: two products and a kernel.

Its code takes three products and two kernels. Whether a block is one, with SiLU or with GELU, is
seen by what it computes.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor, nn

from jackfield.compute import ops
from jackfield.compute.layers.linear import MergedColumnParallelLinear
from jackfield.compute.layers.unquantized import UnquantizedLinear
from jackfield.compute.weights import load_weights
from jackfield.contracts.model import BuildContext
from jackfield_models.own_layers import OwnLinear
from jackfield_models.trial import Trial

_PRODUCTS = ("gate_proj", "up_proj", "down_proj")


class OwnBlock(nn.Module):
    """In the place of ``block``, whose products are ``OwnLinear``: [..., hidden] -> the same."""

    def __init__(self, block: Any, *, gelu: bool, context: BuildContext) -> None:
        super().__init__()
        gate, up = block.gate_proj, block.up_proj
        outputs = {"gate_proj": gate.out_features, "up_proj": up.out_features}
        self.gate_up_proj = MergedColumnParallelLinear(
            gate.in_features, outputs, bias=gate.bias is not None, context=context, prefix=""
        )
        self.down_proj = block.down_proj
        self._gelu = gelu
        load_weights(
            self.gate_up_proj,
            (
                (f"{name}.{own}", tensor.detach())
                for name, product in (("gate_proj", gate), ("up_proj", up))
                for own, tensor in product.named_parameters()
            ),
        )

    def forward(self, x: Tensor) -> Tensor:
        down: Tensor
        rows = x.flatten(0, -2)
        if self._gelu:
            down = self.down_proj(ops.gelu_and_mul(self.gate_up_proj(rows)))
        else:
            down = self.down_proj(self.gate_up_proj.gated(rows, self.down_proj))
        return down.view(x.shape)


def block_trial(model: Any, context: BuildContext) -> Trial:
    """Of all that may be a gated block."""
    makers = [partial(OwnBlock, gelu=gelu, context=context) for gelu in (False, True)]
    return Trial(model, _kind, makers)


def _kind(layer: Any) -> object:
    children = dict(layer.named_children())
    products = [children.pop(name, None) for name in _PRODUCTS]
    if len(children) > 1 or list(layer.named_parameters(recurse=False)):
        return None
    plain = [
        isinstance(product, OwnLinear) and isinstance(product.method, UnquantizedLinear)
        for product in products
    ]
    return tuple(map(type, children.values())) if all(plain) else None
