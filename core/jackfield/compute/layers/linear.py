"""Linear layers, sharded over the tensor-parallel group; fused ones keep one weight.

Sharding: Megatron-LM (arXiv 1909.08053). How a weight is stored and multiplied is the business
of a ``LinearMethod``. Its parameters are cut along ``output_dim`` and ``input_dim``, attributes
of the parameter that default to 0 and 1 (1-D parameters: 0 and None); None means the dimension
does not exist. A parameter with the attribute ``per_part`` has a row for each checkpoint layer of
a fused one: what a layer has once, whatever its size. One with the attribute ``part`` belongs to
that checkpoint layer alone; ``stored_name`` is what it is called there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from jackfield.compute import ops
from jackfield.compute.kernels.scaled_rows import PassedRows, RoundedRows
from jackfield.compute.layers.norm import RMSNorm
from jackfield.compute.layers.sharding import (
    Shard,
    even_shard,
    kv_head_shard,
    rescale,
    whole,
)
from jackfield.compute.layers.unquantized import UnquantizedLinear
from jackfield.compute.weights import LoadableLayer, Slot, keep_or_copy
from jackfield.contracts.model import BuildContext, LinearMethod


@dataclass(frozen=True, slots=True)
class Part:
    """One checkpoint layer inside a fused one: its name beside the fused layer's, the outputs
    of it that this worker has, and where they begin in the fused output."""

    name: str
    outputs: Shard
    offset: int


class ShardedLinear(LoadableLayer):
    """What all linear layers share: parameters from the method, and their slots.

    ``in_features`` and ``out_features`` are this worker's.
    """

    bias: Tensor | None

    def __init__(
        self,
        inputs: Shard,
        parts: Sequence[Part],
        *,
        bias: bool,
        context: BuildContext,
        prefix: str,
    ) -> None:
        super().__init__()
        self.in_features = inputs.length
        self.out_features = sum(part.outputs.length for part in parts)
        self.inputs = inputs
        self.parts = tuple(parts)
        self.group = context.group
        self.method = linear_method(context, prefix)
        self.method.create_weights(self, context.dtype, context.device)
        self.bias = None
        if bias:
            empty = torch.empty(self.out_features, dtype=context.dtype, device=context.device)
            self.bias = nn.Parameter(empty, requires_grad=False)

    def multiplied(self, x: Tensor | PassedRows, bias: Tensor | None) -> Tensor:
        """x or the rows that were made for this layer, times its weight."""
        if isinstance(x, Tensor):
            return self.method.apply(self, x, bias)
        product: Tensor = self.method.apply_scaled(self, x, bias)  # type: ignore[attr-defined]
        return product

    def slots(self, prefix: str) -> Iterator[tuple[str, Slot]]:
        beside = prefix.rpartition(".")[0]
        for own_name, parameter in self.named_parameters(recurse=False):
            name = getattr(parameter, "stored_name", own_name)
            for number, part in enumerate(self.parts):
                if getattr(parameter, "part", number) != number:
                    continue
                named = ".".join(filter(None, (beside, part.name, name)))
                if getattr(parameter, "per_part", False):
                    own = parameter.data[number]
                    yield named, Slot(self, tuple(own.shape), own.copy_)
                    continue
                shape = self._full_shape(parameter, part)
                yield named, Slot(self, shape, self._placer(parameter, part))

    def finish_loading(self) -> None:
        self.method.process_weights_after_loading(self)

    def _full_shape(self, parameter: Tensor, part: Part) -> tuple[int, ...]:
        shape = list(parameter.shape)
        output_dim, input_dim = _dims(parameter)
        if output_dim is not None:
            own = self._outputs(parameter, part)
            shape[output_dim] = rescale(part.outputs.full, own, shape[output_dim])
        if input_dim is not None:
            shape[input_dim] = rescale(self.inputs.full, self.in_features, shape[input_dim])
        return tuple(shape)

    def _outputs(self, parameter: Tensor, part: Part) -> int:
        """The outputs that the parameter has entries for."""
        return part.outputs.length if hasattr(parameter, "part") else self.out_features

    def _placer(self, parameter: Tensor, part: Part) -> Callable[[Tensor], None]:
        is_whole = len(self.parts) == 1 or hasattr(parameter, "part")
        if is_whole and self.group.size == 1:
            return partial(keep_or_copy, parameter)

        def place(tensor: Tensor) -> None:
            output_dim, input_dim = _dims(parameter)
            target = parameter.data
            if output_dim is not None:
                tensor = part.outputs.of(tensor, output_dim)
                size = target.shape[output_dim]
                offset = 0 if is_whole else rescale(part.offset, self.out_features, size)
                target = target.narrow(output_dim, offset, tensor.shape[output_dim])
            if input_dim is not None:
                tensor = self.inputs.of(tensor, input_dim)
            target.copy_(tensor)

        return place


class ColumnParallelLinear(ShardedLinear):
    """y = x W^T + b, the outputs shared out: [T, inputs] -> [T, outputs / group size]."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        bias: bool = False,
        context: BuildContext,
        prefix: str,
    ) -> None:
        part = Part(_own_name(prefix), even_shard(outputs, context.group, prefix), 0)
        super().__init__(whole(inputs), (part,), bias=bias, context=context, prefix=prefix)

    def forward(self, x: Tensor) -> Tensor:
        """[T, inputs] -> [T, this worker's outputs]."""
        return self.method.apply(self, x, self.bias)


class MergedColumnParallelLinear(ShardedLinear):
    """Several column-parallel layers of one input as one multiplication.

    ``outputs`` maps the name of each checkpoint layer to its number of outputs; this worker's
    share of each follows the other in the result.
    """

    def __init__(
        self,
        inputs: int,
        outputs: dict[str, int],
        *,
        bias: bool = False,
        context: BuildContext,
        prefix: str,
    ) -> None:
        shards = {n: even_shard(size, context.group, n) for n, size in outputs.items()}
        super().__init__(whole(inputs), _joined(shards), bias=bias, context=context, prefix=prefix)

    def forward(self, x: Tensor) -> Tensor:
        """[T, inputs] -> [T, this worker's outputs of every part]."""
        return self.method.apply(self, x, self.bias)

    def gated(self, x: Tensor | PassedRows, reader: ShardedLinear) -> Tensor | RoundedRows:
        """[T, inputs] -> SiLU of this worker's first half of the outputs times the second half, for
        ``reader`` to multiply."""
        apply_gated_for = getattr(self.method, "apply_gated_for", None)
        if apply_gated_for is not None:
            made: Tensor | RoundedRows = apply_gated_for(self, x, self.bias, reader)
            return made
        apply_gated = getattr(self.method, "apply_gated", None)
        if apply_gated is None:
            assert isinstance(x, Tensor)
            return ops.silu_and_mul(self(x))
        gated: Tensor = apply_gated(self, x, self.bias)
        return gated


class QKVParallelLinear(ShardedLinear):
    """Queries, keys and values in one multiplication, shared out by heads.

    [T, hidden] -> [T, (H + 2 K) * D] with this worker's H = ``num_heads`` and K =
    ``num_kv_heads``. ``names`` are the checkpoint's layers.
    """

    def __init__(
        self,
        hidden: int,
        head_dim: int,
        num_heads: int,
        num_kv_heads: int,
        *,
        bias: bool = False,
        context: BuildContext,
        prefix: str,
        names: tuple[str, str, str] = ("q_proj", "k_proj", "v_proj"),
    ) -> None:
        heads = even_shard(num_heads, context.group, "the number of attention heads")
        kv_heads = kv_head_shard(num_kv_heads, context.group)
        self_heads = (heads, kv_heads, kv_heads)
        shards = {
            name: Shard(*(n * head_dim for n in shard))
            for name, shard in zip(names, self_heads, strict=True)
        }
        super().__init__(whole(hidden), _joined(shards), bias=bias, context=context, prefix=prefix)
        self.num_heads = heads.length
        self.num_kv_heads = kv_heads.length

    def forward(self, x: Tensor | PassedRows) -> Tensor:
        """[T, hidden] -> [T, (H + 2 K) * D]."""
        return self.multiplied(x, self.bias)


class RowParallelLinear(ShardedLinear):
    """y = x W^T + b, the inputs shared out: takes what a column-parallel layer gives, and sums
    over the group."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        bias: bool = False,
        context: BuildContext,
        prefix: str,
    ) -> None:
        part = Part(_own_name(prefix), whole(outputs), 0)
        shard = even_shard(inputs, context.group, prefix)
        super().__init__(shard, (part,), bias=bias, context=context, prefix=prefix)

    def forward(self, x: Tensor | RoundedRows) -> Tensor:
        """[T, this worker's inputs] -> [T, outputs]."""
        # The bias must be in the sum once.
        bias = self.bias if self.group.rank == 0 else None
        return self.group.all_reduce(self.multiplied(x, bias))

    def added(
        self, x: Tensor | RoundedRows, residual: Tensor, norm: RMSNorm, reader: ShardedLinear
    ) -> PassedRows | None:
        """``norm`` of this layer's outputs plus ``residual`` [T, outputs], which becomes the sum,
        in the form in which ``reader`` multiplies it. None where ``reader`` takes plain rows; the
        residual is as it was then."""
        add = getattr(self.method, "apply_add", None)
        if add is None or self.group.size > 1:
            return None
        passed: PassedRows | None = add(self, x, self.bias, residual, norm, reader)
        return passed


def linear_method(context: BuildContext, prefix: str) -> LinearMethod:
    """The quantization's method for the layer at ``prefix``, or the plain one."""
    method = None if context.quantization is None else context.quantization.linear_method(prefix)
    return method or UnquantizedLinear()


def _own_name(prefix: str) -> str:
    return prefix.rpartition(".")[2]


def _joined(shards: dict[str, Shard]) -> tuple[Part, ...]:
    parts, offset = [], 0
    for name, shard in shards.items():
        parts.append(Part(name, shard, offset))
        offset += shard.length
    return tuple(parts)


def _dims(parameter: Tensor) -> tuple[int | None, int | None]:
    """(output dimension, input dimension) of a parameter."""
    default_input = 1 if parameter.dim() > 1 else None
    return getattr(parameter, "output_dim", 0), getattr(parameter, "input_dim", default_input)
