"""How the decode kernel cuts its work: tiles, pipeline stages, warps and programs."""

from dataclasses import dataclass

from jackfield.compute.kernels.launch import LARGE_ROOM, power_of_2

FEW_SEQS, MANY_SEQS = 4, 48
"""Up to so many sequences leave most programs without work; from so many on a program may have
several, and all of them to look through."""


@dataclass(frozen=True, slots=True)
class DecodeConfig:
    """``tile`` tokens a step of the loop, ``stages`` of its pipeline (Triton gives the loads behind
    a block table half of them), ``warps`` a program, programs a processor; ``ahead`` of
    a program's tiles are on their way to L2 before the newest key is written: 32 pages at most.
    Where programs take tiles of several sequences' heads, the beginning of a head counts as
    ``pair_cost`` tiles, and programs take ``least`` tiles, or as many as the longest, at least."""

    tile: int
    stages: int
    warps: int
    programs_per_processor: int
    ahead: int = 2
    pair_cost: int = 1
    least: int = 1


def decode_config(head_dim: int, itemsize: int, num_seqs: int, room: int) -> DecodeConfig:
    """For keys of this size, where a program may have ``room`` bytes of shared memory.

    What measured best on an H200; wide heads and float32 take fewer tokens a tile. Many sequences
    want many small programs, one of which loads while another computes. Few want large ones, of
    which no processor takes more than two: all are given out while the product before still holds
    half of the processors, and the others would get three."""
    row_bytes = power_of_2(head_dim) * itemsize
    if room < LARGE_ROOM:
        return _in_less_room(row_bytes, num_seqs, room)
    if itemsize == 1 and row_bytes <= 256:
        return _of_eight_bits(row_bytes, num_seqs)
    if row_bytes > 256:
        return DecodeConfig(32, 5 if row_bytes <= 512 else 3, 4, 3 if num_seqs >= 32 else 2)
    return DecodeConfig(64, 3, 2, 4) if num_seqs >= MANY_SEQS else DecodeConfig(64, 7, 4, 2)


def _of_eight_bits(row_bytes: int, num_seqs: int) -> DecodeConfig:
    # A tile comes in half the time and takes as long to compute: four programs keep up with that.
    # Short sequences are not worth sharing among them.
    if row_bytes > 128:
        return DecodeConfig(64, 5, 2, 4) if num_seqs >= MANY_SEQS else DecodeConfig(64, 5, 4, 2)
    if num_seqs <= FEW_SEQS:
        return DecodeConfig(64, 5, 4, 3, least=6)
    return DecodeConfig(64, 5, 2, 4, least=6)


def _in_less_room(row_bytes: int, num_seqs: int, room: int) -> DecodeConfig:
    # Two programs a processor, with two buffers if they have room; not measured.
    tile = 64 if row_bytes <= 256 else max(16, 16384 // row_bytes)
    warps = 2 if num_seqs >= MANY_SEQS and row_bytes <= 256 else 4
    two_buffers = 4 * tile * row_bytes
    return DecodeConfig(tile, 5 if two_buffers < room // 2 - _BESIDE_BUFFERS else 3, warps, 2)


_BESIDE_BUFFERS = 8 << 10
"""Queries, probabilities and what else lies in shared memory, of heads of up to 512 bytes."""
