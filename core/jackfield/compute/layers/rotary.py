"""Rotary position embedding: one table of cosines and sines for all positions.

RoPE: arXiv 2104.09864. Scaling: linear (arXiv 2306.15595), dynamic NTK, YaRN (arXiv
2309.00071), and the frequency bands of Llama 3.1. The parameters are those of transformers'
``config.json``, in the old form (``rope_theta``, ``rope_scaling``) and in the new one
(``rope_parameters``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from jackfield.compute.layers.model_config import ModelConfig
from jackfield.errors import CheckpointError

_DEFAULT_THETA = 10_000.0
_ROWS_AT_ONCE = 8192


class Rope:
    """The table: ``cos_sin`` float32 [P, rot], cosines first, rot / 2 each; P positions.

    The first ``rot`` dimensions of a head are rotated (rotate-half), the rest passes through.
    """

    def __init__(self, cos_sin: Tensor) -> None:
        self.cos_sin = cos_sin


def make_rope(
    config: Mapping[str, object],
    *,
    head_dim: int,
    max_positions: int,
    device: torch.device,
) -> Rope:
    """The table for positions 0 .. ``max_positions`` - 1.

    Raises ``CheckpointError`` for a scaling kind that is not known. With ``dynamic`` scaling a
    position beyond the trained context gets the frequencies of a sequence that ends there, so
    that a token's key does not depend on how its prompt was cut or cached; this equals
    transformers token by token.
    """
    parameters = _parameters(config)
    rotated = int(head_dim * parameters.number("partial_rotary_factor", 1.0))
    kind = _kind(parameters)
    if kind == "dynamic":
        return Rope(_dynamic_table(parameters, rotated, max_positions).to(device))
    if kind not in _FREQUENCIES:
        known = ", ".join(sorted([*_FREQUENCIES, "dynamic"]))
        raise CheckpointError(f"RoPE scaling {kind!r} is not supported; known are {known}")
    inverse, factor = _FREQUENCIES[kind](parameters, rotated)
    return Rope(_table(inverse, factor, max_positions).to(device))


def _parameters(config: Mapping[str, object]) -> ModelConfig:
    """The RoPE parameters, wherever this configuration has them, as one flat configuration."""
    whole = ModelConfig(config)
    new, old = whole.mapping("rope_parameters"), whole.mapping("rope_scaling")
    if any(isinstance(value, Mapping) for value in (*new.values(), *old.values())):
        raise CheckpointError("RoPE parameters that differ by layer type are not supported")
    outer = {
        key: config.get(key)
        for key in ("rope_theta", "partial_rotary_factor", "max_position_embeddings")
    }
    inner = {"rope_theta": new.get("rope_theta"), **(old or new)}
    flat = outer | {key: value for key, value in inner.items() if value is not None}
    # Some checkpoints say it outside; transformers prefers that.
    if config.get("original_max_position_embeddings") is not None:
        flat["original_max_position_embeddings"] = config["original_max_position_embeddings"]
    return ModelConfig(flat)


def _kind(parameters: ModelConfig) -> str:
    return parameters.text("rope_type", parameters.text("type", "default"))


def _exponents(rotated: int) -> Tensor:
    return torch.arange(0, rotated, 2, dtype=torch.int64).float() / rotated


# One unit in the last place of a frequency is a visible angle at position 100,000: here and
# below the order of operations is transformers', so that the tables agree to the bit.
def _inverse_frequencies(base: float, rotated: int) -> Tensor:
    inverse: Tensor = 1.0 / base ** _exponents(rotated)
    return inverse


def _default(parameters: ModelConfig, rotated: int) -> tuple[Tensor, float]:
    return _inverse_frequencies(parameters.number("rope_theta", _DEFAULT_THETA), rotated), 1.0


def _linear(parameters: ModelConfig, rotated: int) -> tuple[Tensor, float]:
    inverse, factor = _default(parameters, rotated)
    return inverse / parameters.number("factor"), factor


def _factors(parameters: ModelConfig, rotated: int) -> tuple[Tensor, float]:
    """A divisor for each frequency, as GGUF files have them."""
    inverse, factor = _default(parameters, rotated)
    return inverse / torch.tensor(parameters.numbers("factors", len(inverse))), factor


def _llama3(parameters: ModelConfig, rotated: int) -> tuple[Tensor, float]:
    """Long waves are stretched by ``factor``, short ones kept, those between blended."""
    inverse, attention_factor = _default(parameters, rotated)
    factor = parameters.number("factor")
    low, high = parameters.number("low_freq_factor"), parameters.number("high_freq_factor")
    wave_lengths = 2 * math.pi / inverse
    waves_in_context = _original_context(parameters) / wave_lengths
    keep = ((waves_in_context - low) / (high - low)).clamp(0.0, 1.0)
    return (1 - keep) * inverse / factor + keep * inverse, attention_factor


def _yarn(parameters: ModelConfig, rotated: int) -> tuple[Tensor, float]:
    """NTK by parts: dimensions that turn often are kept, slow ones interpolated."""
    base = parameters.number("rope_theta", _DEFAULT_THETA)
    original = _original_context(parameters)
    factor = parameters.number("factor", parameters.number("max_position_embeddings", 1) / original)
    inverse = _inverse_frequencies(base, rotated)
    stretched = 1.0 / (factor * base ** _exponents(rotated))

    def dimension(turns: float) -> float:
        return rotated * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(base))

    low = dimension(parameters.number("beta_fast", 32.0))
    high = dimension(parameters.number("beta_slow", 1.0))
    if parameters.flag("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, rotated - 1)
    if low == high:
        high += 0.001
    ramp = ((torch.arange(rotated // 2, dtype=torch.float32) - low) / (high - low)).clamp(0, 1)
    keep = 1 - ramp
    return stretched * (1 - keep) + inverse * keep, _yarn_attention(parameters, factor)


def _yarn_attention(parameters: ModelConfig, factor: float) -> float:
    """What cosines and sines are multiplied by (the paper's temperature, section 3.4)."""

    def magnitude(weight: float) -> float:
        return 0.1 * weight * math.log(factor) + 1.0 if factor > 1 else 1.0

    weight, weight_all = parameters.number("mscale", 0.0), parameters.number("mscale_all_dim", 0.0)
    inferred = magnitude(weight) / magnitude(weight_all) if weight and weight_all else magnitude(1)
    # DeepSeek-R1-0528-Qwen3-8B has the inverse of what is inferred. vLLM multiplies by it;
    # transformers does not read it.
    inferred *= parameters.number("attn_factor", 1.0)
    return parameters.number("attention_factor", inferred)


def _original_context(parameters: ModelConfig) -> float:
    key = "original_max_position_embeddings"
    if parameters.values.get(key) is None:
        key = "max_position_embeddings"
    return parameters.number(key)


_FREQUENCIES: Mapping[str, Callable[[ModelConfig, int], tuple[Tensor, float]]] = {
    "default": _default,
    "factors": _factors,
    "linear": _linear,
    "llama3": _llama3,
    "yarn": _yarn,
}


def _table(inverse: Tensor, factor: float, max_positions: int) -> Tensor:
    half = inverse.numel()
    table = torch.empty(max_positions, 2 * half, dtype=torch.float32)
    for begin in range(0, max_positions, _ROWS_AT_ONCE):
        end = min(begin + _ROWS_AT_ONCE, max_positions)
        angles = torch.arange(begin, end, dtype=torch.float32)[:, None] * inverse
        _fill(table[begin:end], angles, factor)
    return table


def _dynamic_table(parameters: ModelConfig, rotated: int, max_positions: int) -> Tensor:
    base = parameters.number("rope_theta", _DEFAULT_THETA)
    factor = parameters.number("factor")
    trained = parameters.integer("max_position_embeddings")
    table = _table(_inverse_frequencies(base, rotated), 1.0, max_positions)
    for begin in range(trained, max_positions, _ROWS_AT_ONCE):
        end = min(begin + _ROWS_AT_ONCE, max_positions)
        positions = torch.arange(begin, end, dtype=torch.float64)[:, None]
        growth = factor * (positions + 1) / trained - (factor - 1)
        bases = (base * growth ** (rotated / (rotated - 2))).float()
        _fill(table[begin:end], positions.float() * (1.0 / bases ** _exponents(rotated)), 1.0)
    return table


def _fill(rows: Tensor, angles: Tensor, factor: float) -> None:
    half = angles.shape[1]
    torch.cos(angles, out=rows[:, :half])
    torch.sin(angles, out=rows[:, half:])
    if factor != 1.0:
        rows.mul_(factor)
