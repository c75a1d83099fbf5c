"""bitsandbytes: NF4 or FP4 (arXiv 2305.14314) in blocks of 64, and LLM.int8's integers.

``--quantization bitsandbytes`` rounds a plain checkpoint to NF4 while it loads. One that
transformers has packed (``quant_method`` ``bitsandbytes``) is served as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import ClassVar

import torch
from torch import Tensor

from jackfield.compute.layers.coded_linear import LinearParts
from jackfield.compute.layers.coded_weight import CodedWeight
from jackfield.contracts.model import LinearMethod
from jackfield_quantization.bitsandbytes_checkpoint import (
    BLOCK,
    PackedBytes,
    PackedQuantiles,
    quantiles,
)
from jackfield_quantization.int8 import OnlineInt8
from jackfield_quantization.layer_names import checkpoint_names
from jackfield_quantization.layer_tensors import Named
from jackfield_quantization.one_method import OneMethod
from jackfield_quantization.online import OnlineLinear
from jackfield_quantization.options import flag, names


class BitsAndBytesQuantization(OneMethod):
    """Implements ``QuantizationMethod`` and ``TranslatesTensors``."""

    name: ClassVar[str] = "bitsandbytes"
    api_version: ClassVar[int] = 1

    def __init__(self, config: Mapping[str, object]) -> None:
        self._excepted = (*names(config, "llm_int8_skip_modules"), "lm_head")
        kind = str(config.get("bnb_4bit_quant_type", "nf4"))
        self._packed: PackedBytes | PackedQuantiles | None = None
        if config.get("quant_method") == "bitsandbytes":
            in_bytes = flag(config, "load_in_8bit", False)
            self._packed = PackedBytes() if in_bytes else PackedQuantiles(kind)
        online = OnlineInt8() if flag(config, "load_in_8bit", False) else OnlineQuantiles(kind)
        self._method: LinearMethod = self._packed or online
        # Parts of fused layers that stay plain, though only another part is excepted.
        self._plain: set[str] = set()

    def linear_method(self, prefix: str) -> LinearMethod | None:
        method = super().linear_method(prefix)
        if method is None:
            self._plain.update(checkpoint_names(prefix))
        return method

    def translate(self, weights: Iterable[Named]) -> Iterable[Named]:
        """The tensors of a packed checkpoint as one layer's codes and scales."""
        if self._packed is None:
            return weights
        return self._packed.translate(weights, self._has_codes)

    def _has_codes(self, layer: str) -> bool:
        return layer not in self._plain and self.linear_method(layer) is not None


class OnlineQuantiles(OnlineLinear):
    """The nearest entry of the table, times the block's largest magnitude."""

    def __init__(self, kind: str) -> None:
        self._table = quantiles(kind)

    def encode(self, layer: LinearParts, tensors: Mapping[str, Tensor]) -> CodedWeight:
        weight = tensors["weight"].float()
        table = self._table.to(weight.device)
        block = BLOCK if weight.shape[1] % BLOCK == 0 else weight.shape[1]
        blocks = weight.view(len(weight), -1, block)
        scales = blocks.abs().amax(2).clamp_min(1e-12)
        ordered, places = table.sort()
        middles = (ordered[1:] + ordered[:-1]) / 2
        codes = places[torch.bucketize(blocks / scales[..., None], middles)]
        return CodedWeight.pack(codes.view(weight.shape), scales, bits=4, table=table)
