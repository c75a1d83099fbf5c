"""MXFP4 checkpoints of gpt-oss' kind: the experts of a layer in one tensor.

Facts: the OCP Microscaling specification 1.0 (E2M1 numbers, a power of 2 for 32 of them), and
the checkpoints of gpt-oss. ``experts.gate_up_proj_blocks`` uint8 [E, 2 I, hidden / 32, 16] with
the rows of gate and up by turns, two numbers in a byte, the first in the low half;
``experts.gate_up_proj_scales`` uint8 [E, 2 I, hidden / 32], 127 being 1; ``down_proj`` the same,
[E, hidden, I / 32, ...]. Layers that are no experts have ``weight_blocks`` and ``weight_scales``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import ClassVar

from torch import Tensor

from jackfield.compute.layers.moe import experts_apart
from jackfield_quantization.compressed_tensors import PackedFloats
from jackfield_quantization.layer_tensors import Named
from jackfield_quantization.one_method import OneMethod
from jackfield_quantization.options import names, require

_OWN = {"blocks": "weight_packed", "scales": "weight_scale", "bias": "bias"}
_EXPERTS = re.compile(r"(.*\.experts\.(?:gate_up_proj|down_proj))_(blocks|scales|bias)")
_LINEAR = re.compile(r"(.*)\.weight_(blocks|scales)")


class Mxfp4Quantization(OneMethod):
    """Implements ``QuantizationMethod`` and ``TranslatesTensors``."""

    name: ClassVar[str] = "mxfp4"
    api_version: ClassVar[int] = 1

    def __init__(self, config: Mapping[str, object]) -> None:
        require(config, self.name)
        self._excepted = (*names(config, "modules_to_not_convert"), "lm_head")
        self._method = PackedFloats(nvidia=False, static=False)

    def translate(self, weights: Iterable[Named]) -> Iterator[Named]:
        """Experts one by one, gate and up apart; views of the checkpoint's tensors."""
        for name, tensor in weights:
            if (found := _EXPERTS.fullmatch(name)) is not None:
                for own, part in experts_apart(found[1], tensor):
                    yield f"{own}.{_OWN[found[2]]}", _joined(found[2], part)
            elif (found := _LINEAR.fullmatch(name)) is not None:
                yield f"{found[1]}.{_OWN[found[2]]}", _joined(found[2], tensor)
            else:
                yield name, tensor


def _joined(own: str, tensor: Tensor) -> Tensor:
    # [N, K / 32, 16] -> [N, K / 2]; scales are as they should be.
    return tensor.flatten(1) if own == "blocks" else tensor


class GptOssMxfp4Quantization(Mxfp4Quantization):
    """The same by a name that other engines have for it."""

    name: ClassVar[str] = "gpt_oss_mxfp4"
