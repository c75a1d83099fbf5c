"""A coded weight in the order in which tensor cores take it, made once after loading.

A strip is 16 outputs, a block 64 inputs. Lane l of a warp has of the strip rows r * 8 + l // 4, and
of the block's inputs those that lie beside each other in a row of x: of 4-bit codes
h * 32 + l % 4 * 8 + jj * 4 + kh * 2 + i, 16 bytes that lie beside each other; of 8-bit codes
l % 4 * 16 + h * 8 + kh * 4 + i * 2 + jj, so that these stay as they are, row by row.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from jackfield.compute.kernels import code_numbers
from jackfield.compute.kernels.code_numbers import Scaling
from jackfield.compute.layers.coded_weight import CodedWeight

STRIP = 16
BLOCK = 64
_EARLY = (16, 32)
_E2M1 = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6])


@dataclass(frozen=True, slots=True)
class DeviceCodes:
    """[N, K] numbers as kernels read them.

    ``words`` int16: of 4 bits [strips, blocks, 256]; of 8 bits [strips * 16, blocks * 32], two
    inputs each. ``scales`` and ``shifts`` float16 [strips, groups, 16],
    a row l // 4 beside the row 8 behind it; ``row_scales`` float32 [strips * 16] multiplies both,
    and is all there is where ``group`` is 0. ``kind``: int, e2m1, e4m3, e5m2 or table. ``table``
    float32 [2 ** bits]: what a code means.
    """

    words: Tensor
    scales: Tensor
    shifts: Tensor | None
    row_scales: Tensor
    table: Tensor
    kind: str
    entries: tuple[float, ...]
    bits: int
    group: int
    outputs: int
    inputs: int

    @property
    def num_strips(self) -> int:
        """Of 16 outputs."""
        return len(self.row_scales) // STRIP

    @property
    def num_blocks(self) -> int:
        """Of 64 inputs."""
        return self.words.numel() * 16 // self.bits // (self.num_strips * STRIP * BLOCK)

    @property
    def num_groups(self) -> int:
        """Of a row."""
        return self.scales.shape[1] if self.group else 1

    @property
    def shifts_or_scales(self) -> Tensor:
        """What a kernel is given for shifts: it reads none where there are none."""
        return self.scales if self.shifts is None else self.shifts

    @property
    def scaling(self) -> Scaling:
        """What products do to numbers before they multiply them: something for small groups."""
        return self.decoding if self.group in _EARLY else Scaling.NONE

    @property
    def decoding(self) -> Scaling:
        """What makes numbers of codes that are scaled before they are multiplied, whatever the
        size of their groups."""
        if not self.group:
            return Scaling.NONE
        return Scaling.SCALE if self.shifts is None else Scaling.SHIFT

    def rows(self, some: slice) -> DeviceCodes:
        """Some outputs; ``start`` is the first of a strip."""
        begin, end = some.start // STRIP, -(-some.stop // STRIP)
        per_strip = len(self.words) // self.num_strips
        return replace(
            self,
            words=self.words[begin * per_strip : end * per_strip],
            scales=self.scales[begin:end] if self.group else self.scales,
            shifts=None if self.shifts is None else self.shifts[begin:end],
            row_scales=self.row_scales[some.start : end * STRIP],
            outputs=some.stop - some.start,
        )

    def room(self, count: int) -> DeviceCodes:
        """For so many weights of this format behind each other, not yet written. Outputs are
        whole strips."""

        def more(values: Tensor) -> Tensor:
            return values.new_empty((count * len(values), *values.shape[1:]))

        return replace(
            self,
            words=more(self.words),
            scales=more(self.scales) if self.group else self.scales,
            shifts=None if self.shifts is None else more(self.shifts),
            row_scales=more(self.row_scales),
            outputs=count * self.outputs,
        )

    def fill(self, start: int, codes: DeviceCodes) -> None:
        """Writes the outputs from ``start`` on."""
        own = self.rows(slice(start, start + codes.outputs))
        own.words.copy_(codes.words)
        own.row_scales.copy_(codes.row_scales)
        if self.group:
            own.scales.copy_(codes.scales)
        if own.shifts is not None and codes.shifts is not None:
            own.shifts.copy_(codes.shifts)

    @property
    def format(self) -> tuple[object, ...]:
        """What weights that lie behind each other have in common."""
        has_shifts = self.shifts is not None
        return self.kind, self.entries, self.bits, self.group, self.inputs, has_shifts

    def asm(self, dtype: torch.dtype, scaling: Scaling) -> str:
        """How codes become numbers of a dtype: PTX for ``numbers_of``."""
        return _asm(self.kind, self.bits, self.entries, dtype, scaling)


@cache
def _asm(
    kind: str, bits: int, entries: tuple[float, ...], dtype: torch.dtype, scaling: Scaling
) -> str:
    if kind == "e2m1":
        return code_numbers.floats_of_4_bits(dtype, scaling)
    if kind == "table":
        return code_numbers.table_of_16(entries, dtype, scaling)
    if kind == "int":
        make = code_numbers.integers_of_4_bits if bits == 4 else code_numbers.integers_of_8_bits
        return make(dtype, scaling)
    return code_numbers.floats_of_8_bits(dtype, 4 if kind == "e4m3" else 5, scaling)


def _kind(weight: CodedWeight) -> str | None:
    table = weight.table
    if table is None:
        return "int"
    known = (
        {"int": torch.arange(16.0) - 8, "e2m1": torch.cat((_E2M1, -_E2M1))}
        if weight.bits == 4
        else {
            "e4m3": _floats(torch.float8_e4m3fn),
            "e5m2": _floats(torch.float8_e5m2),
        }
    )
    own = table.cpu()
    for kind, numbers in known.items():
        # Codes that are no number may stand for anything.
        if bool(((own == numbers) | ~numbers.isfinite()).all()):
            return kind
    return "table" if weight.bits == 4 else None


def _floats(dtype: torch.dtype) -> Tensor:
    return torch.arange(256).to(torch.uint8).view(dtype).float()


def device_codes(weight: CodedWeight) -> DeviceCodes | None:
    """The same numbers for the kernels of a GPU; None where these have no way with them: tables of
    256 numbers, groups that are not 16, 32 or whole 64s of inputs."""
    num_rows, inputs = weight.packed.shape[0], weight.packed.shape[1] * 8 // weight.bits
    group = weight.group_size
    kind = _kind(weight)
    if kind is None or (group not in _EARLY and group % BLOCK):
        return None
    if group == inputs and weight.shifts is None:
        group = 0
    scales, shifts, row_scales = _scales(weight, group)
    table = weight.table
    if table is None:
        table = torch.arange(256).to(torch.uint8).view(torch.int8).float()
    return DeviceCodes(
        words=_words(_codes(weight), weight.bits),
        scales=scales,
        shifts=shifts,
        row_scales=row_scales,
        table=table.to(weight.packed.device),
        kind=kind,
        entries=tuple(table.tolist()) if kind == "table" else (),
        bits=weight.bits,
        group=group,
        outputs=num_rows,
        inputs=weight.inputs,
    )


def _codes(weight: CodedWeight) -> Tensor:
    # uint8 [N, P]; whole strips.
    packed = _padded(weight.packed, -len(weight.packed) % STRIP)
    if weight.bits == 8:
        return packed
    halves = packed.view(len(packed), -1, 1, BLOCK // 2)
    return torch.cat((halves & 15, halves >> 4), 2).view(len(packed), -1)


def _words(codes: Tensor, bits: int) -> Tensor:
    if bits == 8:
        return codes.view(torch.int16)
    strips = len(codes) // STRIP
    # strip, r, gid, block, half, tid, jj, kh, i
    parts = codes.view(strips, 2, 8, -1, 2, 4, 2, 2, 2)
    four = parts.permute(0, 3, 2, 5, 7, 1, 8, 4, 6).reshape(strips, -1, 256, 4)
    pairs = four[..., 0::2] | four[..., 1::2] << 4
    return pairs.reshape(strips, -1, 512).view(torch.int16)


def _scales(weight: CodedWeight, group: int) -> tuple[Tensor, Tensor | None, Tensor]:
    missing = -len(weight.packed) % STRIP
    scales = _padded(weight.scales, missing)
    if not group:
        none = torch.zeros((1, 1, STRIP), dtype=torch.float16, device=scales.device)
        return none, None, scales[:, 0].contiguous()
    largest = scales.abs().amax(1)
    shifts = weight.shifts
    if shifts is not None:
        shifts = _padded(shifts, missing)
        largest = torch.maximum(largest, shifts.abs().amax(1))
    # A power of 2 changes no bit of what it divides; half precision then has the range.
    row_scales = torch.where(largest > 0, torch.exp2(largest.log2().ceil()), 1.0)
    relative = None if shifts is None else _by_strip(shifts / row_scales[:, None])
    return _by_strip(scales / row_scales[:, None]), relative, row_scales


def _by_strip(values: Tensor) -> Tensor:
    # [N, groups] to [strips, groups, 8, 2].
    strips = values.view(-1, 2, 8, values.shape[1]).permute(0, 3, 2, 1)
    return strips.reshape(len(strips), -1, STRIP).half()


def _padded(values: Tensor, rows: int) -> Tensor:
    return F.pad(values, (0, 0, 0, rows)) if rows else values
