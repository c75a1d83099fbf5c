"""Weights in the order of the Marlin kernels, whole and with two of four left out.

Facts: Marlin (arXiv 2408.11743), AutoGPTQ's ``checkpoint_format`` "marlin", nm-vllm's
"marlin_24". Codes [K, N] are cut into tiles of 16 x 16; four tiles beside each other are 1,024
codes in the order in which a tensor core's threads want them, eight in an int32. ``s`` [groups, N]
is sorted within 64 outputs. "marlin_24" has K / 2 codes and ``B_meta`` int16 [K / 32, 2 N]: 4 bits
for four weights, the places of the two that are there, in CUTLASS' interleaved order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from jackfield.compute.layers.coded_linear import CodedLinear, LinearParts, StoredTensor
from jackfield.compute.layers.coded_weight import CodedWeight
from jackfield.errors import CheckpointError
from jackfield_quantization.integer_weight import integer_weight
from jackfield_quantization.number_formats import unpack
from jackfield_quantization.options import Config, integer

_TILE = 16
_INTERLEAVED = (0, 2, 4, 6, 1, 3, 5, 7)
SCALES_BY_GROUP = tuple(i + 8 * j for i in range(8) for j in range(8))
SCALES_BY_ROW = tuple(2 * i + j for i in range(4) for j in (0, 1, 8, 9, 16, 17, 24, 25))
_SPARSE_SCALES_BY_GROUP = tuple(8 * i + j for i in range(8) for j in (0, 4, 1, 5, 2, 6, 3, 7))


def order(
    rows: Sequence[int],
    step: int = 2,
    within: Sequence[int] = _INTERLEAVED,
    *,
    sparse: bool = False,
) -> Tensor:
    """int64 [1024]: which of four tiles' codes, tile by tile, stand in these places.

    A thread has four codes of ``rows`` from ``step`` times its number on, in two halves of 8
    columns; ``within`` is the order of those that share an integer.
    """
    thread = torch.arange(32)[:, None, None, None]
    tile = torch.arange(4)[:, None, None]
    half = torch.arange(2)[:, None]
    row = step * (thread % 4) + torch.tensor(rows)
    column = thread // 4
    if sparse:
        places = _TILE * row + column // 2 * 256 + 8 * (column % 2) + 4 * half + tile
    else:
        places = _TILE * row + column + 8 * half + 256 * tile
    return places.reshape(-1, len(within))[:, torch.tensor(within)].flatten()


def codes_in_order(packed: Tensor, places: Tensor, bits: int = 4) -> Tensor:
    """int32 [K / 16, N * bits / 2] -> uint8 [N, K]."""
    numbers = unpack(packed, bits, 1)
    tiles = restored(numbers, places).view(len(packed), -1, _TILE, _TILE)
    return tiles.permute(1, 3, 0, 2).reshape(-1, len(packed) * _TILE)


def scales_in_order(scales: Tensor, places: Sequence[int]) -> Tensor:
    """[groups, N] -> float32 [N, groups]."""
    return restored(scales.float(), torch.tensor(places)).T


def restored(shuffled: Tensor, places: Tensor) -> Tensor:
    """Each stretch of ``len(places)`` numbers where it was before ``places`` were taken of it."""
    stretches = shuffled.reshape(-1, len(places))
    back = torch.empty_like(places)
    back[places] = torch.arange(len(places))
    return stretches[:, back.to(shuffled.device)].view_as(shuffled)


class MarlinLinear(CodedLinear):
    """4 bits; in groups of 128, or one group for all inputs."""

    def __init__(self, config: Config) -> None:
        self._group = integer(config, "group_size", -1)
        if integer(config, "bits", 4) != 4:
            raise CheckpointError(f"quantization_config: Marlin with {config.get('bits')} bits")

    def stored(self, outputs: int, inputs: int, dtype: torch.dtype) -> Mapping[str, StoredTensor]:
        return {
            "B": StoredTensor((inputs // _TILE, outputs * 2), torch.int32, 1, 0),
            "s": scales_stored(self._group, outputs, inputs),
        }

    def encode(self, layer: LinearParts, tensors: Mapping[str, Tensor]) -> CodedWeight:
        codes = codes_in_order(tensors["B"], order((0, 1, 8, 9)))
        by_group = len(tensors["s"]) > 1
        scales = scales_in_order(tensors["s"], SCALES_BY_GROUP if by_group else SCALES_BY_ROW)
        return integer_weight(codes, scales, None, 4)


def scales_stored(group: int, outputs: int, inputs: int) -> StoredTensor:
    """[groups, N] of a checkpoint whose group size may be -1, for all inputs."""
    groups = 1 if group < 0 else inputs // group
    return StoredTensor((groups, outputs), torch.float32, 1, 0 if groups > 1 else None)


class Marlin24Linear(CodedLinear):
    """4 or 8 bits of every second weight; the others are 0."""

    def __init__(
        self, bits: int, group: int, names: tuple[str, str, str] = ("B_24", "B_meta", "s")
    ) -> None:
        self._bits, self._group = bits, group
        self._codes, self._places, self._scales = names
        if bits not in (4, 8):
            raise CheckpointError(f"quantization_config: sparse Marlin with {bits} bits")

    def stored(self, outputs: int, inputs: int, dtype: torch.dtype) -> Mapping[str, StoredTensor]:
        packed = (inputs // 2 // _TILE, outputs * self._bits // 2)
        return {
            self._codes: StoredTensor(packed, torch.int32, 1, 0),
            self._places: StoredTensor((inputs // 32, outputs * 2), torch.int16, 1, 0),
            self._scales: scales_stored(self._group, outputs, inputs),
        }

    def encode(self, layer: LinearParts, tensors: Mapping[str, Tensor]) -> CodedWeight:
        within = _INTERLEAVED if self._bits == 4 else (0, 2, 1, 3)
        kept = codes_in_order(
            tensors[self._codes], order((0, 1, 8, 9), 2, within, sparse=True), self._bits
        )
        codes = torch.full(
            (len(kept), 2 * kept.shape[1]), 2 ** (self._bits - 1), dtype=torch.uint8
        ).to(kept.device)
        codes.scatter_(1, _kept_places(tensors[self._places]), kept)
        by_group = len(tensors[self._scales]) > 1
        scales = scales_in_order(
            tensors[self._scales], _SPARSE_SCALES_BY_GROUP if by_group else range(64)
        )
        return integer_weight(codes, scales, None, self._bits)


def _kept_places(meta: Tensor) -> Tensor:
    # int16 [K / 32, 2 N] -> int64 [N, K / 2], the input of each weight that is there.
    outputs = meta.shape[1] // 2
    columns = 2 * len(meta)
    rows = torch.arange(outputs, device=meta.device)[:, None]
    column = torch.arange(columns, device=meta.device)[None]
    # Bits 5 to 0 of a row become bits 4 3 2 0 5 1.
    row = rows // 64 * 64 + rows % 64 // 8 * 4 + rows % 8 // 4 + rows % 4 // 2 * 32 + rows % 2 * 2
    # Blocks of 2 x 2 have their corners exchanged.
    exchanged = (row % 2 == 0) & (column % 2 == 1)
    returned = (row % 2 == 1) & (column % 2 == 0)
    moved = exchanged.long() - returned.long()
    row, column = row + moved, column - moved
    words = meta.flatten()[column // 2 * outputs * 2 + row * 2 + column % 2].to(torch.int64)
    pairs = (words[..., None] >> torch.arange(0, 16, 2, device=meta.device)) & 3
    fours = torch.arange(columns * 4, device=meta.device).repeat_interleave(2) * 4
    return pairs.flatten(1) + fours
