"""Sampling defaults and end-of-sequence ids, from ``generation_config.json`` and the options."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from jackfield import checkpoint
from jackfield.config.paths import given_path
from jackfield.config.settings import Settings
from jackfield.config.suggestion import did_you_mean
from jackfield.contracts.sampling import SamplingParams
from jackfield.errors import ConfigError, RequestError

# generation_config.json's name: ours.
_FIELDS = {
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "min_p": "min_p",
    "repetition_penalty": "repetition_penalty",
    "max_new_tokens": "max_tokens",
}
_OVERRIDES = {
    **_FIELDS,
    "max_tokens": "max_tokens",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
}
MAX_TOKEN_ID = (1 << 31) - 1
_NO_DEFAULTS = ("vllm", "jackfield")


def read_generation(settings: Settings, directory: Path) -> dict[str, object]:
    """``generation_config.json`` of the model, or of the directory that the user names."""
    choice = settings.generation_config
    if choice == "auto" or choice in _NO_DEFAULTS:
        return checkpoint.read_generation_config(directory)
    path = given_path(choice)
    if not (path / "generation_config.json").is_file():
        raise ConfigError(f"--generation-config {choice}: there is no generation_config.json")
    return checkpoint.read_generation_config(path)


def sampling_defaults(settings: Settings, generation: Mapping[str, object]) -> dict[str, object]:
    """What a request gets that says nothing; by the names of ``SamplingParams``."""
    defaults: dict[str, object] = {}
    if settings.generation_config not in _NO_DEFAULTS:
        defaults = {
            ours: generation[name]
            for name, ours in _FIELDS.items()
            if generation.get(name) is not None
        }
        _check(defaults, "generation_config.json")
    overrides: dict[str, object] = {}
    for name, value in settings.override_generation_config.items():
        if name == "eos_token_id":
            continue
        if name not in _OVERRIDES:
            raise ConfigError(
                f"--override-generation-config has the unknown key {name!r}"
                f"{did_you_mean(name, _OVERRIDES)}"
            )
        if value is None:
            # As in vLLM: the checkpoint says nothing of it.
            defaults.pop(_OVERRIDES[name], None)
        else:
            overrides[_OVERRIDES[name]] = value
    _check(overrides, "--override-generation-config")
    return defaults | overrides


def _check(values: dict[str, object], source: str) -> None:
    for name, value in values.items():
        # Whole numbers may be written 20.0; what is no number is told from a bad one here.
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ConfigError(f"{source}: {name} must be a number, not {value!r}")
        if name in ("top_k", "max_tokens"):
            if not float(value).is_integer():
                raise ConfigError(f"{source}: {name} must be a whole number, not {value!r}")
            values[name] = int(value)
    try:
        SamplingParams(**values)  # type: ignore[arg-type]  # numbers, as just checked
    except RequestError as error:
        raise ConfigError(f"{source}: {error}") from None


def eos_token_ids(
    settings: Settings, generation: Mapping[str, object], config: Mapping[str, object]
) -> tuple[int, ...]:
    """The ids that end a text, most binding source first; empty if the checkpoint names none.

    ``--override-generation-config``, then ``generation_config.json``, then ``config.json``.
    """
    text = config.get("text_config")
    sources = [settings.override_generation_config, generation, config]
    for source in [*sources, *([text] if isinstance(text, Mapping) else [])]:
        value = source.get("eos_token_id")
        ids = value if isinstance(value, list | tuple) else [value]
        if ids and ids != [None]:
            return tuple(dict.fromkeys(_token_id(each) for each in ids))
    return ()


def _token_id(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_TOKEN_ID:
        return value
    raise ConfigError(f"eos_token_id must be token ids, not {value!r}"[:200])
