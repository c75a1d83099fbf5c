"""What transformers writes of a model that bitsandbytes quantized.

Facts, from files that transformers 5 with bitsandbytes 0.50 wrote. 4 bits: ``weight`` [N * K / 2,
1], two codes in a byte, the first in the high half (a wider storage dtype is the same bytes);
``weight.absmax``, a magnitude for each block of the flat weight; ``weight.quant_map`` [16];
``weight.quant_state.bitsandbytes__nf4`` (or ``__fp4``), JSON as bytes. With double quantization
``weight.absmax`` holds codes of ``weight.nested_quant_map`` [256], times
``weight.nested_absmax`` for each ``nested_blocksize`` of them, plus ``nested_offset``. 8 bits:
``weight`` int8 [N, K], ``SCB`` float32 [N], the magnitude of 127; ``weight_format``, 0 for rows.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from math import gcd

import torch
from torch import Tensor

from jackfield.compute.layers.coded_linear import CodedLinear, LinearParts, StoredTensor
from jackfield.compute.layers.coded_weight import CodedWeight
from jackfield.errors import CheckpointError
from jackfield_quantization.layer_tensors import Member, Named, by_layer
from jackfield_quantization.number_formats import unpack_halves
from jackfield_quantization.options import Config, integer

BLOCK = 64
# The 16 quantiles of a normal distribution that QLoRA's appendix E tabulates.
_NF4 = (
    *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453),
    *(-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0),
    *(0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224),
    *(0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
)
# bitsandbytes' own FP4: sign, and magnitudes in twelfths.
_FP4_TWELFTHS = (0.0, 0.0625, 8.0, 12.0, 4.0, 6.0, 2.0, 3.0)
_STATE = "weight.quant_state.bitsandbytes__"
_PLAIN = ("weight", "weight.absmax", "weight.quant_map")
_NESTED = ("weight.nested_absmax", "weight.nested_quant_map")

HasCodes = Callable[[str], bool]
"""Whether the layer of this name takes codes; one that does not gets numbers."""


def quantiles(kind: str) -> Tensor:
    """float32 [16]: what the codes of ``nf4`` or ``fp4`` stand for."""
    if kind == "nf4":
        return torch.tensor(_NF4)
    if kind == "fp4":
        positive = torch.tensor(_FP4_TWELFTHS) / 12
        return torch.cat((positive, -positive))
    raise CheckpointError(f"quantization_config: bnb_4bit_quant_type {kind!r} is not nf4 or fp4")


class PackedQuantiles(CodedLinear):
    """4 bits. A translated layer has ``weight`` uint8 [N, K / 2] and ``absmax`` [N, groups]."""

    def __init__(self, kind: str) -> None:
        self._table = quantiles(kind)

    def stored(self, outputs: int, inputs: int, dtype: torch.dtype) -> Mapping[str, StoredTensor]:
        groups = inputs // gcd(inputs, BLOCK)
        return {
            "weight": StoredTensor((outputs, inputs // 2), torch.uint8),
            "absmax": StoredTensor((outputs, groups), torch.float32),
        }

    def encode(self, layer: LinearParts, tensors: Mapping[str, Tensor]) -> CodedWeight:
        codes = unpack_halves(tensors["weight"], low_first=False)
        table = self._table.to(codes.device)
        return CodedWeight.pack(codes, tensors["absmax"], bits=4, table=table)

    def translate(self, weights: Iterable[Named], has_codes: HasCodes) -> Iterator[Named]:
        """The tensors of each packed layer as one of codes and one of magnitudes."""
        return by_layer(weights, _member, _is_complete, partial(self._convert, has_codes))

    def _convert(
        self, has_codes: HasCodes, layer: str, tensors: Mapping[str, Tensor]
    ) -> Iterator[Named]:
        if not torch.allclose(tensors["weight.quant_map"].cpu(), self._table, atol=1e-6):
            raise CheckpointError(f"the codes of {layer} stand for other numbers than its config's")
        state = _state(tensors)
        outputs, inputs = _shape(state)
        packed = tensors["weight"].contiguous().view(torch.uint8).view(outputs, inputs // 2)
        magnitudes = _magnitudes(tensors, state)
        block, group = integer(state, "blocksize"), gcd(inputs, BLOCK)
        if block % group:
            raise CheckpointError(f"{layer} has blocks of {block} of its {inputs} inputs")
        each = magnitudes.repeat_interleave(block // group)[: outputs * inputs // group]
        translated = {"weight": packed, "absmax": each.view(outputs, -1)}
        if has_codes(layer):
            yield from translated.items()
        else:
            yield (
                "weight",
                self.encode(LinearParts((outputs,), inputs), translated).decode(torch.float32),
            )


class PackedBytes(CodedLinear):
    """LLM.int8's: a scale for each output."""

    def stored(self, outputs: int, inputs: int, dtype: torch.dtype) -> Mapping[str, StoredTensor]:
        return {
            "weight": StoredTensor((outputs, inputs), torch.int8),
            "SCB": StoredTensor((outputs,), torch.float32, 0, None),
        }

    def encode(self, layer: LinearParts, tensors: Mapping[str, Tensor]) -> CodedWeight:
        return CodedWeight.pack(tensors["weight"], tensors["SCB"][:, None] / 127, bits=8)

    def translate(self, weights: Iterable[Named], has_codes: HasCodes) -> Iterator[Named]:
        """Without what says that the weights are by rows; numbers where codes are not wanted."""

        def member(name: str, tensor: Tensor) -> Member | None:
            layer, _, own = name.rpartition(".")
            is_packed = own == "SCB" or tensor.dtype is torch.int8
            return Member(layer, own) if is_packed and not has_codes(layer) else None

        def convert(layer: str, tensors: Mapping[str, Tensor]) -> Iterator[Named]:
            parts = LinearParts((len(tensors["weight"]),), tensors["weight"].shape[1])
            yield "weight", self.encode(parts, tensors).decode(torch.float32)

        return by_layer(_by_rows(weights), member, lambda tensors: len(tensors) == 2, convert)


def _by_rows(weights: Iterable[Named]) -> Iterator[Named]:
    for name, tensor in weights:
        if not name.endswith(".weight_format"):
            yield name, tensor
        elif int(tensor) != 0:
            raise CheckpointError(f"{name} is {int(tensor)}: weights that are not by rows")


def _member(name: str, tensor: Tensor) -> Member | None:
    layer, dot, rest = name.partition(".weight.")
    if dot:
        own = f"weight.{rest}"
        return Member(layer, own if not own.startswith(_STATE) else _STATE)
    layer, _, own = name.rpartition(".")
    is_packed = own == "weight" and tensor.dim() == 2 and tensor.shape[1] == 1
    return Member(layer, own) if is_packed else None


def _is_complete(tensors: Mapping[str, Tensor]) -> bool:
    if _STATE not in tensors or any(name not in tensors for name in _PLAIN):
        return False
    is_nested = tensors["weight.absmax"].dtype is torch.uint8
    return not is_nested or all(name in tensors for name in _NESTED)


def _state(tensors: Mapping[str, Tensor]) -> Config:
    try:
        state: object = json.loads(bytes(tensors[_STATE].tolist()))
    except ValueError as error:
        raise CheckpointError(f"a layer's {_STATE}: {error}") from None
    return state if isinstance(state, dict) else {}


def _shape(state: Config) -> tuple[int, int]:
    shape = state.get("shape")
    if not isinstance(shape, list) or len(shape) != 2:
        raise CheckpointError(f"a layer's {_STATE} has the shape {shape!r}, not [outputs, inputs]")
    return int(shape[0]), int(shape[1])


def _magnitudes(tensors: Mapping[str, Tensor], state: Config) -> Tensor:
    # float32, one for each block.
    stored = tensors["weight.absmax"]
    if stored.dtype is not torch.uint8:
        return stored.float()
    offset = state.get("nested_offset")
    if not isinstance(offset, float | int):
        raise CheckpointError(f"a layer's {_STATE}: nested_offset is {offset!r}")
    factors = tensors["weight.nested_absmax"].float()
    factors = factors.repeat_interleave(integer(state, "nested_blocksize"))[: len(stored)]
    return tensors["weight.nested_quant_map"].float()[stored.long()] * factors + offset
