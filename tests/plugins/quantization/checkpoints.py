"""A tiny checkpoint and its quantized copy: what a method reads, and what it must compute."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from safetensors.torch import load_file, save_file
from tests.checkpoints import make, reference
from tests.plugins.quantization.packers import Packer
from torch import Tensor
from transformers import PreTrainedModel

LINEARS = tuple(f"{name}_proj.weight" for name in ("q", "k", "v", "o", "gate", "up", "down"))
"""Endings of what is quantized of most models."""

ARCHITECTURE = "Qwen3ForCausalLM"

Tensors = dict[str, Tensor]


def quantized_copy(
    target: Path,
    config: dict[str, object],
    pack: Packer,
    source: Path | None = None,
    linears: tuple[str, ...] = LINEARS,
) -> tuple[Path, PreTrainedModel]:
    """(the quantized checkpoint, transformers' model with the numbers it stands for)."""

    def pack_all(tensors: Tensors) -> tuple[Tensors, Tensors]:
        stored: Tensors = {}
        numbers: Tensors = {}
        for name, tensor in tensors.items():
            if name.endswith(linears):
                packed, numbers[name] = pack(tensor)
                prefix = name.removesuffix("weight")
                stored |= {prefix + own: value for own, value in packed.items()}
            else:
                stored[name] = numbers[name] = tensor
        return stored, numbers

    return rewritten_copy(target, config, pack_all, source)


def rewritten_copy(
    target: Path,
    config: dict[str, object],
    rewrite: Callable[[Tensors], tuple[Tensors, Tensors]],
    source: Path | None = None,
) -> tuple[Path, PreTrainedModel]:
    """The same; ``rewrite`` gives what the checkpoint has and the numbers, both of all tensors."""
    source = source or make(ARCHITECTURE, intermediate_size=128)
    shutil.copytree(source, target)
    stored, numbers = rewrite(load_file(target / "model.safetensors"))
    with TemporaryDirectory() as plain:
        shutil.copytree(source, plain, dirs_exist_ok=True)
        for directory, tensors in ((target, stored), (Path(plain), numbers)):
            whole = {name: tensor.contiguous() for name, tensor in tensors.items()}
            save_file(whole, directory / "model.safetensors", metadata={"format": "pt"})
        model = reference(Path(plain))
    path = target / "config.json"
    described = json.loads(path.read_text())
    path.write_text(json.dumps({**described, "quantization_config": config}))
    return target, model
