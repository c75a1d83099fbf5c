"""Which files a GGUF model is in: one, or the parts of a split one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path

from jackfield.checkpoint.gguf.header import Gguf, read_header
from jackfield.errors import CheckpointError

_SUFFIX = ".gguf"
_PARTS = f"-*-of-*{_SUFFIX}"
_PART = re.compile(r"(?P<stem>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf", re.IGNORECASE)
# The image encoder of a multi-modal model, a file beside the language model's.
_PROJECTOR = "mmproj"
_SHOWN = 3


def is_gguf(path: Path) -> bool:
    """Whether the path is a GGUF file, by its name."""
    return path.suffix.lower() == _SUFFIX and path.is_file()


def gguf_file(path: Path, quantization: str | None = None) -> Path | None:
    """The model's file, the first one of several parts: ``path`` itself, or the only model in that
    directory; of a ``quantization`` (``Q4_K_M``), the only one that is called so, in folders too.
    None where there is none; ``CheckpointError`` where there is a choice."""
    if is_gguf(path):
        return _first_part(path)
    found = path.glob("*") if quantization is None else _called(path, quantization)
    files = sorted(file for file in found if is_gguf(file))
    models = dict.fromkeys(_first_part(file) for file in files if _PROJECTOR not in file.name)
    if len(models) > 1:
        names = [file.name for file in models][:_SHOWN]
        more = ", ..." if len(models) > _SHOWN else ""
        raise CheckpointError(
            f"{path} has several GGUF models ({', '.join(names)}{more}): give the path of one file"
        )
    return next(iter(models), None)


def gguf_patterns(quantization: str) -> tuple[str, ...]:
    """Patterns for the names of a quantization's files in a repository that has many."""
    spelled = dict.fromkeys((quantization, quantization.upper(), quantization.lower()))
    return tuple(
        f"*{mark}{each}{end}" for each in spelled for mark in "-._" for end in (_SUFFIX, _PARTS)
    )


def _called(directory: Path, quantization: str) -> Iterator[Path]:
    patterns = gguf_patterns(quantization)
    for path in directory.rglob("*"):
        if any(fnmatchcase(path.name, pattern) for pattern in patterns):
            yield path


def read_gguf(path: Path) -> Gguf:
    """The headers of a model's files, given the first; ``CheckpointError`` as ``read_header``, and
    where a part is missing."""
    first = _first_part(path)
    if not first.is_file():
        raise CheckpointError(f"weights are missing: {first}, the first part; download it again")
    state = first.stat()
    return _read_set(first, state.st_mtime_ns, state.st_size)


# Planning asks for the same header several times; parsing one takes a tenth of a second.
@lru_cache(maxsize=2)
def _read_set(first: Path, modified_ns: int, size: int) -> Gguf:
    whole = read_header(first)
    count = whole.integer("split.count", 1)
    if count <= 1:
        return whole
    match = _PART.fullmatch(first.name)
    if match is None or int(match["count"]) != count:
        raise CheckpointError(
            f"{first} is a part of {count} and not called so: the names end in "
            f"-00001-of-{count:05d}{_SUFFIX}"
        )
    tensors = dict(whole.tensors)
    for number in range(2, count + 1):
        part = first.with_name(_part_name(match, number))
        if not part.is_file():
            raise CheckpointError(
                f"weights are missing: {part}, part {number} of {count}; download it again"
            )
        for name, tensor in read_header(part).tensors.items():
            if name in tensors:
                raise CheckpointError(f"{part} is damaged: tensor {name} is in another part too")
            tensors[name] = tensor
    promised = whole.integer("split.tensors.count", len(tensors))
    if promised != len(tensors):
        raise CheckpointError(
            f"{first} and its parts have {len(tensors)} tensors of {promised}; download them again"
        )
    return replace(whole, tensors=tensors)


def _first_part(path: Path) -> Path:
    match = _PART.fullmatch(path.name)
    return path if match is None else path.with_name(_part_name(match, 1))


def _part_name(match: re.Match[str], number: int) -> str:
    return f"{match['stem']}-{number:05d}-of-{match['count']}{_SUFFIX}"
