"""Which quantization method a model runs with: the user's, or the checkpoint's."""

from __future__ import annotations

from collections.abc import Mapping

from jackfield.config.foreign_quantizations import KERNELS, REFUSED
from jackfield.config.settings import Settings
from jackfield.errors import ConfigError
from jackfield.registry import Registry

_KIND = "quantization"


def choose_quantization(
    settings: Settings, config: Mapping[str, object], registry: Registry
) -> str | None:
    """The quantization plugin; None where the weights are plain. Imports nothing.

    Raises ``ConfigError`` for a method that is not the checkpoint's, and for names of other
    engines that mean nothing here.
    """
    said = config.get("quantization_config")
    method = said.get("quant_method") if isinstance(said, Mapping) else None
    stored = _offered(method, registry) if isinstance(method, str) else None
    asked = settings.quantization
    if asked is None or asked.lower() == "none":
        if stored is not None:
            registry.find(_KIND, stored)
        return stored
    kernel = KERNELS.get(_key(asked))
    if kernel is not None and not registry.offers(_KIND, asked):
        if stored not in kernel:
            raise ConfigError(
                f"--quantization {asked} is for checkpoints of {' or '.join(kernel)}; this one is "
                + ("plain" if stored is None else f"quantized with {stored}")
            )
        return stored
    asked = _offered(asked, registry)
    entry = registry.find(_KIND, asked)
    if stored is not None and entry is not None:
        other = registry.find(_KIND, stored)
        # One method may have several names; they are in one module then.
        if other is None or _module(other.value) != _module(entry.value):
            raise ConfigError(
                f"--quantization {asked}, but the checkpoint is quantized with {stored}: "
                "leave the option out"
            )
    return asked


def _offered(name: str, registry: Registry) -> str:
    # The name, or the method behind another engine's name for it.
    if registry.offers(_KIND, name):
        return name
    if (reason := REFUSED.get(_key(name))) is not None:
        raise ConfigError(f"quantization {name!r} is refused: {reason}")
    methods = KERNELS.get(_key(name), (name,))
    return methods[0] if len(methods) == 1 else name


def _key(name: str) -> str:
    return name.lower().replace("-", "_")


def _module(entry_point: str) -> str:
    return entry_point.partition(":")[0]
