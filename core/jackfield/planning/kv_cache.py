"""What keys and values are kept as: ``--kv-cache-dtype``, or what the checkpoint says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from jackfield.config.settings import Settings
from jackfield.errors import ConfigError

_E4M3 = "float8_e4m3fn"
_EIGHT_BITS = {"fp8": _E4M3, "fp8_e4m3": _E4M3, "fp8_e5m2": "float8_e5m2"}


@dataclass(frozen=True, slots=True)
class KVDtype:
    """``name`` of an 8-bit dtype of torch, None for the model's own; whether its scales are
    ``measured``."""

    name: str | None
    measured: bool


def choose_kv_dtype(settings: Settings, config: Mapping[str, object], dtype: str) -> KVDtype:
    """For a model that computes in ``dtype``. ``ConfigError`` for what contradicts it."""
    wanted, measured = settings.kv_cache_dtype, settings.calculate_kv_scales
    if wanted in _EIGHT_BITS:
        return KVDtype(_EIGHT_BITS[wanted], measured)
    if wanted not in ("auto", dtype):
        raise ConfigError(
            f"--kv-cache-dtype {wanted}: the model computes in {dtype}; its keys and values are "
            f"kept as that, or in 8 bits ({', '.join(_EIGHT_BITS)})"
        )
    name = _of_checkpoint(config) if wanted == "auto" else None
    if measured and name is None:
        raise ConfigError("--calculate-kv-scales is for 8 bits: give --kv-cache-dtype fp8 too")
    return KVDtype(name, measured)


def _of_checkpoint(config: Mapping[str, object]) -> str | None:
    """``kv_cache_scheme`` is that of compressed-tensors and of ModelOpt's config.json;
    ``kv_cache_quant_algo`` stands in ModelOpt's other file."""
    said = config.get("quantization_config")
    if not isinstance(said, Mapping):
        return None
    algorithm, scheme = said.get("kv_cache_quant_algo"), said.get("kv_cache_scheme")
    if isinstance(algorithm, str):
        if algorithm.upper() == "FP8":
            return _E4M3
        raise _unknown(f"kv_cache_quant_algo {algorithm}")
    if isinstance(scheme, Mapping):
        if scheme.get("type") == "float" and scheme.get("num_bits") == 8:
            return _E4M3
        raise _unknown(f"kv_cache_scheme {scheme.get('type')} of {scheme.get('num_bits')} bits")
    return None


def _unknown(what: str) -> ConfigError:
    return ConfigError(
        f"the checkpoint's {what} is not served; choose with --kv-cache-dtype what its keys and "
        "values are kept as"
    )
