"""Every tensor of a checkpoint to its place, once.

A layer says which checkpoint tensors it wants and where each goes (its *slots*). Loading is
then: look the name up, check the shape, place; a layer is finished (repacked) as soon as its
last tensor is in, so that the plain and the packed form of few layers exist at a time.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from jackfield.compute.weight_uploads import uploaded
from jackfield.contracts.loading import CheckpointFiles, LoadFormat
from jackfield.contracts.model import Model, QuantizationMethod, TranslatesTensors
from jackfield.errors import CheckpointError

_NAMES_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Slot:
    """Where one checkpoint tensor goes: its full ``shape``, and the function that takes this
    worker's share of it into ``layer``."""

    layer: LoadableLayer
    shape: tuple[int, ...]
    place: Callable[[Tensor], object]


class LoadableLayer(nn.Module):
    """A layer that takes its own parameters from a checkpoint.

    The default is for a layer whose parameters are in the checkpoint as they are.
    """

    def slots(self, prefix: str) -> Iterator[tuple[str, Slot]]:
        """(checkpoint name, slot) of every tensor it wants; ``prefix`` is its own name."""
        for name, parameter in self.named_parameters(recurse=False):
            place = partial(keep_or_copy, parameter)
            yield f"{prefix}.{name}", Slot(self, tuple(parameter.shape), place)

    def finish_loading(self) -> None:
        """Called once, after the last of its tensors is placed; of a layer that wants none,
        after the one it ``follows``."""

    @property
    def follows(self) -> LoadableLayer | None:
        """The layer whose parameters a layer without its own ones uses."""
        return None


def keep_or_copy(parameter: Tensor, tensor: Tensor) -> None:
    """Gives ``parameter`` the values of ``tensor``, all of them.

    On the CPU it becomes ``tensor`` where the dtype is the same: no copy, and of a mapped file
    only what is used is ever resident.
    """
    same = (tensor.device, tensor.dtype) == (parameter.device, parameter.dtype)
    if same and tensor.device.type == "cpu" and tensor.is_contiguous():
        with torch.no_grad():
            # Not ``data``: of a tensor that another thread made, without inference mode, it would
            # leave the parameter without the version that oneDNN asks for.
            parameter.set_(tensor)  # type: ignore[call-overload]
    else:
        parameter.data.copy_(tensor)


def find_slots(model: nn.Module) -> dict[str, Slot]:
    """The slots of all layers of ``model``, by checkpoint name."""
    return dict(
        named
        for prefix, layer in model.named_modules()
        if isinstance(layer, LoadableLayer)
        for named in layer.slots(prefix)
    )


def weight_shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """Name and full shape of every checkpoint tensor that ``model`` wants."""
    return {name: slot.shape for name, slot in find_slots(model).items()}


def load_weights(
    model: nn.Module,
    weights: Iterable[tuple[str, Tensor]],
    *,
    ignorable: Sequence[str] = (),
) -> None:
    """Places every tensor, finishes every layer, and checks that nothing is missing.

    ``ignorable``: regular expressions (searched) for checkpoint names that have no slot on
    purpose. Raises ``CheckpointError`` for a tensor that is missing, unknown, twice there, or
    of another shape; a bias of zeros that the model has no place for adds nothing, and passes.
    """
    owner = type(model).__name__
    slots = find_slots(model)
    waiting = Counter(slot.layer for slot in slots.values())
    followers = {
        layer.follows: layer
        for layer in model.modules()
        if isinstance(layer, LoadableLayer) and layer.follows is not None
    }
    placed: set[str] = set()
    ignored = re.compile("|".join(ignorable)) if ignorable else None
    for name, tensor in weights:
        slot = slots.get(name)
        if slot is None:
            if ignored is not None and ignored.search(name):
                continue
            if name.endswith(".bias") and not tensor.any():
                # GPTQ checkpoints have one for every layer: zeros, where the model has none.
                continue
            raise CheckpointError(f"{owner} has no place for the checkpoint's tensor {name}")
        if name in placed:
            raise CheckpointError(f"the checkpoint has tensor {name} twice")
        if tensor.numel() == 1 and slot.shape in ((), (1,)):
            # One number is written as [] or as [1].
            tensor = tensor.reshape(slot.shape)
        if tuple(tensor.shape) != slot.shape:
            raise CheckpointError(
                f"tensor {name} has the shape {list(tensor.shape)}, {owner} with this "
                f"config.json needs {list(slot.shape)}"
            )
        slot.place(tensor)
        placed.add(name)
        waiting[slot.layer] -= 1
        if waiting[slot.layer] == 0:
            slot.layer.finish_loading()
            if (follower := followers.get(slot.layer)) is not None:
                follower.finish_loading()
    check_complete(slots, placed)


def read_weights(
    model: Model,
    load_format: LoadFormat,
    files: CheckpointFiles,
    *,
    dtype: torch.dtype,
    device: torch.device,
    quantization: QuantizationMethod | None = None,
) -> None:
    """Loads ``model`` through ``load_format``, which learns what the model wants."""
    wanted = replace(files, wanted=model.weight_shapes(), dtype=dtype, device=device)
    weights = load_format.iter_weights(wanted)
    if device.type == "cuda" and quantization is None:
        weights = uploaded(weights, device)
    model.load_weights(translated(weights, quantization))


def translated(
    weights: Iterable[tuple[str, Tensor]], quantization: QuantizationMethod | None
) -> Iterable[tuple[str, Tensor]]:
    """A checkpoint's tensors as the layers of a quantization method want them."""
    if isinstance(quantization, TranslatesTensors):
        return quantization.translate(weights)
    return weights


def move_weights(model: nn.Module, device: torch.device) -> None:
    """All weights to another device, in place: who refers to a parameter still does. What layers
    keep as ``coded``, frozen dataclasses of tensors, is replaced; one tensor stays one."""
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.data = tensor.data.to(device)
    for layer in model.modules():
        if "coded" in layer.__dict__:
            layer.__dict__["coded"] = _moved(layer.__dict__["coded"], device, {})


def _moved(value: Any, device: torch.device, moved: dict[int, Tensor]) -> Any:
    if isinstance(value, Tensor):
        if id(value) not in moved:
            moved[id(value)] = value.to(device)
        return moved[id(value)]
    if isinstance(value, tuple) and not hasattr(value, "_fields"):
        return tuple(_moved(each, device, moved) for each in value)
    if not is_dataclass(value) or isinstance(value, type):
        return value
    own = {field.name: getattr(value, field.name) for field in fields(value)}
    return replace(value, **{name: _moved(each, device, moved) for name, each in own.items()})


def check_complete(wanted: Iterable[str], placed: set[str]) -> None:
    """Raises ``CheckpointError`` that names what was wanted and not placed."""
    missing = [name for name in wanted if name not in placed]
    if missing:
        more = len(missing) - _NAMES_SHOWN
        raise CheckpointError(
            f"the checkpoint lacks {', '.join(missing[:_NAMES_SHOWN])}"
            + (f" and {more} more tensors" if more > 0 else "")
        )
