"""The linear layers of a transformers model, by the block that they are in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import nn

from jackfield.errors import ConfigError


def linear_layers(model: nn.Module, ignore: Sequence[str]) -> dict[str, nn.Linear]:
    """All but those whose name, or its last part, is in ``ignore``."""
    found = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and not {name, name.rpartition(".")[2]} & set(ignore)
    }
    fused = [name for name, p in model.named_parameters() if p.dim() > 2]
    if fused:
        raise ConfigError(
            f"{type(model).__name__} has weights that are no linear layers ({fused[0]}): they "
            "cannot be quantized"
        )
    if not found:
        raise ConfigError(f"{type(model).__name__} has no linear layer to quantize")
    return found


def block_names(model: nn.Module) -> list[str]:
    """Names of the transformer blocks, first to last."""
    lists = [(name, m) for name, m in model.named_modules() if isinstance(m, nn.ModuleList)]
    if not lists:
        return []
    name, longest = max(lists, key=lambda each: len(each[1]))
    return [f"{name}.{index}" for index in range(len(longest))]


def by_block(layers: Mapping[str, nn.Linear], blocks: Sequence[str]) -> list[list[str]]:
    """Names of the layers of each block, and at last of those that are in none."""
    grouped = [[name for name in layers if name.startswith(f"{block}.")] for block in blocks]
    inside = {name for group in grouped for name in group}
    rest = [name for name in layers if name not in inside]
    return [group for group in (*grouped, rest) if group]
