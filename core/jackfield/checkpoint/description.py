"""What a checkpoint says about itself: configuration, architecture, dtype, context length."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from jackfield.checkpoint.gguf import is_gguf, read_gguf_generation
from jackfield.checkpoint.reading import read_json_object, read_optional_json
from jackfield.errors import CheckpointError

_CONTEXT_KEYS = (
    "max_position_embeddings",
    "n_positions",
    "max_seq_len",
    "max_sequence_length",
    "seq_length",
    "n_ctx",
    "model_max_length",
)
# What transformers takes where the configuration of such a text model is only its differences.
_CONTEXT_OF_TYPE = {"gemma3_text": 131_072}


def read_config(directory: Path) -> dict[str, object]:
    """``config.json``."""
    path = directory / "config.json"
    if not path.is_file():
        raise CheckpointError(f"{directory} has no config.json; it is not a model directory")
    return read_json_object(path)


def read_generation_config(directory: Path) -> dict[str, object]:
    """``generation_config.json``, or what a GGUF file says of it; empty where there is none."""
    if is_gguf(directory):
        return read_gguf_generation(directory)
    return read_optional_json(directory / "generation_config.json")


def with_overrides(
    config: Mapping[str, object], overrides: Mapping[str, object]
) -> dict[str, object]:
    """The configuration with a value of ``overrides`` in the place of the old one, except that a
    sub-configuration (``text_config``) is merged."""
    merged = dict(config)
    for key, value in overrides.items():
        old = merged.get(key)
        if key.endswith("_config") and isinstance(old, Mapping) and isinstance(value, Mapping):
            merged[key] = with_overrides(old, value)
        else:
            merged[key] = value
    return merged


def architectures(config: Mapping[str, object]) -> tuple[str, ...]:
    """The class names that ``config.json`` offers, first choice first."""
    names = config.get("architectures")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise CheckpointError('config.json has no list "architectures", so no model can be chosen')
    return tuple(names)


def torch_dtype_name(config: Mapping[str, object]) -> str | None:
    """The dtype that the checkpoint asks for (``bfloat16``), None if it does not say."""
    for part in _parts(config):
        for key in ("dtype", "torch_dtype"):
            if isinstance(value := part.get(key), str):
                return value.removeprefix("torch.")
    return None


def context_length(config: Mapping[str, object]) -> int:
    """Tokens that the model can see at once, its own RoPE scaling included.

    Raises ``CheckpointError`` where ``config.json`` does not say; do not ask where the user
    did (``--max-model-len``).
    """
    for part in _parts(config):
        for key in _CONTEXT_KEYS:
            value = part.get(key)
            if isinstance(value, int) and value > 0:
                value -= _reserved_positions(part)
                return _scaled_context(part, value)
    for part in _parts(config):
        if (known := _CONTEXT_OF_TYPE.get(str(part.get("model_type")))) is not None:
            return known
    raise CheckpointError("config.json does not say how long the context is; give --max-model-len")


def _parts(config: Mapping[str, object]) -> list[Mapping[str, object]]:
    """The configuration and, where the model is a multi-modal wrapper, that of its text model."""
    text = config.get("text_config")
    return [config, text] if isinstance(text, Mapping) else [config]


def _reserved_positions(config: Mapping[str, object]) -> int:
    """Rows of the position embedding that no token uses: RoBERTa counts behind the padding id."""
    padding = config.get("pad_token_id", 1)
    is_offset = config.get("model_type") in ("roberta", "xlm-roberta", "camembert", "mpnet")
    return padding + 1 if is_offset and isinstance(padding, int) else 0


def _scaled_context(config: Mapping[str, object], length: int) -> int:
    rope = config.get("rope_parameters") or config.get("rope_scaling")
    if not isinstance(rope, Mapping):
        return length
    if str(config.get("model_type")).startswith("gemma3"):
        # Its ``max_position_embeddings`` is what the scaling gives.
        return length
    kind = rope.get("rope_type", rope.get("type"))
    factor = rope.get("factor")
    if kind not in ("linear", "dynamic", "yarn") or not isinstance(factor, int | float):
        return length
    original = rope.get("original_max_position_embeddings")
    if kind == "yarn" and isinstance(original, int):
        return max(length, int(original * factor))
    return int(length * factor)
