"""bitsandbytes online: NF4 or FP4 (arXiv 2305.14314) in blocks of 64, or LLM.int8's integers.

``--quantization bitsandbytes`` rounds a plain checkpoint to NF4 while it loads; a checkpoint's
configuration may ask for ``fp4`` or ``load_in_8bit``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from jackfield.compute.layers.coded_linear import CodedLinear, LinearParts, StoredTensor
from jackfield.compute.layers.coded_weight import CodedWeight
from jackfield.contracts.model import LinearMethod
from jackfield.errors import CheckpointError
from jackfield_quantization.int8 import OnlineInt8
from jackfield_quantization.layer_names import is_listed
from jackfield_quantization.options import flag, names

_BLOCK = 64
# The 16 quantiles of a normal distribution that QLoRA's appendix E tabulates.
_NF4 = (
    *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453),
    *(-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0),
    *(0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224),
    *(0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
)
# bitsandbytes' own FP4: sign, and magnitudes in twelfths.
_FP4_TWELFTHS = (0.0, 0.0625, 8.0, 12.0, 4.0, 6.0, 2.0, 3.0)


class BitsAndBytesQuantization:
    """Implements ``QuantizationMethod``."""

    name: ClassVar[str] = "bitsandbytes"
    api_version: ClassVar[int] = 1

    def __init__(self, config: Mapping[str, object]) -> None:
        if config.get("quant_method") == "bitsandbytes":
            raise CheckpointError(
                "checkpoints that bitsandbytes has packed are not read yet; give the plain one "
                "with --quantization bitsandbytes"
            )
        self._excepted = (*names(config, "llm_int8_skip_modules"), "lm_head")
        if flag(config, "load_in_8bit", False):
            self._method: LinearMethod = OnlineInt8()
        else:
            self._method = OnlineQuantiles(str(config.get("bnb_4bit_quant_type", "nf4")))

    def linear_method(self, prefix: str) -> LinearMethod | None:
        return None if is_listed(prefix, self._excepted) else self._method


def quantiles(kind: str) -> Tensor:
    """float32 [16]: what the codes of ``nf4`` or ``fp4`` stand for."""
    if kind == "nf4":
        return torch.tensor(_NF4)
    if kind == "fp4":
        positive = torch.tensor(_FP4_TWELFTHS) / 12
        return torch.cat((positive, -positive))
    raise CheckpointError(f"quantization_config: bnb_4bit_quant_type {kind!r} is not nf4 or fp4")


class OnlineQuantiles(CodedLinear):
    """The nearest entry of the table, times the block's largest magnitude."""

    is_online: ClassVar[bool] = True

    def __init__(self, kind: str) -> None:
        self._table = quantiles(kind)

    def stored(self, outputs: int, inputs: int, dtype: torch.dtype) -> Mapping[str, StoredTensor]:
        return {"weight": StoredTensor((outputs, inputs), dtype)}

    def encode(self, layer: LinearParts, tensors: Mapping[str, Tensor]) -> CodedWeight:
        weight = tensors["weight"].float()
        table = self._table.to(weight.device)
        block = _BLOCK if weight.shape[1] % _BLOCK == 0 else weight.shape[1]
        blocks = weight.view(len(weight), -1, block)
        scales = blocks.abs().amax(2).clamp_min(1e-12)
        ordered, places = table.sort()
        middles = (ordered[1:] + ordered[:-1]) / 2
        codes = places[torch.bucketize(blocks / scales[..., None], middles)]
        return CodedWeight.pack(codes.view(weight.shape), scales, bits=4, table=table)
