"""Linear layers whose checkpoint has codes: what quantization methods share.

A method names the tensors that the checkpoint has for a layer, and says how they become a
``CodedWeight``; this does the rest.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jackfield.compute import ops
from jackfield.compute.kernels.scaled_rows import PassedRows, RoundedRows
from jackfield.compute.layers.coded_weight import CodedWeight
from jackfield.compute.layers.norm import RMSNorm
from jackfield.compute.layers.tiled_weight import TiledWeight

if TYPE_CHECKING:
    from jackfield.compute.layers.device_weight import DeviceWeight  # Triton: GPUs only


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor of the checkpoint for one layer; shapes are those of the (fused) layer.

    ``output_dim`` and ``input_dim`` are the dimensions that follow the layer's outputs and
    inputs, whole or packed; None: no dimension does. ``per_part``: each checkpoint layer of a
    fused one has its own, and ``shape`` is that of one.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    output_dim: int | None = 0
    input_dim: int | None = 1
    per_part: bool = False


class Multiplies(Protocol):
    """What a layer keeps of its codes."""

    def multiply(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """x [T, K] -> x @ weight.T + bias, [T, N] in x's dtype."""
        ...


class Stack(Protocol):
    """What collects the weights of several layers, as the attribute ``stack`` of each."""

    def take(self, layer: nn.Module, weight: Multiplies) -> bool:
        """Whether the layer may let go of it."""
        ...


@dataclass(frozen=True, slots=True)
class Ordered:
    """A weight whose columns were sorted: column k belongs to input ``order[k]``, int64 [K]."""

    weight: Multiplies
    order: Tensor

    def multiply(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """As ``CodedWeight`` does."""
        return self.weight.multiply(x.index_select(-1, self.order), bias)


@dataclass(frozen=True, slots=True)
class Float8Inputs:
    """An E4M3 weight whose inputs are meant to be rounded to E4M3 too: by ``scale``, float32 of
    one element, or by one for each token. It is done where that is faster."""

    weight: CodedWeight
    scale: Tensor | None

    def multiply(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """As ``CodedWeight`` does."""
        return self.weight.multiply(x, bias)


@dataclass(frozen=True, slots=True)
class Stacked:
    """Weights of the same inputs in several formats, the outputs of one after the other's."""

    weights: tuple[Multiplies, ...]

    def multiply(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """As ``CodedWeight`` does."""
        out = torch.cat([weight.multiply(x) for weight in self.weights], -1)
        return out if bias is None else out.add_(bias)


@dataclass(frozen=True, slots=True)
class Plain:
    """A weight [N, K] as it is."""

    weight: Tensor

    def multiply(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """As ``CodedWeight`` does."""
        return F.linear(x, self.weight, bias)


class CodedLinear(ABC):
    """Implements ``LinearMethod``. Has no state of a layer: one may serve many."""

    @abstractmethod
    def stored(self, outputs: int, inputs: int, dtype: torch.dtype) -> Mapping[str, StoredTensor]:
        """The checkpoint's tensors of a layer with so many outputs and inputs, by name."""

    @abstractmethod
    def encode(self, layer: LinearParts, tensors: Mapping[str, Tensor]) -> Multiplies:
        """What they mean."""

    def create_weights(self, layer: nn.Module, dtype: torch.dtype, device: torch.device) -> None:
        """Registers the checkpoint's tensors, uninitialized."""
        layer.__dict__["dtype"] = dtype
        parts = LinearParts.of(layer)
        for name, stored in self.stored(parts.num_outputs, parts.num_inputs, dtype).items():
            shape = (len(parts.outputs), *stored.shape) if stored.per_part else stored.shape
            empty = torch.empty(shape, dtype=stored.dtype, device=device)
            parameter = nn.Parameter(empty, requires_grad=False)
            parameter.output_dim = stored.output_dim  # type: ignore[attr-defined]
            parameter.input_dim = stored.input_dim  # type: ignore[attr-defined]
            parameter.per_part = stored.per_part  # type: ignore[attr-defined]
            layer.register_parameter(name, parameter)

    def process_weights_after_loading(self, layer: nn.Module) -> None:
        """Turns them into codes, and lets go of them."""
        tensors = {
            name: value.data
            for name, value in layer.named_parameters(recurse=False)
            if name != "bias"
        }
        encoded = self.encode(LinearParts.of(layer), tensors)
        # Not a tensor, not a module: torch's own setter has no part in it.
        coded = for_device(encoded, cast(torch.dtype, layer.__dict__["dtype"]))
        stack = cast("Stack | None", layer.__dict__.get("stack"))
        if stack is None or not stack.take(layer, coded):
            layer.__dict__["coded"] = coded
        for name in tensors:
            delattr(layer, name)

    def apply(self, layer: nn.Module, x: Tensor, bias: Tensor | None) -> Tensor:
        """[T, in_features] -> [T, out_features], in x's dtype."""
        return cast(Multiplies, layer.__dict__["coded"]).multiply(x, bias)

    def apply_gated_for(
        self, layer: nn.Module, x: Tensor | PassedRows, bias: Tensor | None, reader: nn.Module
    ) -> Tensor | RoundedRows:
        """SiLU of the first half of ``apply``'s outputs times the second half, as ``reader`` takes
        it."""
        fused = _fused(layer)
        made = None if fused is None else fused.multiply_gated(x, bias, _fused(reader))
        if made is not None:
            return made
        if isinstance(x, Tensor):
            return ops.silu_and_mul(self.apply(layer, x, bias))
        return ops.silu_and_mul(self.apply_scaled(layer, x, bias))

    def apply_scaled(self, layer: nn.Module, x: PassedRows, bias: Tensor | None) -> Tensor:
        """``apply`` to rows that another layer made for this one."""
        fused = _fused(layer)
        assert fused is not None, "rows are only passed to a weight that takes them"
        return fused.multiply_passed(x, bias)

    def apply_add(
        self,
        layer: nn.Module,
        x: Tensor | RoundedRows,
        bias: Tensor | None,
        residual: Tensor,
        norm: RMSNorm,
        reader: nn.Module,
    ) -> PassedRows | None:
        """``norm`` of ``apply`` plus the residual, which becomes the sum, for ``reader`` to
        multiply; None where that gains nothing, or the reader has a weight of another kind,
        and the residual is left alone."""
        fused, its = _fused(layer), _fused(reader)
        if fused is None or its is None:
            return None
        return fused.multiply_add(x, bias, residual, norm.weight, norm.eps, its)


def _fused(layer: nn.Module) -> DeviceWeight | None:
    # The layer's weight, if it is one of a GPU's kernels.
    weight = layer.__dict__.get("coded")
    return weight if hasattr(weight, "multiply_gated") else None


@dataclass(frozen=True, slots=True)
class LinearParts:
    """The shape of a layer: the outputs of each checkpoint layer in it, and the inputs."""

    outputs: tuple[int, ...]
    num_inputs: int

    @classmethod
    def of(cls, layer: nn.Module) -> LinearParts:
        """Of a linear layer; one that is not fused is its own only part."""
        parts = getattr(layer, "parts", None)
        inputs = cast(int, layer.in_features)
        if parts is None:
            return cls((cast(int, layer.out_features),), inputs)
        return cls(tuple(part.outputs.length for part in parts), inputs)

    @property
    def num_outputs(self) -> int:
        """Of all parts."""
        return sum(self.outputs)

    def spread(self, per_part: Tensor) -> Tensor:
        """[parts] or [parts, 1] -> [N, 1] float32: each part's number for all its outputs."""
        counts = torch.tensor(self.outputs, device=per_part.device)
        return per_part.float().reshape(-1).repeat_interleave(counts)[:, None]


def for_device(weight: Multiplies, dtype: torch.dtype) -> Multiplies:
    """What the device multiplies activations of ``dtype`` by, where it has kernels of its own for
    the weight; otherwise the same."""
    if isinstance(weight, Ordered):
        return Ordered(for_device(weight.weight, dtype), weight.order)
    if isinstance(weight, Stacked):
        return Stacked(tuple(for_device(part, dtype) for part in weight.weights))
    codes = weight.weight if isinstance(weight, Float8Inputs) else weight
    if not isinstance(codes, CodedWeight):
        return weight
    if not codes.packed.is_cuda:
        return TiledWeight.of(codes, dtype) or weight
    from jackfield.compute.layers.device_weight import DeviceWeight  # Triton: GPUs only

    if isinstance(weight, Float8Inputs):
        return DeviceWeight.rounding_inputs(codes, weight.scale) or weight
    return DeviceWeight.of(codes) or weight
