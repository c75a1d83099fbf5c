"""How a checkpoint says that it is quantized, when ``config.json`` does not."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from jackfield.checkpoint.gguf import is_gguf, quantized_layers, read_gguf
from jackfield.checkpoint.reading import read_optional_json


def with_quantization(config: dict[str, object], directory: Path) -> dict[str, object]:
    """The config with a ``quantization_config``, if any file beside it has one.

    ``hf_quant_config.json`` is ModelOpt's, ``quantize_config.json`` AutoGPTQ's and the older
    AutoAWQ's. A GGUF file gives the type of each layer.
    """
    if is_gguf(directory):
        types = quantized_layers(read_gguf(directory))
        own = {"quantization_config": {"quant_method": "gguf", "tensor_types": types}}
        return {**config, **own} if types else config
    if isinstance(config.get("quantization_config"), Mapping):
        return config
    said = read_optional_json(directory / "hf_quant_config.json")
    if said:
        inner = said.get("quantization")
        values = inner if isinstance(inner, Mapping) else said
        return {**config, "quantization_config": {"quant_method": "modelopt", **values}}
    said = read_optional_json(directory / "quantize_config.json")
    if said:
        method = "awq" if "zero_point" in said or "w_bit" in said else "gptq"
        return {**config, "quantization_config": {"quant_method": method, **said}}
    return config
