"""What the checkpoint says, with the user's word laid over it: config, dtype, context, class."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from jackfield import checkpoint
from jackfield.config.settings import Settings
from jackfield.contracts.bundled_models import BundledModel
from jackfield.contracts.config_format import ConfigFormat
from jackfield.errors import CheckpointError, ConfigError, UnknownPluginError
from jackfield.planning.architectures import refuse_unknown
from jackfield.planning.bundled import bundled_model
from jackfield.planning.device import DeviceDefaults
from jackfield.planning.plain_config import plain_config
from jackfield.registry import Registry

if TYPE_CHECKING:
    # What it imports is needed only where hooks are installed.
    from jackfield.hooks import Hooks

_DTYPES = {"half": "float16", "float": "float32"}
_STORED_DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_WEIGHT_FILES = ("*.safetensors", "*.bin", "*.pt", "*.pth", "*.gguf")
# Load formats whose files can be checked before torch is imported.
_CHECKED_FORMATS = ("auto", "safetensors", "pt", "gguf")
_QUANTIZED_FORMAT = "bitsandbytes"
_GGUF = "gguf"
_CONFIGS = ("config.json", "params.json")
_OUR_MODELS = ("jackfield", "vllm")
ANY_MODEL = "transformers"
"""The models plugin that takes an architecture which has none of its own."""


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """Where the model, its tokenizer and its configuration are on this machine. ``bundled`` is
    the plugin that brought it, if one did."""

    name: str
    directory: Path
    tokenizer: Path
    config: dict[str, object]
    bundled: BundledModel | None = None


def find_files(settings: Settings, registry: Registry, hooks: Hooks | None = None) -> ModelFiles:
    """Finds the directories, downloads what is on the hub, and reads ``config.json``; hooks are
    asked for the directory first, and may change the config last."""
    name, directory, bundled = _locate(settings, registry, hooks)
    tokenizer = directory
    if settings.tokenizer is not None or (settings.tokenizer_revision and bundled is None):
        wanted = settings.tokenizer or name
        tokenizer = _without_weights(wanted, settings.tokenizer_revision, settings.download_dir)
    source = directory
    if settings.hf_config_path is not None:
        source = _without_weights(settings.hf_config_path, None, settings.download_dir)
    reader: ConfigFormat = registry.make("config_formats", settings.config_format)
    config = checkpoint.with_overrides(reader.read(source), settings.hf_overrides)
    config = checkpoint.with_quantization(
        config, directory if checkpoint.is_gguf(directory) else source
    )
    config = _with_rope(config, settings)
    if hooks is not None:
        config = hooks.adjust_config(config, directory)
    return ModelFiles(name, directory, tokenizer, plain_config(config), bundled)


def _locate(
    settings: Settings, registry: Registry, hooks: Hooks | None
) -> tuple[str, Path, BundledModel | None]:
    """What the model is called, its directory or GGUF file, and the plugin that brought it."""
    name = settings.model
    if name is not None and hooks is not None:
        directory = hooks.resolve_model(name, settings)
        if directory is not None:
            return name, _gguf_inside(directory, settings), None
    bundled = bundled_model(settings, registry)
    if bundled is not None:
        return bundled.name, bundled.directory(), bundled
    assert name is not None, "where no model is named there is a bundled one"
    directory = checkpoint.resolve_model(
        name,
        revision=settings.revision,
        download_dir=settings.download_dir,
        ignore_patterns=settings.ignore_patterns,
        consolidated=settings.load_format == "mistral",
    )
    return name, _gguf_inside(directory, settings), None


def _gguf_inside(directory: Path, settings: Settings) -> Path:
    """The GGUF file of a directory that has no other model, or where the user wants it."""
    wanted = _GGUF in (settings.load_format, settings.quantization, settings.config_format)
    if not wanted and (
        settings.config_format != "auto"
        or any((directory / name).is_file() for name in _CONFIGS)
        or checkpoint.safetensors_files(directory) is not None
    ):
        return directory
    file = checkpoint.gguf_file(directory)
    if wanted and file is None:
        raise CheckpointError(f"{directory} has no .gguf file")
    return file or directory


def _without_weights(name: str, revision: str | None, download_dir: str | None) -> Path:
    return checkpoint.resolve_model(
        name, revision=revision, download_dir=download_dir, ignore_patterns=_WEIGHT_FILES
    )


def _with_rope(config: dict[str, object], settings: Settings) -> dict[str, object]:
    """``--rope-scaling`` and ``--rope-theta`` in whichever form this config has."""
    changed = dict(config)
    new_form = config.get("rope_parameters")
    if settings.rope_scaling:
        if isinstance(new_form, Mapping):
            theta = {key: new_form[key] for key in ("rope_theta",) if key in new_form}
            changed["rope_parameters"] = {**theta, **settings.rope_scaling}
        else:
            changed["rope_scaling"] = dict(settings.rope_scaling)
    if settings.rope_theta is not None:
        parameters = changed.get("rope_parameters")
        if isinstance(parameters, Mapping):
            changed["rope_parameters"] = {**parameters, "rope_theta": settings.rope_theta}
        changed["rope_theta"] = settings.rope_theta
    return changed


def check_weights(settings: Settings, directory: Path) -> None:
    """Refuses missing and damaged weight files. The engine checks those of other formats."""
    if settings.load_format in _CHECKED_FORMATS:
        checkpoint.check_weights(directory)


def choose_load_format(settings: Settings, quantization: str | None) -> str:
    """The load_formats plugin. ``bitsandbytes``, as older command lines have it beside the
    quantization method of that name, reads any files."""
    if settings.load_format != _QUANTIZED_FORMAT:
        return settings.load_format
    if quantization != _QUANTIZED_FORMAT:
        raise ConfigError(
            f"--load-format {_QUANTIZED_FORMAT} needs --quantization {_QUANTIZED_FORMAT}"
        )
    return "auto"


def context_length(
    settings: Settings, config: Mapping[str, object], trained: int | None = None
) -> int:
    """Tokens that a request may have, prompt and output. ``trained``: those that the model's
    vectors were trained for; the user may ask for more."""
    wanted = settings.max_model_len
    try:
        longest = checkpoint.context_length(config)
    except CheckpointError:
        if wanted is None:
            raise
        longest = wanted
    window = config.get("sliding_window")
    if settings.disable_sliding_window and isinstance(window, int):
        # No token of so short a context sees the window's edge.
        longest = min(longest, window)
    if wanted is None:
        return longest if trained is None else min(longest, trained)
    if wanted > longest:
        raise ConfigError(
            f"--max-model-len {wanted} is above the {longest} tokens that the model can see; "
            "lower it, or change the model with --rope-scaling or --hf-overrides"
        )
    return wanted


def choose_dtype(settings: Settings, files: ModelFiles, defaults: DeviceDefaults) -> str:
    """``bfloat16``, ``float16`` or ``float32``."""
    if settings.dtype != "auto":
        return _DTYPES.get(settings.dtype, settings.dtype)
    said = checkpoint.torch_dtype_name(files.config) or _stored_dtype(files.directory)
    if said in ("bfloat16", "float16"):
        return said
    # float64 is no better served; 8-bit weights are computed with in 16 bits.
    if said is None or said in ("float32", "float64"):
        return defaults.dtype_for_float32
    return "bfloat16"


def _stored_dtype(directory: Path) -> str | None:
    """The dtype of most of the first weight file's bytes."""
    weights = checkpoint.safetensors_files(directory)
    if weights is None or not weights.files[0].is_file():
        # ``check_weights`` says what is missing, where files are needed.
        return None
    sizes: dict[str, int] = {}
    for entry in checkpoint.read_safetensors_header(weights.files[0]).values():
        sizes[entry.dtype] = sizes.get(entry.dtype, 0) + entry.end - entry.begin
    return _STORED_DTYPES.get(max(sizes, key=sizes.__getitem__)) if sizes else None


def choose_model(settings: Settings, config: Mapping[str, object], registry: Registry) -> str:
    """``auto`` (by architecture), or the models plugin to use.

    An architecture without a plugin goes to ``transformers``, unless the user insists.
    """
    if settings.model_impl not in ("auto", *_OUR_MODELS):
        registry.find("models", settings.model_impl)
        return settings.model_impl
    if registry.has_source("models"):
        return "auto"
    architectures = checkpoint.architectures(config)
    unknown: UnknownPluginError | None = None
    for name in architectures:
        try:
            registry.find("models", name)
            return "auto"
        except UnknownPluginError as error:
            unknown = unknown or error
    if settings.model_impl in _OUR_MODELS and unknown is not None:
        raise unknown
    registry.find("models", ANY_MODEL)
    if not settings.trust_remote_code:
        refuse_unknown(architectures)
    return ANY_MODEL
