"""Plain checkpoints rounded to FP8 while they load, by other scales than ``fp8``'s own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from jackfield.compute.layers.coded_linear import LinearParts
from jackfield.contracts.model import LinearMethod
from jackfield.errors import ConfigError
from jackfield_quantization.fp8 import LARGEST, OnlineFp8, by_blocks
from jackfield_quantization.layer_names import is_router
from jackfield_quantization.options import round_plain

_BLOCK = 128
_MX_GROUP = 32
_MX_LARGEST_EXPONENT = 8


class _OnlineQuantization:
    """Implements ``QuantizationMethod`` but for the name and the method."""

    api_version: ClassVar[int] = 1
    name: ClassVar[str]
    _method: ClassVar[LinearMethod]

    def __init__(self, config: Mapping[str, object]) -> None:
        round_plain(config, self.name)

    def linear_method(self, prefix: str) -> LinearMethod | None:
        return None if is_router(prefix) else self._method


class OnlineTensorFp8(OnlineFp8):
    """One scale for each checkpoint layer."""

    def steps(self, layer: LinearParts, weight: Tensor) -> Tensor:
        parts = [part.abs().amax() for part in torch.split(weight, list(layer.outputs))]
        return layer.spread(torch.stack(parts)) / LARGEST


class OnlineBlockFp8(OnlineFp8):
    """A scale for 128 outputs by 128 inputs; the last blocks may be smaller."""

    def steps(self, layer: LinearParts, weight: Tensor) -> Tensor:
        outputs, inputs = weight.shape
        padded = F.pad(weight, (0, -inputs % _BLOCK, 0, -outputs % _BLOCK)).abs()
        blocks = padded.view(len(padded) // _BLOCK, _BLOCK, -1, _BLOCK).amax((1, 3))
        return by_blocks(blocks, weight.shape, (_BLOCK, _BLOCK)) / LARGEST


class OnlineMxFp8(OnlineFp8):
    """A power of 2 for 32 inputs (OCP Microscaling specification 1.0)."""

    def steps(self, layer: LinearParts, weight: Tensor) -> Tensor:
        if weight.shape[1] % _MX_GROUP:
            raise ConfigError(f"mxfp8 needs layers whose inputs are a multiple of {_MX_GROUP}")
        largest = weight.view(len(weight), -1, _MX_GROUP).abs().amax(2).clamp_min(1e-30)
        return torch.exp2(largest.log2().floor() - _MX_LARGEST_EXPONENT)


class PtpcFp8Quantization(_OnlineQuantization):
    """A scale for each output (and, where activations were rounded, for each token)."""

    name: ClassVar[str] = "ptpc_fp8"
    _method = OnlineFp8()


class ChannelFp8Quantization(PtpcFp8Quantization):
    """The same by a later name."""

    name: ClassVar[str] = "fp8_per_channel"


class TensorFp8Quantization(_OnlineQuantization):
    """One scale for each layer of the checkpoint."""

    name: ClassVar[str] = "fp8_per_tensor"
    _method = OnlineTensorFp8()


class BlockFp8Quantization(_OnlineQuantization):
    """A scale for each block of 128 by 128."""

    name: ClassVar[str] = "fp8_per_block"
    _method = OnlineBlockFp8()


class MxFp8Quantization(_OnlineQuantization):
    """MXFP8: a power of 2 for 32 inputs."""

    name: ClassVar[str] = "mxfp8"
    _method = OnlineMxFp8()
