"""From a name to the directory of a checkpoint: on this machine first, then the hub."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from jackfield.checkpoint.gguf import gguf_file, gguf_patterns, is_gguf
from jackfield.checkpoint.weight_files import safetensors_files
from jackfield.config.paths import given_path
from jackfield.errors import CheckpointError

# What serving reads: weights at the top level, configuration, tokenizer, templates, code.
_WANTED = (
    "*.safetensors",
    "*.json",
    "*.jinja",
    "*.model",
    "*.txt",
    "*.tiktoken",
    "*.py",
    "additional_chat_templates/*",
)
# Weights in folders are the same ones once more: original/ and metal/ of gpt-oss, openvino/, lora/.
_NOT_READ = ("*/*.safetensors", "*/*.bin")
_CONSOLIDATED = "consolidated*.safetensors"
_ONE_OF_MANY = re.compile(r"(?P<repository>[^:/]+/[^:/]+):(?P<quantization>[\w.-]+)")


def resolve_model(
    name: str,
    *,
    revision: str | None = None,
    download_dir: str | None = None,
    ignore_patterns: Sequence[str] = (),
    consolidated: bool = False,
) -> Path:
    """The directory of a model: ``name`` itself if it is one, or a GGUF file, else the hub's
    snapshot of it; ``owner/model:Q4_K_M`` is one GGUF file of a repository.

    Downloads what is missing to ``download_dir`` (the hub's own cache if None); Mistral's
    ``consolidated`` weights only if they are wanted, or there are no others. Raises
    ``CheckpointError`` where there is neither.
    """
    path = given_path(name)
    if path.is_dir() or is_gguf(path):
        return path
    if path.exists():
        raise CheckpointError(
            f"{name} is a file; a model is a directory that has config.json, or a .gguf file"
        )
    if name.startswith(("/", "./", "../", "~")) or name.count("/") > 1:
        raise CheckpointError(f"there is no directory {name}")
    ignored = (*ignore_patterns, *_NOT_READ)
    if found := _ONE_OF_MANY.fullmatch(name):
        return _gguf(found["repository"], found["quantization"], revision, download_dir, ignored)
    return _snapshot(
        name, revision, download_dir, ignored, () if consolidated else (_CONSOLIDATED,)
    )


def _gguf(
    name: str,
    quantization: str,
    revision: str | None,
    download_dir: str | None,
    ignored: tuple[str, ...],
) -> Path:
    wanted = gguf_patterns(quantization)
    ignored = (*ignored, "*mmproj*")  # image encoders
    file = gguf_file(_download(name, revision, download_dir, wanted, ignored), quantization)
    if file is None:
        raise CheckpointError(f"{name} has no .gguf file that is called {quantization}")
    return file


def _snapshot(
    name: str,
    revision: str | None,
    download_dir: str | None,
    ignored: tuple[str, ...],
    second: tuple[str, ...],
) -> Path:
    # Many repositories have their weights twice; the second kind only where it is the only one.
    directory = _download(name, revision, download_dir, _WANTED, (*ignored, *second))
    if safetensors_files(directory) is None:
        directory = _download(name, revision, download_dir, (*_WANTED, "*.bin"), ignored)
    return directory


def _download(
    name: str,
    revision: str | None,
    download_dir: str | None,
    wanted: tuple[str, ...],
    ignored: tuple[str, ...],
) -> Path:
    # Local directories, the usual case, must not pay for this import (0.3 s).
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    where = name if revision is None else f"{name} at revision {revision}"
    try:
        return Path(
            snapshot_download(
                name,
                revision=revision,
                cache_dir=download_dir,
                allow_patterns=list(wanted),
                ignore_patterns=list(ignored),
            )
        )
    except HFValidationError:
        raise CheckpointError(
            f"{name!r} is neither a directory nor a name on the hub (owner/model)"
        ) from None
    except LocalEntryNotFoundError:
        raise CheckpointError(
            f"{name!r} is not a directory, the hub cannot be reached, and its cache does not "
            f"have {where}; give a directory, or download the model while online"
        ) from None
    except Exception as error:  # also those of whichever HTTP client the hub's client uses
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise CheckpointError(
            f"{name!r} is not a directory, and the hub does not give {where}: {reason[0]}"
        ) from error
