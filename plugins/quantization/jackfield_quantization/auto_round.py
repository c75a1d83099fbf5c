"""AutoRound (arXiv 2309.05516): integers in the layouts of GPTQ and AWQ.

Facts: what auto-round exports. ``packing_format`` says the layout: with "awq" AWQ's, else GPTQ's
without ``g_idx``, zero points one less ("auto_round:auto_gptq") or as they are
("auto_round:gptqmodel", "auto_round"). ``extra_config`` has layers of other bits by name or
pattern, 16 for plain ones; layers outside ``block_name_to_quantize`` are plain.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import ClassVar

from jackfield.contracts.model import LinearMethod
from jackfield.errors import CheckpointError
from jackfield_quantization.awq import AwqLinear
from jackfield_quantization.gptq import GptqLinear
from jackfield_quantization.layer_names import checkpoint_names, compiled, is_router
from jackfield_quantization.layer_tensors import Named
from jackfield_quantization.options import Config, integer, require, section

_PLAIN_BITS = 16


class AutoRoundQuantization:
    """Implements ``QuantizationMethod`` and ``TranslatesTensors``."""

    name: ClassVar[str] = "auto-round"
    api_version: ClassVar[int] = 1

    def __init__(self, config: Mapping[str, object]) -> None:
        require(config, self.name)
        self._config = config
        self._extra = section(config, "extra_config")
        blocks = config.get("block_name_to_quantize")
        listed = blocks.split(",") if isinstance(blocks, str) else blocks or ()
        if not isinstance(listed, list | tuple):
            raise CheckpointError(f"quantization_config: block_name_to_quantize is {blocks!r}")
        self._blocks = tuple(str(name).strip() for name in listed)
        kind = config.get("data_type", "int")
        if kind != "int":
            raise CheckpointError(f"quantization_config: AutoRound's data_type {kind!r} is unknown")
        _method(config)  # what is wrong is told at once

    def linear_method(self, prefix: str) -> LinearMethod | None:
        if is_router(prefix):
            return None
        of_parts = [self._of(name) for name in checkpoint_names(prefix)]
        if any(own != of_parts[0] for own in of_parts):
            raise CheckpointError(f"layers that are fused to {prefix} are quantized differently")
        (own, *_) = of_parts
        return None if own is None else _method(own)

    def _of(self, name: str) -> Config | None:
        for key in self._extra:
            if key == name or compiled(key).fullmatch(name) is not None:
                own = {**self._config, **section(self._extra, key)}
                return None if integer(own, "bits") >= _PLAIN_BITS else own
        in_blocks = any(name.startswith(f"{block}.") for block in self._blocks)
        return self._config if in_blocks or (not self._blocks and name != "lm_head") else None

    def translate(self, weights: Iterable[Named]) -> Iterator[Named]:
        """Without the inputs' groups, which are always in order."""
        return (each for each in weights if not each[0].endswith(".g_idx"))


def _method(config: Config) -> LinearMethod:
    packing = str(config.get("packing_format", "auto_round:auto_gptq"))
    if "awq" in packing:
        return AwqLinear(integer(config, "group_size"))
    if packing not in (
        *("auto_round:auto_gptq", "auto_round:gptq", "auto_gptq"),
        *("auto_round:gptqmodel", "auto_round"),
    ):
        raise CheckpointError(f"quantization_config: packing_format {packing!r} is unknown")
    less_one = packing.endswith("gptq")
    version = "gptq" if less_one else "gptq_v2"
    return GptqLinear({**config, "checkpoint_format": version}, has_order=False)
