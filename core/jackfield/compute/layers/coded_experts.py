"""Experts whose weights are codes, on a GPU: multiplied together where they are of one format."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from jackfield.compute.kernels.coded import DTYPES
from jackfield.compute.kernels.coded_experts import coded_experts
from jackfield.compute.kernels.coded_layout import STRIP, DeviceCodes
from jackfield.compute.layers.coded_linear import Multiplies
from jackfield.compute.layers.device_weight import DeviceWeight
from jackfield.compute.layers.linear import ShardedLinear
from jackfield.compute.layers.mlp import GatedMLP
from jackfield.compute.layers.moe import EveryExpert, ExpertsConfig, summed_once
from jackfield.contracts.model import BuildContext


class CodedExperts(EveryExpert):
    """Takes its experts' weights while they load. If one is of another format than the first, or
    no kernel has a way with it, each expert is multiplied by itself."""

    def __init__(
        self,
        hidden: int,
        config: ExpertsConfig,
        *,
        activation: str,
        context: BuildContext,
        prefix: str,
    ) -> None:
        super().__init__(hidden, config, activation=activation, context=context, prefix=prefix)
        self.group = context.group
        blocks = [block for block in self if isinstance(block, GatedMLP)]
        self._gate_up_bias = _joined_biases([block.gate_up_proj for block in blocks])
        self._down_bias = _joined_biases([block.down_proj for block in blocks])
        self._stacks = (
            CodeStack([block.gate_up_proj for block in blocks], 2 * STRIP),
            CodeStack([block.down_proj for block in blocks], STRIP),
        )

    def forward(self, x: Tensor, logits: Tensor) -> Tensor:
        """[T, hidden], [T, experts] -> [T, hidden]."""
        gate_up, down = (stack.whole() for stack in self._stacks)
        if gate_up is None or down is None or x.dtype not in DTYPES:
            for stack in self._stacks:
                stack.give_back()
            return super().forward(x, logits)
        mixed = coded_experts(
            x.contiguous(),
            logits,
            gate_up,
            down,
            top_k=self.config.top_k,
            renormalize=self.config.renormalize,
            biases=summed_once(self._gate_up_bias, self._down_bias, self.group),
            clamp=self.config.clamp,
        )
        return self.group.all_reduce(mixed)


def _joined_biases(layers: Sequence[ShardedLinear]) -> Tensor | None:
    # [E, outputs], of which each layer's bias is a row.
    biases = [layer.bias for layer in layers if layer.bias is not None]
    if not biases:
        return None
    joined = torch.stack([bias.data for bias in biases])
    for bias, row in zip(biases, joined, strict=True):
        bias.data = row
    return joined


class CodeStack:
    """Implements ``Stack``: the weights of layers behind each other. ``step``: their outputs are a
    multiple of it. The first layer keeps them, as ``coded``, like any other weight."""

    def __init__(self, layers: list[nn.Module], step: int) -> None:
        self._layers, self._step = layers, step
        self._taken: set[int] = set()
        self._mixed = False
        for layer in layers:
            layer.__dict__["stack"] = self

    def take(self, layer: nn.Module, weight: Multiplies) -> bool:
        """Whether it is of the format of the others; from the first that is not on no more."""
        if self._mixed or not isinstance(weight, DeviceWeight):
            self.give_back()
            return False
        codes, stacked = weight.codes, self._codes()
        if stacked is None and codes.outputs % self._step == 0:
            stacked = codes.room(len(self._layers))
            self._layers[0].__dict__["coded"] = DeviceWeight(stacked)
        if stacked is None or not self._fits(codes, stacked):
            self.give_back()
            return False
        index = self._layers.index(layer)
        stacked.fill(index * codes.outputs, codes)
        self._taken.add(index)
        return True

    def _fits(self, codes: DeviceCodes, stacked: DeviceCodes) -> bool:
        of_a_size = stacked.outputs == codes.outputs * len(self._layers)
        return of_a_size and stacked.format == codes.format

    def whole(self) -> DeviceCodes | None:
        """All weights; None where one is missing."""
        return self._codes() if len(self._taken) == len(self._layers) else None

    def give_back(self) -> None:
        """Each layer that let go of its weight has it again, and keeps it."""
        stacked = self._codes()
        self._mixed = True
        if stacked is None:
            return
        size = stacked.outputs // len(self._layers)
        for index in self._taken:
            some = stacked.rows(slice(index * size, (index + 1) * size))
            self._layers[index].__dict__["coded"] = DeviceWeight(some)
        self._taken.clear()

    def _codes(self) -> DeviceCodes | None:
        coded = self._layers[0].__dict__.get("coded") if self._taken else None
        return coded.codes if isinstance(coded, DeviceWeight) else None
