"""Random coded weights, and their numbers in float64."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from jackfield.compute.kernels.coded_layout import DeviceCodes, device_codes
from jackfield.compute.layers.coded_weight import CodedWeight

E2M1 = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6])


def _floats(dtype: torch.dtype) -> Tensor:
    return torch.arange(256).to(torch.uint8).view(dtype).float().nan_to_num(0.0, 0.0, 0.0)


TABLES = {
    "int4": (4, torch.arange(16) - 8.0),
    "fp4": (4, torch.cat((E2M1, -E2M1))),
    "any": (4, torch.linspace(-1, 1, 16) ** 3),
    "int8": (8, None),
    "e4m3": (8, _floats(torch.float8_e4m3fn)),
    "e5m2": (8, _floats(torch.float8_e5m2)),
}


class Format(NamedTuple):
    """A weight [outputs, inputs] of a kind of codes, its inputs in groups."""

    kind: str
    outputs: int
    inputs: int
    groups: int
    shifted: bool


def make(form: Format, device: torch.device) -> tuple[CodedWeight, Tensor]:
    """A random weight and its numbers in float64."""
    kind, outputs, inputs, groups, shifted = form
    bits, table = TABLES[kind]
    codes = torch.randint(0, 2**bits, (outputs, inputs), device=device)
    if kind == "e4m3":
        codes[codes & 0x7F == 0x7F] = 0  # NaN
    if kind == "e5m2":
        codes[codes & 0x7F > 0x7B] = 0  # infinite, NaN
    entries = codes.to(torch.uint8).view(torch.int8).double()
    if table is not None:
        table = table.to(device)
        entries = table.double()[codes]
    scales = torch.rand(outputs, groups, device=device) * 0.1 + 0.01
    shifts = torch.randn(outputs, groups, device=device) * scales * 3 if shifted else None
    exact = entries.view(outputs, groups, -1) * scales.double()[..., None]
    if shifts is not None:
        exact += shifts.double()[..., None]
    stored = codes.to(torch.uint8).view(torch.int8) if table is None else codes
    weight = CodedWeight.pack(stored, scales, bits=bits, table=table, shifts=shifts)
    return weight, exact.view(outputs, inputs)


def make_codes(form: Format, device: torch.device) -> tuple[DeviceCodes, Tensor]:
    """The same, as kernels take it."""
    weight, exact = make(form, device)
    codes = device_codes(weight)
    assert codes is not None
    return codes, exact
