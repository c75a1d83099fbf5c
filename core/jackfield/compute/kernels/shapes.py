"""What torch is to a process that compiles kernels: shapes and dtypes, and no numbers.

Modules of kernels import torch for the tensors that they launch over. A variant depends on the
dtypes, strides and alignment of those tensors only, and torch takes seconds to import: with
``stand_in`` such a process is ready in a quarter of a second, while the engine still imports.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from math import prod
from types import ModuleType, SimpleNamespace

_SIZES = {
    "bool": 1,
    "uint8": 1,
    "int8": 1,
    "int32": 4,
    "int64": 8,
    "float16": 2,
    "bfloat16": 2,
    "float32": 4,
    "float8_e4m3fn": 1,
    "float8_e5m2": 1,
}
_ALIGNMENT = 256
"""Of what torch's allocator gives, in bytes."""


class DType:
    """A kind of number, by torch's name: Triton knows it by that."""

    def __init__(self, name: str, itemsize: int) -> None:
        self._name = f"torch.{name}"
        self.itemsize = itemsize

    def __repr__(self) -> str:
        return self._name


DTYPES = {name: DType(name, itemsize) for name, itemsize in _SIZES.items()}


class Device:
    """``device("cuda", 0)``."""

    def __init__(self, kind: str, index: int = 0) -> None:
        self.type, self.index = kind, index


class Shape:
    """A tensor without numbers."""

    is_cuda = True

    def __init__(
        self,
        shape: Sequence[int],
        dtype: DType,
        device: Device,
        strides: Sequence[int] | None = None,
        offset: int = 0,
    ) -> None:
        self.shape = tuple(shape)
        self.dtype, self.device = dtype, device
        self._strides = _contiguous(self.shape) if strides is None else tuple(strides)
        self._offset = offset

    def data_ptr(self) -> int:
        """An address that is aligned as the tensor's would be."""
        return _ALIGNMENT + self._offset * self.dtype.itemsize

    def stride(self, dimension: int | None = None) -> int | tuple[int, ...]:
        """In elements: of one dimension, or all."""
        return self._strides if dimension is None else self._strides[dimension]

    def element_size(self) -> int:
        """Bytes."""
        return self.dtype.itemsize

    def numel(self) -> int:
        """Elements."""
        return prod(self.shape)

    def contiguous(self) -> Shape:
        """The tensor itself, or a copy."""
        return self if self._is_contiguous else Shape(self.shape, self.dtype, self.device)

    def view(self, *sizes: int) -> Shape:
        """Contiguous in other dimensions, of which one may be -1."""
        assert self._is_contiguous, "only what is contiguous is seen in other dimensions"
        known = prod(size for size in sizes if size >= 0)
        shape = [self.numel() // known if size < 0 else size for size in sizes]
        return Shape(shape, self.dtype, self.device, offset=self._offset)

    def split(self, sizes: Sequence[int], dimension: int) -> list[Shape]:
        """Parts that lie beside each other along a dimension."""
        parts, first = [], self._offset
        for size in sizes:
            shape = [*self.shape]
            shape[dimension] = size
            parts.append(Shape(shape, self.dtype, self.device, self._strides, first))
            first += size * self._strides[dimension]
        return parts

    def __getitem__(self, index: int | slice) -> Shape:
        """One of the first dimension, or some that follow each other."""
        if isinstance(index, int):
            first, shape, strides = index, self.shape[1:], self._strides[1:]
        else:
            first, stop, step = index.indices(self.shape[0])
            assert step == 1, "a part of a tensor is in one piece"
            shape, strides = (max(0, stop - first), *self.shape[1:]), self._strides
        offset = self._offset + first * self._strides[0]
        return Shape(shape, self.dtype, self.device, strides, offset)

    @property
    def _is_contiguous(self) -> bool:
        wanted = zip(self.shape, self._strides, _contiguous(self.shape), strict=True)
        # How far apart the elements are does not matter where there is one.
        return not self.numel() or all(n == 1 or mine == packed for n, mine, packed in wanted)


def _contiguous(shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(prod(max(1, n) for n in shape[place + 1 :]) for place in range(len(shape)))


def _empty(shape: int | Sequence[int], *, dtype: DType | None = None, device: Device) -> Shape:
    sizes = (shape,) if isinstance(shape, int) else tuple(shape)
    return Shape(sizes, dtype or DTYPES["float32"], device)


def _arange(*ends: int, dtype: DType, device: Device) -> Shape:
    first, stop = ends if len(ends) == 2 else (0, ends[0])
    return Shape((stop - first,), dtype, device)


def _tensor(values: Sequence[float], *, device: Device | None = None) -> Shape:
    return Shape((len(values),), DTYPES["float32"], device or Device("cpu"))


def _split(tensor: Shape, sizes: Sequence[int], dimension: int) -> list[Shape]:
    return tensor.split(sizes, dimension)


class _Anything:
    """What modules only name while they are imported: a class to inherit from, a decorator."""

    def __getattr__(self, name: str) -> _Anything:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Anything()

    def __call__(self, *args: object, **kwargs: object) -> object:
        return args[0] if len(args) == 1 and callable(args[0]) and not kwargs else _Anything()

    def __mro_entries__(self, bases: tuple[object, ...]) -> tuple[type, ...]:
        return ()


class _Module(ModuleType):
    def __getattr__(self, name: str) -> _Anything:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Anything()


class _StandIn(MetaPathFinder, Loader):
    def __init__(self, cuda: SimpleNamespace) -> None:
        self._cuda = cuda

    def find_spec(self, fullname: str, path: object, target: object = None) -> ModuleSpec | None:
        is_torch = fullname.partition(".")[0] == "torch"
        return ModuleSpec(fullname, self, is_package=True) if is_torch else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _Module(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        if module.__name__ == "torch":
            here = vars(module)
            here.update(DTYPES, Tensor=Shape, dtype=DType, device=Device, cuda=self._cuda)
            here.update(empty=_empty, zeros=_empty, arange=_arange, tensor=_tensor, split=_split)


def stand_in(capability: Callable[[], tuple[int, int]]) -> None:
    """From now on ``import torch`` finds this, for a GPU whose compute capability is asked for at
    the first launch. For the whole process, which has not imported torch."""
    assert "torch" not in sys.modules, "torch is here already"
    # How many processors there are decides how many programs a launch has, not which variant.
    properties = SimpleNamespace(multi_processor_count=1)
    cuda = SimpleNamespace(
        get_device_capability=lambda device: capability(),
        get_device_properties=lambda device: properties,
        is_current_stream_capturing=lambda: False,
    )
    sys.meta_path.insert(0, _StandIn(cuda))
