"""A model's config as it may travel to the engine's process: nothing but plain values."""

from __future__ import annotations

from collections.abc import Mapping

from jackfield.errors import ConfigError

_LARGEST = 2**63 - 1
"""What the format between processes has room for. A larger number is a way to say "no limit": 1e30
is how transformers writes it."""


def plain_config(config: Mapping[str, object]) -> dict[str, object]:
    """The same in dicts, lists and scalars; ``ConfigError`` for what is none, which JSON cannot say
    but a plugin can."""
    return {_key(name, "config"): _plain(value, name) for name, value in config.items()}


def _plain(value: object, where: str) -> object:
    if isinstance(value, bool | str) or value is None:
        return value
    if isinstance(value, int):
        return int(max(-_LARGEST, min(value, _LARGEST)))
    if isinstance(value, float):
        return float(value)
    if isinstance(value, list | tuple):
        return [_plain(each, where) for each in value]
    if isinstance(value, Mapping):
        return {_key(name, where): _plain(each, f"{where}.{name}") for name, each in value.items()}
    raise ConfigError(
        f"{where} of the model's config is a {type(value).__name__}: it may hold null, booleans, "
        "numbers, texts, lists and maps"
    )


def _key(name: object, where: str) -> str:
    if not isinstance(name, str):
        raise ConfigError(f"{where} of the model's config has the key {name!r}, which is no text")
    return name
