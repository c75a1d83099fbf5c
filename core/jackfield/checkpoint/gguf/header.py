"""The header of a GGUF file: its metadata, and where each tensor is."""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from jackfield.checkpoint.gguf.tensor_types import SERVED, TENSOR_TYPES, TensorType
from jackfield.errors import CheckpointError

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_MOST_DIMS = 4
_DEFAULT_ALIGNMENT = 32
_STRING, _ARRAY = 8, 9
# The other kinds of values, by the format's numbers, as struct writes them.
_SCALARS: Mapping[int, str] = {
    0: "<B",
    1: "<b",
    2: "<H",
    3: "<h",
    4: "<I",
    5: "<i",
    6: "<f",
    7: "<?",
    10: "<Q",
    11: "<q",
    12: "<d",
}
_LENGTH = struct.Struct("<Q")


class GgufTensor(NamedTuple):
    """A tensor in ``file``, bytes ``begin`` .. ``end``; ``shape`` in elements, rows first."""

    file: Path
    type: TensorType
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True, slots=True)
class _Array:
    """A list of the metadata, which is decoded when somebody asks for it."""

    data: mmap.mmap
    kind: int
    count: int
    begin: int


@dataclass(frozen=True, slots=True)
class Gguf:
    """A model's files, read as one: the metadata are the first one's.

    The methods that read a value raise ``CheckpointError`` where it has another type, or where it
    is absent and no default is given.
    """

    path: Path
    metadata: Mapping[str, object]
    tensors: Mapping[str, GgufTensor]

    @property
    def architecture(self) -> str:
        """``general.architecture``; empty where it is not said."""
        return self.text("general.architecture", "")

    def text(self, key: str, default: str | None = None) -> str:
        """A string."""
        value = self._get(key, default)
        if not isinstance(value, str):
            raise self._fault(key, "a string")
        return value

    def integer(self, key: str, default: int | None = None) -> int:
        """A whole number; of a list with one number for each layer, that number."""
        value = self._get(key, default)
        if isinstance(value, _Array):
            numbers = set(map(int, self.numbers(key)))
            if len(numbers) != 1:
                raise CheckpointError(f"{self.path}: {key} differs between layers; that is unknown")
            return numbers.pop()
        if isinstance(value, bool) or not isinstance(value, int):
            raise self._fault(key, "a whole number")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """A number."""
        value = self._get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self._fault(key, "a number")
        return float(value)

    def flag(self, key: str, default: bool) -> bool:
        """True or false."""
        value = self._get(key, default)
        if not isinstance(value, bool):
            raise self._fault(key, "true or false")
        return value

    def texts(self, key: str) -> list[str]:
        """A list of strings; empty where there is none."""
        value = self.metadata.get(key)
        if value is None:
            return []
        if not isinstance(value, _Array) or value.kind != _STRING:
            raise self._fault(key, "a list of strings")
        found, at = [], value.begin
        for _ in range(value.count):
            (length,) = _LENGTH.unpack_from(value.data, at)
            at += 8 + length
            found.append(value.data[at - length : at].decode("utf-8", "replace"))
        return found

    def numbers(self, key: str) -> tuple[float, ...]:
        """A list of numbers; empty where there is none."""
        value = self.metadata.get(key)
        if value is None:
            return ()
        if not isinstance(value, _Array) or value.kind not in _SCALARS:
            raise self._fault(key, "a list of numbers")
        form = f"<{value.count}{_SCALARS[value.kind][1]}"
        return struct.unpack_from(form, value.data, value.begin)

    def plain_tensor(self, name: str) -> tuple[float, ...] | None:
        """The numbers of a small F32 tensor, flat; None where there is none."""
        tensor = self.tensors.get(name)
        if tensor is None:
            return None
        if tensor.type.name != "F32":
            raise CheckpointError(f"{tensor.file}: tensor {name} is {tensor.type.name}, not F32")
        with tensor.file.open("rb") as stream:
            stream.seek(tensor.begin)
            return struct.unpack(
                f"<{math.prod(tensor.shape)}f", stream.read(tensor.end - tensor.begin)
            )

    def _get(self, key: str, default: object) -> object:
        value = self.metadata.get(key, default)
        if value is None:
            raise CheckpointError(f"{self.path} has no {key} in its metadata")
        return value

    def _fault(self, key: str, wanted: str) -> CheckpointError:
        value = self.metadata.get(key)
        said = "a list" if isinstance(value, _Array) else repr(value)
        return CheckpointError(f"{self.path}: {key} is {said}; it must be {wanted}")


def read_header(path: Path) -> Gguf:
    """What one file says; nothing of its tensors' data is read.

    Raises ``CheckpointError`` that names the file, and the tensor if it is about one, for what is
    damaged, cut off, or stored in a way that cannot be loaded.
    """
    try:
        with path.open("rb") as stream:
            if stream.read(len(_MAGIC)) != _MAGIC:
                raise CheckpointError(f"{path} is no GGUF file: it does not begin with {_MAGIC!r}")
            data = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error}") from None
    cursor = _Cursor(data, len(_MAGIC))
    try:
        return _read(path, cursor)
    except (struct.error, OverflowError, _CutOffError):
        raise CheckpointError(f"{path} is truncated: it ends in its header") from None


class _CutOffError(Exception):
    """The file ends before what it promises."""


class _Cursor:
    """Reads values one after the other."""

    def __init__(self, data: mmap.mmap, at: int) -> None:
        self.data = data
        self.at = at

    def take(self, form: str) -> int | float | bool:
        (value,) = struct.unpack_from(form, self.data, self.at)
        self.at += struct.calcsize(form)
        found: int | float | bool = value
        return _shortest(found) if form == "<f" else found

    def count(self, form: str = "<Q") -> int:
        return int(self.take(form))

    def skip(self, length: int) -> int:
        """Where what is skipped begins."""
        begin, self.at = self.at, self.at + length
        if self.at > len(self.data):
            raise _CutOffError
        return begin

    def text(self) -> str:
        begin = self.skip(self.count())
        return self.data[begin : self.at].decode("utf-8", "replace")

    def value(self, kind: int) -> object:
        if kind == _STRING:
            return self.text()
        if kind == _ARRAY:
            return self._array()
        if kind not in _SCALARS:
            raise ValueError(f"values of the unknown kind {kind}")
        return self.take(_SCALARS[kind])

    def _array(self) -> _Array:
        kind, count = self.count("<I"), self.count()
        if kind in _SCALARS:
            begin = self.skip(count * struct.calcsize(_SCALARS[kind]))
            return _Array(self.data, kind, count, begin)
        begin = self.at
        if kind != _STRING:
            raise ValueError(f"a list of values of the kind {kind}")
        data, at, unpack = self.data, self.at, _LENGTH.unpack_from
        for _ in range(count):
            at += 8 + unpack(data, at)[0]
        self.skip(at - begin)
        return _Array(self.data, kind, count, begin)


def _read(path: Path, cursor: _Cursor) -> Gguf:
    version = cursor.count("<I")
    if version not in _VERSIONS:
        swapped = int.from_bytes(version.to_bytes(4, "little"), "big") in _VERSIONS
        what = "its numbers are big-endian" if swapped else f"its version is {version}"
        raise CheckpointError(f"{path} cannot be read: {what}; convert it again")
    num_tensors, num_values = cursor.count(), cursor.count()
    metadata: dict[str, object] = {}
    for _ in range(num_values):
        key = cursor.text()
        try:
            metadata[key] = cursor.value(cursor.count("<I"))
        except ValueError as error:
            raise CheckpointError(f"{path} is damaged: {key[:80]!r} has {error}") from None
    described = [_describe(path, cursor) for _ in range(num_tensors)]
    alignment = metadata.get("general.alignment", _DEFAULT_ALIGNMENT)
    if not isinstance(alignment, int) or alignment <= 0:
        raise CheckpointError(f"{path} is damaged: general.alignment is {alignment!r}")
    start = -(-cursor.at // alignment) * alignment
    return Gguf(path, metadata, _placed(path, described, start, len(cursor.data)))


class _Described(NamedTuple):
    name: str
    type: TensorType
    shape: tuple[int, ...]
    offset: int


def _describe(path: Path, cursor: _Cursor) -> _Described:
    name = cursor.text()
    if not name.isprintable():
        raise CheckpointError(f"{path} is damaged: a tensor is called {name[:80]!r}")
    fault = f"{path} is damaged: tensor {name[:80]}"
    num_dims = cursor.count("<I")
    if num_dims > _MOST_DIMS:
        raise CheckpointError(f"{fault} has {num_dims} dimensions")
    # The innermost dimension comes first in the file.
    shape = tuple(cursor.count() for _ in range(num_dims))[::-1]
    number, offset = cursor.count("<I"), cursor.count()
    if number not in TENSOR_TYPES:
        raise CheckpointError(f"{path}: tensor {name} has the unknown type {number}")
    kind = TENSOR_TYPES[number]
    if kind.name not in SERVED:
        raise CheckpointError(
            f"{path}: tensor {name} has the type {kind.name}, which cannot be loaded; convert the "
            f"model to one of {', '.join(SERVED)}"
        )
    if 0 in shape or not shape or shape[-1] % kind.block_size:
        raise CheckpointError(f"{fault} of shape {list(shape)} is no whole blocks of {kind.name}")
    return _Described(name, kind, shape, offset)


def _placed(
    path: Path, described: list[_Described], start: int, size: int
) -> dict[str, GgufTensor]:
    """The tensors in the order in which they lie in the file."""
    placed: dict[str, GgufTensor] = {}
    last = start
    for name, kind, shape, offset in sorted(described, key=lambda each: each.offset):
        begin = start + offset
        end = begin + math.prod(shape) // kind.block_size * kind.block_bytes
        if name in placed or begin < last:
            raise CheckpointError(f"{path} is damaged: tensor {name} is there twice or overlaps")
        if end > size:
            raise CheckpointError(
                f"{path} is truncated: tensor {name} ends at byte {end}, the file at {size}"
            )
        placed[name] = GgufTensor(path, kind, shape, begin, end)
        last = end
    return placed


def _shortest(value: float) -> float:
    """The number with the fewest digits that is this float32: 0.6, not 0.6000000238418579."""
    stored = struct.pack("<f", value)
    rounded = (float(f"{value:.{digits}g}") for digits in range(6, 9))
    return next((each for each in rounded if struct.pack("<f", each) == stored), value)
