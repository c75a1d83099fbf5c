"""Tensors in the orders of Marlin, QQQ and sparse Marlin; see ``packers``.

The orders are told code by code, as the kernels' papers do: thread after thread, tile after tile.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from tests.plugins.quantization.packers import GROUP, Packed, Packer, bit_string, compressed
from torch import Tensor


def thread_order(kind: str, within: list[int]) -> list[int]:
    """Places in four tiles of 16 x 16 codes, row by row, one tile after the other."""
    places = []
    for thread in range(32):
        first, column = thread % 4, thread // 4
        for tile in range(4):
            for half in range(2):
                if kind == "int8":
                    rows = [4 * first + i for i in range(4)]
                else:
                    rows = [2 * first, 2 * first + 1, 2 * first + 8, 2 * first + 9]
                for row in rows:
                    if kind == "sparse":
                        at = (column // 2, row, 8 * (column % 2) + 4 * half + tile)
                    else:
                        at = (tile, row, column + 8 * half)
                    places.append(at[0] * 256 + at[1] * 16 + at[2])
    size = len(within)
    return [places[i // size * size + within[i % size]] for i in range(len(places))]


def tiles(codes: Tensor, places: list[int], bits: int) -> Tensor:
    """codes int64 [K, N] -> int32 [K / 16, N * bits / 2]."""
    inputs, outputs = codes.shape
    rows = []
    for top in range(0, inputs, 16):
        row: list[Tensor] = []
        for left in range(0, outputs, 64):
            four = [codes[top : top + 16, left + 16 * i : left + 16 * i + 16] for i in range(4)]
            row.append(torch.stack(four).flatten()[places])
        rows.append(torch.cat(row))
    return bit_string(torch.stack(rows), bits)


EIGHT = [0, 2, 4, 6, 1, 3, 5, 7]


def grouped(scales: Tensor) -> Tensor:
    """[groups, N] with the outputs of 64 in the order 0 8 16 ... 1 9 17 ..."""
    return scales.view(len(scales), -1, 8, 8).transpose(2, 3).reshape(scales.shape)


def single(scales: Tensor) -> Tensor:
    """[1, N], pairs of outputs from four neighbouring groups of 8."""
    return scales.view(-1, 4, 4, 2).transpose(1, 2).reshape(scales.shape)


def symmetric(weight: Tensor, group: int, bits: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    """Codes int64 [N, K] from 0 on, scales [N, groups] and the numbers."""
    blocks = weight.view(len(weight), -1, group)
    scales = (blocks.abs().amax(2) / (2 ** (bits - 1) - 1)).half().float()
    signed = (blocks / scales[..., None]).round().clamp(1 - 2 ** (bits - 1), 2 ** (bits - 1) - 1)
    numbers = (signed * scales[..., None]).view_as(weight)
    return signed.view_as(weight).long() + 2 ** (bits - 1), scales, numbers


def marlin(group: int) -> Packer:
    def pack(weight: Tensor) -> Packed:
        size = group if group > 0 else weight.shape[1]
        codes, scales, numbers = symmetric(weight, size)
        shuffle = grouped if group > 0 else single
        tensors = {
            "B": tiles(codes.T, thread_order("half", EIGHT), 4),
            "s": shuffle(scales.T.contiguous()).half(),
        }
        return tensors, numbers

    return pack


def places_of_two(there: Tensor) -> Tensor:
    """bool [N, K], two of four -> int16 [K / 32, 2 N]: 16 inputs in a word, in CUTLASS' order."""
    outputs, inputs = there.shape
    words = np.zeros(outputs * inputs // 16, dtype=np.uint16)
    for row, fours in enumerate(there.view(outputs, -1, 4).tolist()):
        moved = [row >> 3 & 1, row >> 4 & 1, row >> 5 & 1]
        low = (row >> 2 & 1) + 2 * (row & 1) + 32 * (row >> 1 & 1)
        line = row // 64 * 64 + low + 4 * moved[0] + 8 * moved[1] + 16 * moved[2]
        for column in range(inputs // 16):
            word = 0
            for place, four in enumerate(fours[4 * column : 4 * column + 4]):
                first, second = (index for index in range(4) if four[index])
                word |= (first | second << 2) << (4 * place)
            # In blocks of 2 x 2 the upper right and the lower left are exchanged.
            shift = (line % 2 == 0 and column % 2 == 1) - (line % 2 == 1 and column % 2 == 0)
            at = (line + shift, column - shift)
            words[at[1] // 2 * outputs * 2 + at[0] * 2 + at[1] % 2] = word
    return torch.from_numpy(words.view(np.int16)).view(inputs // 32, outputs * 2)


def marlin_24(group: int, bits: int) -> Packer:
    within = EIGHT if bits == 4 else [0, 2, 1, 3]

    def pack(weight: Tensor) -> Packed:
        fours = weight.view(len(weight), -1, 4)
        kept = torch.zeros_like(fours).scatter_(2, fours.abs().topk(2, 2).indices, 1.0)
        size = group if group > 0 else weight.shape[1]
        codes, scales, numbers = symmetric((fours * kept).view_as(weight), size, bits)
        there = kept.view_as(weight).bool()
        by_group = scales.T.contiguous()
        if group > 0:
            eights = by_group.view(len(by_group), -1, 8)
            by_group = eights[..., [0, 4, 1, 5, 2, 6, 3, 7]].reshape(by_group.shape)
        tensors = {
            "B_24": tiles(
                codes[there].view(len(codes), -1).T, thread_order("sparse", within), bits
            ),
            "B_meta": places_of_two(there),
            "s": by_group.half(),
        }
        return tensors, numbers

    return pack


def renamed(pack: Packer, names: Mapping[str, str]) -> Packer:
    def packed(weight: Tensor) -> Packed:
        tensors, numbers = pack(weight)
        return {names[name]: tensor for name, tensor in tensors.items()}, numbers

    return packed


def qqq(group: int) -> Packer:
    def pack(weight: Tensor) -> Packed:
        size = group if group > 0 else weight.shape[1]
        codes, scales, numbers = symmetric(weight, size)
        if group < 0:
            within = [4, 0, 5, 1, 6, 2, 7, 3]
            return {
                "B": tiles((codes - 8).T % 16, thread_order("int8", within), 4),
                "s_channel": single(scales.T.contiguous() / 16),
                "s_group": torch.empty(0, dtype=torch.float16),
            }, numbers
        channel = scales.amax(1, keepdim=True) * 8 / 127
        by_group = (scales / channel).half()
        exact = (codes - 8).view(len(codes), -1, group) * (by_group.float() * channel)[..., None]
        return {
            "B": tiles(codes.T, thread_order("int8", EIGHT), 4),
            "s_channel": single(channel.T.contiguous()),
            "s_group": grouped(by_group.T.contiguous()),
        }, exact.view_as(weight)

    return pack


_MARLIN: dict[str, object] = {"quant_method": "gptq", "bits": 4}
MARLIN: dict[str, tuple[dict[str, object], Packer]] = {
    "marlin": (
        {**_MARLIN, "group_size": GROUP, "checkpoint_format": "marlin"},
        marlin(GROUP),
    ),
    "marlin-one-group": ({"quant_method": "marlin", "group_size": -1}, marlin(-1)),
    "marlin-24": (
        {**_MARLIN, "group_size": GROUP, "checkpoint_format": "marlin_24"},
        marlin_24(GROUP, 4),
    ),
    "marlin-24-8-bits-one-group": (
        {**_MARLIN, "bits": 8, "group_size": -1, "checkpoint_format": "marlin_24"},
        marlin_24(-1, 8),
    ),
    "compressed-tensors-marlin-24": (
        compressed(
            "marlin-24",
            {"type": "int", "num_bits": 4, "strategy": "group", "group_size": GROUP},
        ),
        renamed(
            marlin_24(GROUP, 4), {"B_24": "weight_packed", "B_meta": "meta", "s": "scale_packed"}
        ),
    ),
    "qqq": ({"quant_method": "qqq", "wbits": 4, "group_size": GROUP}, qqq(GROUP)),
    "qqq-one-group": ({"quant_method": "qqq", "wbits": 4, "group_size": -1}, qqq(-1)),
}
