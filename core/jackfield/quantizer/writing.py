"""A checkpoint's files: tensors in safetensors, config.json, and what else the source has."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from jackfield.quantizer.recipe import Recipe
from jackfield.quantizer.rounding import Scales

_SHARD_BYTES = 5 << 30
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".index.json")
_DTYPES = {
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.int8: "I8",
    torch.int32: "I32",
    torch.int64: "I64",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


def stored_tensors(
    codes: Tensor, scales: Scales, recipe: Recipe, dtype: torch.dtype
) -> dict[str, Tensor]:
    """What compressed-tensors keeps of one weight, by its name in the layer."""
    stored = {"weight_scale": scales.scale.to(dtype)}
    if recipe.method == "fp8":
        stored["weight"] = codes.to(torch.float8_e4m3fn)
    elif recipe.method == "int8":
        stored["weight"] = codes.to(torch.int8)
    else:
        stored["weight_packed"] = _packed(codes - scales.low)
        stored["weight_shape"] = torch.tensor(codes.shape, dtype=torch.int64)
        if scales.zero is not None:
            stored["weight_zero_point"] = _packed((scales.zero - scales.low).T).T.contiguous()
    return stored


def _packed(codes: Tensor) -> Tensor:
    """0 .. 15 [N, K] -> int32 [N, ceil(K / 8)], the first in the lowest bits."""
    padded = torch.nn.functional.pad(codes.to(torch.int64), (0, -codes.shape[1] % 8))
    shifts = 4 * torch.arange(8, device=codes.device)
    words = (padded.view(len(codes), -1, 8) << shifts).sum(-1)
    return torch.where(words >= 1 << 31, words - (1 << 32), words).to(torch.int32)


def write_tensors(directory: Path, tensors: Mapping[str, Tensor]) -> None:
    """One file, or shards of at most 5 GiB with an index."""
    shards: list[dict[str, Tensor]] = [{}]
    room = _SHARD_BYTES
    for name, tensor in tensors.items():
        if tensor.nbytes > room and shards[-1]:
            shards.append({})
            room = _SHARD_BYTES
        shards[-1][name] = tensor
        room -= tensor.nbytes
    if len(shards) == 1:
        _write_file(directory / "model.safetensors", shards[0])
        return
    places: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        file = f"model-{number:05}-of-{len(shards):05}.safetensors"
        _write_file(directory / file, shard)
        places |= dict.fromkeys(shard, file)
    total = sum(tensor.nbytes for tensor in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": places}
    _write_json(directory / "model.safetensors.index.json", index)


def _write_file(path: Path, tensors: Mapping[str, Tensor]) -> None:
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    begin = 0
    for name, tensor in tensors.items():
        end = begin + tensor.nbytes
        shape = list(tensor.shape)
        header[name] = {
            "dtype": _DTYPES[tensor.dtype],
            "shape": shape,
            "data_offsets": [begin, end],
        }
        begin = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for tensor in tensors.values():
            flat = tensor.detach().cpu().contiguous().view(-1)
            file.write(flat.view(torch.uint8).numpy().data)


def copy_others(source: Path, target: Path) -> None:
    """Tokenizer, templates and the like: all files but weights and config.json."""
    for path in sorted(source.iterdir()):
        if path.is_file() and path.name != "config.json" and not path.name.endswith(_WEIGHTS):
            shutil.copy2(path, target / path.name)


def write_config(target: Path, config: Mapping[str, object], described: object) -> None:
    """config.json with its ``quantization_config``."""
    _write_json(target / "config.json", {**config, "quantization_config": described})


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
