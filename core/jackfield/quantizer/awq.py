"""AWQ: inputs that matter are scaled up before their weights are rounded, and down in what is
before them, so that the model computes the same.

After arXiv 2306.00978. How much is searched by the error of the layer's outputs on the
calibration's inputs, which their second moments give: tr(E H E^T) for an error E of the weight.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from jackfield.errors import ConfigError

_STEPS = 20

Rounded = Callable[[Tensor], Tensor]
"""A weight [N, K] -> the numbers that its codes stand for."""


@dataclass(frozen=True, slots=True)
class Scaled:
    """Linear layers that share their inputs, and the module whose outputs these are."""

    before: nn.Module
    layers: tuple[str, ...]


def scaled_groups(names: Mapping[str, nn.Module], block: str) -> list[Scaled]:
    """Those of the transformer block named ``block``, in the order in which they are scaled."""
    wanted = [
        ("mlp.up_proj", ("mlp.down_proj",)),
        ("post_attention_layernorm", ("mlp.gate_proj", "mlp.up_proj")),
        ("input_layernorm", ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")),
    ]
    groups = []
    for before, layers in wanted:
        full = tuple(f"{block}.{layer}" for layer in layers)
        if f"{block}.{before}" not in names or not all(name in names for name in full):
            raise ConfigError(
                f"--algorithm awq knows blocks like Llama's; {block} has no {before} before "
                f"{', '.join(layers)}: use --algorithm gptq"
            )
        groups.append(Scaled(names[f"{block}.{before}"], full))
    return groups


def find_input_scales(weights: Sequence[Tensor], hessian: Tensor, rounded: Rounded) -> Tensor:
    """float32 [K]: what the inputs are multiplied by; weights [N, K] share them."""
    size = hessian.diagonal().clamp(min=0).sqrt()
    size = size / size.mean().clamp(min=1e-10)
    best, least = torch.ones_like(size), float("inf")
    for step in range(_STEPS):
        scales = size.clamp(min=1e-4).pow(step / _STEPS)
        scales = scales / (scales.max() * scales.min()).sqrt()
        error = 0.0
        for weight in weights:
            missed = rounded(weight * scales) / scales - weight
            error += float(((missed @ hessian) * missed).sum())
        if error < least:
            best, least = scales, error
    return best


def scale_inputs(group: Scaled, names: Mapping[str, nn.Module], scales: Tensor) -> None:
    """Multiplies the layers' weights, and divides what comes before them, by ``scales`` [K].

    Raises ``ConfigError`` where the outputs of what comes before are not proportional to its
    weight, as those of Gemma's norms.
    """
    before = group.before
    weight = before.get_parameter("weight")
    probe = torch.ones(1, weight.shape[-1], dtype=weight.dtype, device=weight.device)
    expected = before(probe) / scales
    for parameter in (weight, _bias(before)):
        if parameter is not None:
            shape = (-1, *[1] * (parameter.dim() - 1))
            parameter.data.copy_(parameter.data.float() / scales.view(shape))
    is_linear = isinstance(before, nn.Linear)
    if not is_linear and not torch.allclose(
        before(probe).float(), expected.float(), rtol=0.05, atol=1e-3
    ):
        raise ConfigError(
            f"--algorithm awq: {type(before).__name__} does not scale its outputs by its weight: "
            "use --algorithm gptq"
        )
    for layer in group.layers:
        weight = names[layer].get_parameter("weight")
        weight.data.copy_(weight.data.float() * scales)


def _bias(module: nn.Module) -> nn.Parameter | None:
    bias = getattr(module, "bias", None)
    return bias if isinstance(bias, nn.Parameter) else None
