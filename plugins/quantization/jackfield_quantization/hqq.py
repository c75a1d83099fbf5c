"""HQQ (half-quadratic quantization): integers with zero points that are no integers.

Facts: what hqq's HQQLinear saves. ``W_q`` is the weight as rows of groups (``axis`` 1: [N * K /
group, group], a group being neighbours; 0: [group, N * K / group]), packed along the first
dimension: uint8 with the first half (quarter, ...) of the rows in the highest bits, int32 with
tenths for 3 bits, or either seen as floats. ``scale`` and ``zero`` have a number for each group:
weight = (code - zero) * scale. Each value of the layer's meta data is a tensor beside it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from jackfield.compute.layers.coded_linear import CodedLinear, LinearParts, StoredTensor
from jackfield.compute.layers.coded_weight import CodedWeight
from jackfield.contracts.model import LinearMethod
from jackfield.errors import CheckpointError, ConfigError
from jackfield_quantization.column_groups import ColumnGroups
from jackfield_quantization.integer_weight import integer_weight
from jackfield_quantization.layer_names import checkpoint_names, is_listed, is_router
from jackfield_quantization.layer_tensors import Member, Named, by_layer
from jackfield_quantization.number_formats import unpack_halves
from jackfield_quantization.options import Config, integer, names, require, section

_NEEDED = ("W_q", "scale", "zero", "shape", "packing", "axis")
_OPTIONS = frozenset(
    "nbits group_size unpack_view_dtype view_as_float quant_scale quant_zero compute_dtype "
    "offload_meta encoded_state_dict stores_quant_config channel_wise optimize round_zero".split()
)
_IN_BYTES = {"8bit_u8": 8, "4bit_u8": 4, "2bit_u8": 2, "1bit_u8": 1}
_IN_WORDS = "3bit_32"


class Groups(NamedTuple):
    """How a layer is cut: ``size`` weights along ``axis``, with codes of ``bits`` (4 or 8)."""

    size: int | None
    axis: int
    bits: int


class HqqQuantization:
    """Implements ``QuantizationMethod`` and ``TranslatesTensors``."""

    name: ClassVar[str] = "hqq"
    api_version: ClassVar[int] = 1

    def __init__(self, config: Mapping[str, object]) -> None:
        require(config, self.name)
        self._excepted = (*names(config, "skip_modules"), "lm_head")
        self._groups = section(config, "quant_config")
        if not self._groups:
            raise CheckpointError("quantization_config: hqq without a quant_config")
        self._of("")  # what is wrong is told at once

    def linear_method(self, prefix: str) -> LinearMethod | None:
        if is_listed(prefix, self._excepted) or is_router(prefix):
            return None
        parts = {self._of(name) for name in checkpoint_names(prefix)}
        if len(parts) > 1:
            raise CheckpointError(f"layers that are fused to {prefix} have different groups")
        (groups,) = parts
        if groups is None:
            return None
        return _layer_method(groups)

    def _of(self, name: str) -> Groups | None:
        # One description for all layers, or one for each ending of a name.
        own: Config = section(self._groups, "weight_quant_params")
        if not own:
            for tag in self._groups:
                if is_listed(name, (tag,)):
                    own = section(section(self._groups, tag), "weight_quant_params")
        if not own:
            return None
        size, bits = own.get("group_size"), own.get("nbits")
        if not isinstance(bits, int | float) or not 1 <= bits <= 8:
            raise CheckpointError(f"quantization_config: nbits of hqq is {bits!r}")
        axis = integer(own, "axis", 0)
        return Groups(size if isinstance(size, int) else None, axis, 4 if bits <= 4 else 8)

    def translate(self, weights: Iterable[Named]) -> Iterator[Named]:
        """``codes``, ``scales`` and ``zeros`` of each layer in the places that they belong to."""
        return by_layer(_without_options(weights), _member, _is_complete, self._convert)

    def _convert(self, layer: str, tensors: Mapping[str, Tensor]) -> Iterator[Named]:
        groups = self._of(layer)
        outputs, inputs = (int(size) for size in tensors["shape"])
        if groups is None or int(tensors["axis"]) != groups.axis:
            raise CheckpointError(f"{layer} is not quantized as the quant_config says")
        scale = tensors["scale"].float()
        rows = outputs * inputs // scale.numel() if groups.axis == 0 else scale.numel()
        codes = _unpacked(layer, tensors)[:rows].reshape(outputs, inputs)
        shape = (outputs, -1) if groups.axis == 1 else (-1, inputs)
        scales, zeros = scale.view(shape), tensors["zero"].float().view(shape)
        if groups.bits == 4:
            codes = codes[:, 0::2] | codes[:, 1::2] << 4
        translated = {"codes": codes, "scales": scales, "zeros": zeros}
        method = self.linear_method(layer)
        if method is not None:
            yield from translated.items()
            return
        parts = LinearParts((outputs,), inputs)
        yield "weight", _layer_method(groups).encode(parts, translated).decode(torch.float32)


class _HqqLinear(CodedLinear):
    """A translated layer: ``codes`` uint8 [N, K] or, two in a byte, [N, K / 2]."""

    def __init__(self, groups: Groups) -> None:
        self._size, _, self._bits = groups

    def _with_codes(
        self, outputs: int, inputs: int, scales: StoredTensor
    ) -> dict[str, StoredTensor]:
        packed = (outputs, inputs * self._bits // 8)
        codes = StoredTensor(packed, torch.uint8)
        return {"codes": codes, "scales": scales, "zeros": scales}


class _ByRows(_HqqLinear):
    def stored(self, outputs: int, inputs: int, dtype: torch.dtype) -> Mapping[str, StoredTensor]:
        groups = inputs // (self._size or inputs)
        scales = StoredTensor((outputs, groups), torch.float32, 0, 1 if groups > 1 else None)
        return self._with_codes(outputs, inputs, scales)

    def encode(self, layer: LinearParts, tensors: Mapping[str, Tensor]) -> CodedWeight:
        codes = tensors["codes"]
        if self._bits == 4:
            codes = unpack_halves(codes, low_first=True)
        return integer_weight(codes, tensors["scales"], tensors["zeros"], self._bits)


class _ByColumns(_HqqLinear):
    def create_weights(self, layer: nn.Module, dtype: torch.dtype, device: torch.device) -> None:
        """As the base class does; a worker must have all of the layer."""
        group = getattr(layer, "group", None)
        if group is not None and group.size > 1:
            raise ConfigError("HQQ with axis 0 cannot be shared by several workers")
        super().create_weights(layer, dtype, device)

    def stored(self, outputs: int, inputs: int, dtype: torch.dtype) -> Mapping[str, StoredTensor]:
        scales = StoredTensor((outputs // (self._size or outputs), inputs), torch.float32)
        return self._with_codes(outputs, inputs, scales)

    def encode(self, layer: LinearParts, tensors: Mapping[str, Tensor]) -> ColumnGroups:
        scales, zeros = tensors["scales"], tensors["zeros"]
        return ColumnGroups(tensors["codes"], scales, zeros, layer.outputs, self._bits)


def _layer_method(groups: Groups) -> _ByRows | _ByColumns:
    return _ByRows(groups) if groups.axis == 1 else _ByColumns(groups)


def _without_options(weights: Iterable[Named]) -> Iterator[Named]:
    return (each for each in weights if each[0].rpartition(".")[2] not in _OPTIONS)


def _member(name: str, tensor: Tensor) -> Member | None:
    layer, _, own = name.rpartition(".")
    return Member(layer, own) if own in _NEEDED else None


def _is_complete(tensors: Mapping[str, Tensor]) -> bool:
    return len(tensors) == len(_NEEDED)


def _unpacked(layer: str, tensors: Mapping[str, Tensor]) -> Tensor:
    # uint8, as rows of groups; 3 bits may have a few rows more.
    packed = tensors["W_q"].contiguous()
    packing = bytes(tensors["packing"].tolist()).decode("ascii", "replace")
    if packing == _IN_WORDS:
        words, shifts = packed.view(torch.int32), range(27, -1, -3)
        return torch.cat([(words >> shift & 7).to(torch.uint8) for shift in shifts])
    bits = _IN_BYTES.get(packing)
    if bits is None:
        raise CheckpointError(f"{layer} is packed as {packing!r}; {', '.join(_IN_BYTES)} are known")
    numbers, mask = packed.view(torch.uint8), 2**bits - 1
    return torch.cat([numbers >> shift & mask for shift in range(8 - bits, -1, -bits)])
