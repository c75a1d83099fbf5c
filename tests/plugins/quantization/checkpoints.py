"""A tiny checkpoint and its quantized copy: what a method reads, and what it must compute."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tests.checkpoints import make
from tests.plugins.quantization.packers import Packer
from transformers import AutoModelForCausalLM, PreTrainedModel

LINEAR = tuple(f"{name}_proj.weight" for name in ("q", "k", "v", "o", "gate", "up", "down"))
ARCHITECTURE = "Qwen3ForCausalLM"


def quantized_copy(
    target: Path, config: dict[str, object], pack: Packer
) -> tuple[Path, PreTrainedModel]:
    """(the quantized checkpoint, transformers' model with the numbers it stands for)."""
    source = make(ARCHITECTURE, intermediate_size=128)
    shutil.copytree(source, target)
    tensors = load_file(target / "model.safetensors")
    stored: dict[str, torch.Tensor] = {}
    numbers: dict[str, torch.Tensor] = {}
    for name, tensor in tensors.items():
        if name.endswith(LINEAR):
            packed, numbers[name] = pack(tensor)
            prefix = name.removesuffix("weight")
            stored |= {prefix + own: value.contiguous() for own, value in packed.items()}
        else:
            stored[name] = numbers[name] = tensor
    save_file(stored, target / "model.safetensors", metadata={"format": "pt"})
    path = target / "config.json"
    described = json.loads(path.read_text())
    path.write_text(json.dumps({**described, "quantization_config": config}))
    model = AutoModelForCausalLM.from_pretrained(
        source, dtype=torch.float32, attn_implementation="eager"
    )
    missing = model.load_state_dict(numbers, strict=False).missing_keys
    assert set(missing) <= {"lm_head.weight"}
    return target, model.eval()
