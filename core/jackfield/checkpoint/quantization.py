"""How a checkpoint says that it is quantized, when its ``quantization_config`` does not."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from jackfield.checkpoint.gguf import is_gguf, quantized_layers, read_gguf
from jackfield.checkpoint.reading import read_optional_json


def with_quantization(config: dict[str, object], directory: Path) -> dict[str, object]:
    """The config with a ``quantization_config``, if any file beside it has one.

    ``compression_config`` is what compressed-tensors wrote at first; ``hf_quant_config.json`` is
    ModelOpt's, ``quantize_config.json`` and ``quant_config.json`` are those of AutoGPTQ, QQQ,
    DeepSpeed and the older AutoAWQ. A GGUF file gives the type of each layer.
    """
    if is_gguf(directory):
        types = quantized_layers(read_gguf(directory))
        own = {"quantization_config": {"quant_method": "gguf", "tensor_types": types}}
        return {**config, **own} if types else config
    if isinstance(config.get("quantization_config"), Mapping):
        return config
    first = config.get("compression_config")
    if isinstance(first, Mapping):
        return {**config, "quantization_config": {"quant_method": "compressed-tensors", **first}}
    said = read_optional_json(directory / "hf_quant_config.json")
    if said:
        inner = said.get("quantization")
        values = inner if isinstance(inner, Mapping) else said
        return {**config, "quantization_config": {"quant_method": "modelopt", **values}}
    for name, unmarked in (("quantize_config.json", "gptq"), ("quant_config.json", "deepspeedfp")):
        said = read_optional_json(directory / name)
        if said:
            method = _method(said, unmarked)
            return {**config, "quantization_config": {"quant_method": method, **said}}
    return config


def _method(said: Mapping[str, object], unmarked: str) -> str:
    # Each tool has a key that the others lack; ``unmarked`` is who has none.
    if "zero_point" in said or "w_bit" in said:
        return "awq"
    return "qqq" if "wbits" in said else unmarked
