"""Reading a checkpoint's quantization configuration: typed, and clear where it is wrong."""

from __future__ import annotations

from collections.abc import Mapping

from jackfield.errors import CheckpointError

Config = Mapping[str, object]


def require(config: Config, method: str) -> None:
    """Refuses a checkpoint that is not quantized, for a method that cannot do it while loading."""
    if not config:
        raise CheckpointError(
            f"--quantization {method} serves checkpoints that were quantized before; this one is "
            "plain"
        )


def round_plain(config: Config, method: str) -> None:
    """Refuses a quantized checkpoint, for a method that rounds plain ones."""
    if config:
        raise CheckpointError(f"--quantization {method} rounds plain checkpoints only")


def integer(config: Config, name: str, default: int | None = None) -> int:
    """A whole number."""
    value = config.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool):
        raise CheckpointError(f"quantization_config: {name} must be a whole number, not {value!r}")
    return value


def flag(config: Config, name: str, default: bool) -> bool:
    """True or false."""
    value = config.get(name, default)
    if not isinstance(value, bool):
        raise CheckpointError(f"quantization_config: {name} must be true or false, not {value!r}")
    return value


def names(config: Config, *keys: str) -> tuple[str, ...]:
    """A list of layer names, under whichever of these keys it is."""
    for key in keys:
        value = config.get(key)
        if isinstance(value, list | tuple):
            return tuple(str(each) for each in value)
    return ()


def pair(config: Config, name: str) -> tuple[int, int]:
    """Two whole numbers: the outputs and inputs of a block."""
    value = config.get(name)
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise CheckpointError(f"quantization_config: {name} is {value!r}, not [outputs, inputs]")
    return int(value[0]), int(value[1])


def section(config: Config, name: str) -> Config:
    """A mapping inside; empty if there is none."""
    value = config.get(name)
    return value if isinstance(value, Mapping) else {}
