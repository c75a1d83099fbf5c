"""AMD Quark: FP8, int8 and MXFP4 checkpoints in Quark's own format.

Facts: what amd-quark exports to safetensors. ``global_quant_config`` describes all layers,
``layer_quant_config`` some by pattern, ``exclude`` exceptions. A layer has ``weight`` and
``weight_scale`` ([] by tensor, [N] by channel, [N, K / 32] for MXFP4, where 127 is 1), and zero
points and scales of inputs and outputs, as its configuration asks: the zero points of weights are
0, the others are not needed, for activations stay in the model's dtype.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from typing import ClassVar

import torch
from torch import Tensor

from jackfield.compute.layers.coded_linear import CodedLinear, LinearParts, StoredTensor
from jackfield.compute.layers.coded_weight import CodedWeight
from jackfield.contracts.model import LinearMethod
from jackfield.errors import CheckpointError
from jackfield_quantization.compressed_tensors import fp4_weight
from jackfield_quantization.fp8 import E4M3, from_floats
from jackfield_quantization.layer_names import checkpoint_names, is_listed
from jackfield_quantization.layer_tensors import Named
from jackfield_quantization.number_formats import powers_of_2
from jackfield_quantization.options import Config, names, require, section

_UNUSED = (".input_scale", ".input_zero_point", ".output_scale", ".output_zero_point")
_DTYPES = {"fp8_e4m3": E4M3, "int8": torch.int8}
_MX_GROUP = 32


class QuarkQuantization:
    """Implements ``QuantizationMethod`` and ``TranslatesTensors``."""

    name: ClassVar[str] = "quark"
    api_version: ClassVar[int] = 1

    def __init__(self, config: Mapping[str, object]) -> None:
        require(config, self.name)
        self._excepted = (*names(config, "exclude"), "lm_head")
        self._all = _method(section(config, "global_quant_config"))
        own = section(config, "layer_quant_config")
        self._own = [(pattern, _method(section(own, pattern))) for pattern in own]

    def linear_method(self, prefix: str) -> LinearMethod | None:
        if is_listed(prefix, self._excepted):
            return None
        for pattern, method in self._own:
            if any(fnmatchcase(name, pattern) for name in checkpoint_names(prefix)):
                return method
        return self._all

    def translate(self, weights: Iterable[Named]) -> Iterator[Named]:
        """Without what is not needed, and with scales by channel as [N]."""
        for name, tensor in weights:
            if name.endswith(".weight_zero_point"):
                if bool(tensor.any()):
                    raise CheckpointError(f"{name} is not 0: asymmetric weights of Quark")
            elif name.endswith(".weight_scale") and tensor.dim() == 2 and tensor.shape[1] == 1:
                yield name, tensor[:, 0]
            elif not name.endswith(_UNUSED):
                yield name, tensor


def _method(config: Config) -> LinearMethod | None:
    weight = section(config, "weight")
    if not weight:
        return None
    dtype, scheme = str(weight.get("dtype")), str(weight.get("qscheme"))
    if dtype in _DTYPES and scheme in ("per_tensor", "per_channel"):
        return _Bytes(_DTYPES[dtype], by_channel=scheme == "per_channel")
    is_mx = scheme == "per_group" and weight.get("group_size") == _MX_GROUP
    if dtype in ("fp4", "mx_fp4") and is_mx and weight.get("scale_format") == "e8m0":
        return _MxFp4()
    raise CheckpointError(
        f"quantization_config: Quark's weights of {dtype}, {scheme}, are unknown; fp8_e4m3 and "
        "int8 by tensor and channel, and fp4 in groups of 32 with powers of 2 are served"
    )


class _Bytes(CodedLinear):
    def __init__(self, dtype: torch.dtype, *, by_channel: bool) -> None:
        self._dtype = dtype
        self._by_channel = by_channel

    def stored(self, outputs: int, inputs: int, dtype: torch.dtype) -> Mapping[str, StoredTensor]:
        scale = StoredTensor((), torch.float32, None, None, per_part=True)
        if self._by_channel:
            scale = StoredTensor((outputs,), torch.float32, 0, None)
        return {"weight": StoredTensor((outputs, inputs), self._dtype), "weight_scale": scale}

    def encode(self, layer: LinearParts, tensors: Mapping[str, Tensor]) -> CodedWeight:
        scales = tensors["weight_scale"]
        scales = scales[:, None] if self._by_channel else layer.spread(scales)
        if self._dtype is torch.int8:
            return CodedWeight.pack(tensors["weight"], scales, bits=8)
        return from_floats(tensors["weight"], scales)


class _MxFp4(CodedLinear):
    def stored(self, outputs: int, inputs: int, dtype: torch.dtype) -> Mapping[str, StoredTensor]:
        return {
            "weight": StoredTensor((outputs, inputs // 2), torch.uint8),
            "weight_scale": StoredTensor((outputs, inputs // _MX_GROUP), torch.uint8),
        }

    def encode(self, layer: LinearParts, tensors: Mapping[str, Tensor]) -> CodedWeight:
        return fp4_weight(tensors["weight"], powers_of_2(tensors["weight_scale"]))
