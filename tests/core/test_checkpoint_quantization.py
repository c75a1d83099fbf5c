"""Where a checkpoint may say how it is quantized."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jackfield.checkpoint import with_quantization
from jackfield.errors import CheckpointError


def written(directory: Path, name: str, value: object) -> Path:
    (directory / name).write_text(json.dumps(value))
    return directory


def method(directory: Path) -> object:
    said = with_quantization({}, directory).get("quantization_config")
    return said["quant_method"] if isinstance(said, dict) else None


def test_config_json_comes_first(tmp_path: Path) -> None:
    config: dict[str, object] = {"quantization_config": {"quant_method": "fp8"}}
    written(tmp_path, "quantize_config.json", {"bits": 4})
    assert with_quantization(config, tmp_path) is config


def test_files_of_modelopt_gptq_and_awq_are_told_apart(tmp_path: Path) -> None:
    assert method(tmp_path) is None
    assert method(written(tmp_path, "quantize_config.json", {"bits": 4})) == "gptq"
    assert method(written(tmp_path, "quantize_config.json", {"zero_point": True})) == "awq"
    modelopt = {"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "FP8"}}
    written(tmp_path, "hf_quant_config.json", modelopt)
    said = with_quantization({}, tmp_path)["quantization_config"]
    assert said == {"quant_method": "modelopt", "quant_algo": "FP8"}


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("quant_config.json", {"zero_point": True, "w_bit": 4, "q_group_size": 128}, "awq"),
        ("quant_config.json", {"wbits": 4, "group_size": 128}, "qqq"),
        ("quant_config.json", {"bits": 6, "group_size": 512}, "deepspeedfp"),
        ("quantize_config.json", {"quant_method": "marlin", "group_size": 128}, "marlin"),
    ],
)
def test_other_tools_are_known_by_their_keys(
    tmp_path: Path, name: str, value: object, expected: str
) -> None:
    assert method(written(tmp_path, name, value)) == expected


def test_the_first_name_of_compressed_tensors_is_known(tmp_path: Path) -> None:
    config: dict[str, object] = {"compression_config": {"format": "pack-quantized"}}
    said = with_quantization(config, tmp_path)["quantization_config"]
    assert said == {"quant_method": "compressed-tensors", "format": "pack-quantized"}


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "quantize_config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"quantize_config\.json"):
        with_quantization({}, tmp_path)
