"""From a directory to a quantized copy of it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from jackfield.checkpoint import read_config, read_safetensors_header, safetensors_files
from jackfield.checkpoint.renamed import stored_name
from jackfield.errors import ConfigError
from jackfield.quantizer.awq import find_input_scales, scale_inputs, scaled_groups
from jackfield.quantizer.calibration import chunks, collect_hessians
from jackfield.quantizer.experts import routers, unstack_experts
from jackfield.quantizer.gptq import gptq
from jackfield.quantizer.layers import block_names, by_block, linear_layers
from jackfield.quantizer.recipe import Recipe
from jackfield.quantizer.rounding import find_scales
from jackfield.quantizer.writing import copy_others, stored_tensors, write_config, write_tensors

_HESSIAN_BYTES = 4 << 30


@dataclass(frozen=True, slots=True)
class QuantizeJob:
    """``source`` is a directory of Hugging Face's layout; ``target`` does not exist yet or is
    empty. ``samples``: token ids of the calibration's windows. ``device``: ``cpu``, ``cuda``."""

    source: Path
    target: Path
    recipe: Recipe
    device: str = "cpu"
    samples: Sequence[Sequence[int]] = ()


def quantize(job: QuantizeJob) -> None:
    """Writes the checkpoint. Raises ``ConfigError`` for what cannot be quantized, before anything
    is written; a run that breaks off leaves nothing behind."""
    config = _checked(job)
    with torch.no_grad():
        model = _loaded(job)
        name_of = _naming(job.source, model)
        tensors, ignored = _quantized(model, job)
    job.target.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(dir=job.target.parent, prefix=f".{job.target.name}."))
    try:
        copy_others(job.source, made)
        write_tensors(made, {name_of(name): tensor for name, tensor in tensors.items()})
        write_config(made, config, job.recipe.described(tuple(map(name_of, ignored))))
        made.chmod(0o755)
        made.replace(job.target)
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _checked(job: QuantizeJob) -> dict[str, Any]:
    if job.target.exists() and (not job.target.is_dir() or any(job.target.iterdir())):
        raise ConfigError(f"{job.target} exists and is not an empty directory")
    config: dict[str, Any] = read_config(job.source)
    if "quantization_config" in config:
        raise ConfigError(f"{job.source} is quantized already")
    if job.recipe.calibrated and not job.samples:
        raise ConfigError(f"--algorithm {job.recipe.algorithm} needs a text: --calibration FILE")
    return config


def _loaded(job: QuantizeJob) -> nn.Module:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(job.source, dtype="auto", local_files_only=True)
    unstack_experts(model)
    loaded: nn.Module = model.to(job.device).eval()
    return loaded


def _naming(source: Path, model: nn.Module) -> Callable[[str], str]:
    """From what the model calls its tensors to what the checkpoint calls them."""
    files = safetensors_files(source)
    if files is None:
        raise ConfigError(f"{source} has no *.safetensors")
    there = {name for file in files.files for name in read_safetensors_header(file)}
    wanted = set(_state(model))
    for name_of in (str, stored_name):
        if {name_of(name) for name in wanted} <= there:
            return name_of
    name = min(wanted - there)
    raise ConfigError(
        f"{type(model).__name__} of transformers has {name}, the checkpoint has not: its "
        "tensors have other names there, and cannot be written back"
    )


def _state(model: nn.Module) -> dict[str, Tensor]:
    """Its tensors by name; of those that are tied only the first."""
    seen: set[int] = set()
    state = {}
    for name, tensor in model.state_dict().items():
        if tensor.data_ptr() not in seen:
            seen.add(tensor.data_ptr())
            state[name] = tensor
    return state


def _quantized(model: nn.Module, job: QuantizeJob) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Every tensor of the new checkpoint, and the linear layers that stay as they are."""
    recipe = job.recipe
    layers = linear_layers(model, recipe.ignore)
    for layer in layers.values():
        recipe.groups(layer.in_features)
    stored: dict[str, dict[str, Tensor]] = {}
    samples = [torch.tensor([list(ids)], device=job.device) for ids in job.samples]
    for names, hessians in _calibrated(model, layers, samples, recipe):
        if recipe.algorithm == "awq":
            _scale_block(model, names, hessians, recipe)
        for name in names:
            stored[name] = _quantize_layer(layers[name], hessians.get(name), recipe)
    tensors: dict[str, Tensor] = {}
    for name, tensor in _state(model).items():
        owner, _, own = name.rpartition(".")
        if owner in stored and own == "weight":
            tensors |= {f"{owner}.{key}": value for key, value in stored[owner].items()}
        else:
            tensors[name] = tensor
    ignored = [n for n, m in model.named_modules() if isinstance(m, nn.Linear) and n not in layers]
    return tensors, (*ignored, *routers(model))


def _calibrated(
    model: nn.Module, layers: dict[str, nn.Linear], samples: list[Tensor], recipe: Recipe
) -> Iterator[tuple[list[str], dict[str, Tensor]]]:
    """The layers' names block by block, with the Hessians of what they are given after the blocks
    before (of the same run at least) were quantized."""
    blocks = by_block(layers, block_names(model))
    runs = list(chunks(blocks, layers, _HESSIAN_BYTES)) if recipe.calibrated else [blocks]
    total = len(blocks) + (len(runs) * len(samples) if recipe.calibrated else 0)
    with tqdm(total=total, desc="Quantizing", disable=None) as bar:
        for run in runs:
            hessians: dict[str, Tensor] = {}
            if recipe.calibrated:
                watched = {name: layers[name] for block in run for name in block}
                hessians = collect_hessians(model, watched, samples, lambda: bar.update(1))
            for block in run:
                yield list(block), hessians
                bar.update(1)


def _scale_block(
    model: nn.Module, names: list[str], hessians: dict[str, Tensor], recipe: Recipe
) -> None:
    modules = dict(model.named_modules())
    block = next((b for b in block_names(model) if names[0].startswith(f"{b}.")), None)
    if block is None:
        return

    def rounded(weight: Tensor) -> Tensor:
        scales = find_scales(weight, recipe, recipe.groups(weight.shape[1]), weight.dtype)
        return scales.numbers(scales.codes(weight))

    for group in scaled_groups(modules, block):
        weights = [modules[name].get_parameter("weight").float() for name in group.layers]
        scales = find_input_scales(weights, hessians[group.layers[0]], rounded)
        scale_inputs(group, modules, scales)


def _quantize_layer(layer: nn.Linear, hessian: Tensor | None, recipe: Recipe) -> dict[str, Tensor]:
    """What is stored of it; its weight becomes what that stands for."""
    weight, dtype = layer.weight.float(), layer.weight.dtype
    if recipe.algorithm == "gptq" and hessian is not None:
        codes, scales = gptq(weight, hessian, recipe, dtype)
    else:
        scales = find_scales(weight, recipe, recipe.groups(layer.in_features), dtype)
        codes = scales.codes(weight)
    layer.weight.copy_(scales.numbers(codes))
    return stored_tensors(codes, scales, recipe, dtype)
