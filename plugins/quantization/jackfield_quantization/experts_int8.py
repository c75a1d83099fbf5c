"""``--quantization experts_int8``: the experts of a plain checkpoint, rounded to 8 bits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from jackfield.contracts.model import LinearMethod
from jackfield_quantization.int8 import OnlineInt8
from jackfield_quantization.options import round_plain


class ExpertsInt8Quantization:
    """Implements ``QuantizationMethod``: a scale for each output; the other layers stay plain."""

    name: ClassVar[str] = "experts_int8"
    api_version: ClassVar[int] = 1

    def __init__(self, config: Mapping[str, object]) -> None:
        round_plain(config, self.name)
        self._method = OnlineInt8()

    def linear_method(self, prefix: str) -> LinearMethod | None:
        return self._method if ".experts." in prefix else None
