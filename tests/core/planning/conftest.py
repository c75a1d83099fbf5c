"""A checkpoint without weights worth the name, and devices that need no hardware."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from jackfield.config.settings import make_settings
from jackfield.planning import ServingPlan, make_plan
from jackfield.registry import Registry

CONFIG: dict[str, object] = {
    "architectures": ["Qwen3ForCausalLM"],
    "max_position_embeddings": 4096,
    "torch_dtype": "float32",
    "eos_token_id": 7,
    "rope_theta": 10000.0,
}
PLATFORMS = """
class Device:
    api_version = 1
    default_attention_backend = "none"
    @classmethod
    def available(cls): return True
    def device(self, rank): raise AssertionError("the plan needs no device")
    def memory(self, device): raise AssertionError("the plan needs no device")

class Host(Device):
    name = "host"
    steps_in_flight = 1

class Accelerator(Device):
    name = "accelerator"
    steps_in_flight = 2

class Absent(Device):
    name = "absent"
    steps_in_flight = 2
    @classmethod
    def available(cls): return False
"""
Plan = Callable[..., ServingPlan]


def write_weights(path: Path, dtype: str = "F32") -> None:
    size = {"F32": 16, "BF16": 8, "F16": 8, "F8_E4M3": 4}[dtype]
    entry = {"dtype": dtype, "shape": [2, 2], "data_offsets": [0, size]}
    header = json.dumps({"weight": entry}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(size))


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    directory = tmp_path / "model"
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps(CONFIG))
    write_weights(directory / "model.safetensors")
    return directory


@pytest.fixture
def platforms(tmp_path: Path) -> Path:
    file = tmp_path / "platforms.py"
    file.write_text(PLATFORMS)
    return file


@pytest.fixture
def plan(checkpoint: Path, platforms: Path) -> Plan:
    """Makes a plan for the checkpoint from options; on the device ``host`` unless one is named."""

    def make(**options: object) -> ServingPlan:
        values = {
            "model": str(checkpoint),
            "device": "host",
            "platform_plugin": str(platforms),
            **options,
        }
        settings = make_settings(values)
        return make_plan(settings, Registry(settings.plugin_sources))

    return make
