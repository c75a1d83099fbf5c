"""8-bit weights with one scale a row, made when a checkpoint is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, cast

import torch
from torch import Tensor, nn


class RoundedLinear:
    """Keeps a weight in 8 bits with one scale a row, rounded when it is loaded."""

    def create_weights(self, layer: nn.Module, dtype: torch.dtype, device: torch.device) -> None:
        """The weight as the checkpoint has it; it lives until the layer is loaded."""
        shape = (cast(int, layer.out_features), cast(int, layer.in_features))
        weight = torch.empty(shape, dtype=dtype, device=device)
        layer.register_parameter("weight", nn.Parameter(weight, requires_grad=False))

    def process_weights_after_loading(self, layer: nn.Module) -> None:
        """Rounds it, and lets go of it."""
        weight = layer.get_parameter("weight").detach().float()
        scale = weight.abs().amax(1, keepdim=True).clamp_min(1e-12) / 127
        layer.register_buffer("rounded", (weight / scale).round().to(torch.int8))
        layer.register_buffer("scale", scale)
        del layer.weight

    def apply(self, layer: nn.Module, x: Tensor, bias: Tensor | None) -> Tensor:
        """[T, in_features] -> [T, out_features]."""
        rounded, scale = layer.get_buffer("rounded"), layer.get_buffer("scale")
        product = nn.functional.linear(x, rounded.to(x.dtype)) * scale.T.to(x.dtype)
        return product if bias is None else product + bias


class Int8Rows:
    """Rounds the weights of every linear layer to 8 bits, but of those in ``skip``.

    Nothing has to be prepared: any checkpoint will do, ``--quantization int8_rows``.
    """

    name: ClassVar[str] = "int8_rows"
    api_version: ClassVar[int] = 1

    @dataclass(frozen=True)
    class Options:
        """--plugin-option int8_rows.skip='["lm_head", "model.layers.0."]'"""

        skip: tuple[str, ...] = field(
            default=("lm_head",), metadata={"help": "beginnings of the names of layers left alone"}
        )

    def __init__(self, config: Mapping[str, object], *, options: Options = Options()) -> None:
        self._skip = options.skip
        self._method = RoundedLinear()

    def linear_method(self, prefix: str) -> RoundedLinear | None:
        """None leaves a layer as it is."""
        return None if prefix.startswith(self._skip) else self._method
