"""NVIDIA ModelOpt: FP8, MXFP8 and NVFP4 checkpoints, and mixtures of them.

Facts: the files that ModelOpt exports. FP8: ``weight`` E4M3, ``weight_scale`` and ``input_scale``
of the layer; by channel ``weight_scale`` is [N], by block [N / 128, 1, K / 128, 1]; MXFP8 has
powers of 2, uint8 [N, K / 32]. NVFP4: ``weight`` uint8 [N, K / 2], ``weight_scale`` E4M3 [N, K /
16], and ``weight_scale_2``, which is multiplied (compressed-tensors divides). With
``MIXED_PRECISION`` each of ``quantized_layers`` has a ``quant_algo``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import ClassVar

import torch
from torch import Tensor

from jackfield.compute.layers.coded_linear import CodedLinear, LinearParts, StoredTensor
from jackfield.compute.layers.coded_weight import CodedWeight
from jackfield.contracts.model import LinearMethod
from jackfield.errors import CheckpointError
from jackfield_quantization.compressed_tensors import fp4_weight
from jackfield_quantization.fp8 import E4M3, BlockFp8, TensorFp8
from jackfield_quantization.layer_names import checkpoint_names, is_listed
from jackfield_quantization.layer_tensors import Named
from jackfield_quantization.mxfp8 import MxFp8Linear
from jackfield_quantization.options import Config, names, require, section

_GROUP, _BLOCK = 16, 128
_MIXED = "MIXED_PRECISION"


class ModelOptQuantization:
    """Implements ``QuantizationMethod`` and ``TranslatesTensors``; ``quant_algo`` says how."""

    name: ClassVar[str] = "modelopt"
    api_version: ClassVar[int] = 1

    def __init__(self, config: Mapping[str, object]) -> None:
        require(config, self.name)
        inner = section(config, "quantization") or config
        self._excepted = names(inner, "exclude_modules", "ignore")
        self._layers: dict[str, LinearMethod] = {}
        self._method: LinearMethod | None = None
        if _algorithm(inner) != _MIXED:
            self._method = _method(inner)
            return
        layers = section(inner, "quantized_layers")
        self._layers = {name: _method(section(layers, name)) for name in layers}

    def linear_method(self, prefix: str) -> LinearMethod | None:
        if is_listed(prefix, self._excepted):
            return None
        if self._method is not None:
            return self._method
        (own, *others) = [self._layers.get(name) for name in checkpoint_names(prefix)]
        if any(type(other) is not type(own) for other in others):
            raise CheckpointError(f"layers that are fused to {prefix} are quantized differently")
        return own

    def translate(self, weights: Iterable[Named]) -> Iterator[Named]:
        """Scales by channel as [N, 1], and by block as the [N / 128, K / 128] of other tools."""
        for name, tensor in weights:
            if name.endswith(".weight_scale") and tensor.dim() == 4:
                yield f"{name}_inv", tensor[:, 0, :, 0]
            elif name.endswith(".weight_scale") and tensor.dim() == 1 and len(tensor) > 1:
                yield name, tensor[:, None]
            else:
                yield name, tensor


def _algorithm(config: Config) -> str:
    return str(config.get("quant_algo", "")).upper()


def _method(config: Config) -> LinearMethod:
    methods: dict[str, Callable[[], LinearMethod]] = {
        "FP8": lambda: TensorFp8(static=True),
        "FP8_PER_CHANNEL_PER_TOKEN": lambda: TensorFp8(static=False, by_channel=True),
        "FP8_PB_WO": lambda: BlockFp8(_BLOCK, _BLOCK),
        "MXFP8": MxFp8Linear,
        "NVFP4": lambda: _NvFp4(with_input=True),
        "W4A16_NVFP4": lambda: _NvFp4(with_input=False),
    }
    algorithm = _algorithm(config)
    if algorithm not in methods:
        raise CheckpointError(
            f"quantization_config: quant_algo {algorithm or None!r} is unknown; "
            f"{', '.join(methods)} are served"
        )
    return methods[algorithm]()


class _NvFp4(CodedLinear):
    def __init__(self, *, with_input: bool) -> None:
        self._with_input = with_input

    def stored(self, outputs: int, inputs: int, dtype: torch.dtype) -> Mapping[str, StoredTensor]:
        one = StoredTensor((), torch.float32, None, None, per_part=True)
        tensors = {
            "weight": StoredTensor((outputs, inputs // 2), torch.uint8),
            "weight_scale": StoredTensor((outputs, inputs // _GROUP), E4M3),
            "weight_scale_2": one,
        }
        if self._with_input:
            tensors["input_scale"] = one
        return tensors

    def encode(self, layer: LinearParts, tensors: Mapping[str, Tensor]) -> CodedWeight:
        scales = tensors["weight_scale"].float() * layer.spread(tensors["weight_scale_2"])
        return fp4_weight(tensors["weight"], scales)
