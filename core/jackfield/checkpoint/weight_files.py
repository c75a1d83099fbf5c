"""Weight files: whether all are there and whole, as far as their headers tell."""

from __future__ import annotations

import json
import math
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from jackfield.checkpoint.gguf import is_gguf, read_gguf
from jackfield.checkpoint.reading import read_json_object
from jackfield.errors import CheckpointError

# Bits an element; https://github.com/huggingface/safetensors, the format's dtype list.
_DTYPE_BITS: Mapping[str, int] = {
    "BOOL": 8,
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    "U8": 8,
    "I8": 8,
    "F8_E5M2": 8,
    "F8_E4M3": 8,
    "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8,
    "I16": 16,
    "U16": 16,
    "F16": 16,
    "BF16": 16,
    "I32": 32,
    "U32": 32,
    "F32": 32,
    "F64": 64,
    "I64": 64,
    "U64": 64,
    "C64": 64,
}
# What an index may list and no file have: it follows from the rest. A model that wants a head of
# its own says so when it is loaded.
_DERIVED = ("lm_head.weight", ".rotary_emb.inv_freq")
_MAX_HEADER_BYTES = 100_000_000
_MAX_ELEMENTS = 1 << 48


class TensorEntry(NamedTuple):
    """One tensor of a safetensors file; ``begin`` and ``end`` are byte offsets in the file."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True, slots=True)
class WeightFiles:
    """The files that hold a checkpoint's weights, in the order in which they are read.

    ``tensor_files`` is the index (tensor name to file), where the checkpoint has one.
    """

    files: tuple[Path, ...]
    tensor_files: Mapping[str, str] | None = None


def safetensors_files(directory: Path) -> WeightFiles | None:
    """The safetensors files of a checkpoint; None where it has none."""
    return _weight_files(directory, "model", "safetensors", "*.safetensors")


def pt_files(directory: Path) -> WeightFiles | None:
    """The files that ``torch.save`` wrote; None where there are none."""
    return _weight_files(directory, "pytorch_model", "bin", "pytorch_model*.bin")


def _weight_files(directory: Path, stem: str, suffix: str, pattern: str) -> WeightFiles | None:
    single = directory / f"{stem}.{suffix}"
    if single.is_file():
        return WeightFiles((single,))
    index = directory / f"{stem}.{suffix}.index.json"
    if index.is_file():
        tensor_files = _read_index(index)
        names = sorted(set(tensor_files.values()))
        return WeightFiles(tuple(directory / name for name in names), tensor_files)
    files = tuple(sorted(directory.glob(pattern)))
    return WeightFiles(files) if files else None


def _read_index(path: Path) -> dict[str, str]:
    tensor_files = read_json_object(path).get("weight_map")
    if not isinstance(tensor_files, dict) or not tensor_files:
        raise CheckpointError(f'cannot read {path}: it has no object "weight_map"')
    for tensor, file in tensor_files.items():
        # An index must not lead out of the checkpoint's directory.
        if not isinstance(file, str) or Path(file).name != file:
            raise CheckpointError(f"{path} puts tensor {tensor} into {file!r}, which is no file")
    return tensor_files


def check_weights(directory: Path) -> None:
    """Raises ``CheckpointError`` unless all weights are there and whole; reads headers only."""
    if is_gguf(directory):
        read_gguf(directory)
    elif (weights := safetensors_files(directory)) is not None:
        check_safetensors(weights)
    elif (weights := pt_files(directory)) is not None:
        check_pt(weights)
    else:
        raise CheckpointError(
            f"{directory} has no weights: neither *.safetensors nor pytorch_model*.bin"
        )


def check_safetensors(weights: WeightFiles) -> dict[Path, dict[str, TensorEntry]]:
    """The headers of all files, once they are there, whole, and hold what the index says."""
    _check_present(weights)
    headers = {file: read_safetensors_header(file) for file in weights.files}
    by_name = {file.name: header for file, header in headers.items()}
    for tensor, file_name in (weights.tensor_files or {}).items():
        if tensor not in by_name[file_name] and not tensor.endswith(_DERIVED):
            raise CheckpointError(f"{file_name} lacks tensor {tensor}, which the index puts there")
    return headers


def check_pt(weights: WeightFiles) -> None:
    """The files are there and end where they should. Zip archives (all since torch 1.6) have
    their directory at the end, so that a truncated one shows."""
    _check_present(weights)
    for file in weights.files:
        with file.open("rb") as stream:
            magic = stream.read(2)
        if not magic or (magic == b"PK" and not zipfile.is_zipfile(file)):
            raise CheckpointError(f"{file} is truncated; download it again")


def _check_present(weights: WeightFiles) -> None:
    missing = [file for file in weights.files if not file.is_file()]
    if not missing:
        return
    wanted = [t for t, file in (weights.tensor_files or {}).items() if file == missing[0].name]
    lost = f", which has tensor {wanted[0]}" if wanted else ""
    more = f", and {len(missing) - 1} more of {len(weights.files)}" if len(missing) > 1 else ""
    raise CheckpointError(f"weights are missing: {missing[0]}{lost}{more}; download them again")


def read_safetensors_header(path: Path) -> dict[str, TensorEntry]:
    """Where each tensor of a safetensors file is, in file order.

    Raises ``CheckpointError`` that names file and tensor where the header is damaged or the
    file does not have the bytes that the header promises.
    """
    size = path.stat().st_size
    start, header = _read_header_object(path, size)
    header.pop("__metadata__", None)
    entries = {name: _tensor_entry(path, start, name, value) for name, value in header.items()}
    ordered = dict(sorted(entries.items(), key=lambda item: (item[1].begin, item[1].end)))
    end = start
    for name, entry in ordered.items():
        if entry.begin != end:
            raise CheckpointError(f"{path} is damaged: tensor {name} leaves a gap or overlaps")
        end = entry.end
        if end > size:
            raise CheckpointError(
                f"{path} is truncated: tensor {name} ends at byte {end}, the file at {size}"
            )
    if end != size:
        raise CheckpointError(f"{path} is damaged: {size - end} bytes follow the last tensor")
    return ordered


def _read_header_object(path: Path, size: int) -> tuple[int, dict[str, object]]:
    """(offset of the data, header)."""
    with path.open("rb") as stream:
        prefix = stream.read(8)
        if len(prefix) < 8:
            raise CheckpointError(f"{path} is truncated: it has {size} bytes and no header")
        (length,) = struct.unpack("<Q", prefix)
        if length > _MAX_HEADER_BYTES:
            raise CheckpointError(f"{path} is damaged: its header claims {length} bytes")
        if 8 + length > size:
            raise CheckpointError(
                f"{path} is truncated: the header ends at byte {8 + length}, the file at {size}"
            )
        text = stream.read(length)
    try:
        header = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged: its header is not JSON ({error})") from None
    if not isinstance(header, dict):
        raise CheckpointError(f"{path} is damaged: its header is not a JSON object")
    return 8 + length, header


def _tensor_entry(path: Path, start: int, name: str, value: object) -> TensorEntry:
    fault = f"{path} is damaged: tensor {name}"
    if not isinstance(value, dict):
        raise CheckpointError(f"{fault} has no description")
    dtype, shape = value.get("dtype"), _counts(value.get("shape"))
    offsets = _counts(value.get("data_offsets"))
    if not isinstance(dtype, str) or dtype not in _DTYPE_BITS:
        raise CheckpointError(f"{fault} has the unknown dtype {dtype!r}")
    if shape is None:
        raise CheckpointError(f"{fault} has the shape {value.get('shape')!r}")
    if offsets is None or len(offsets) != 2:
        raise CheckpointError(f"{fault} has the offsets {value.get('data_offsets')!r}")
    begin, end = offsets
    # A zero among them must not hide what libraries multiply before they come to it.
    if math.prod(length or 1 for length in shape) > _MAX_ELEMENTS:
        raise CheckpointError(f"{fault} has the shape {list(shape)}")
    if (end - begin) * 8 != math.prod(shape) * _DTYPE_BITS[dtype]:
        raise CheckpointError(
            f"{fault} of shape {list(shape)} and dtype {dtype} cannot have {end - begin} bytes"
        )
    return TensorEntry(dtype, shape, start + begin, start + end)


def _counts(value: object) -> tuple[int, ...] | None:
    """A JSON list of numbers from 0, None if it is something else."""
    if not isinstance(value, list):
        return None
    fine = all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in value)
    return tuple(value) if fine else None
