"""How the decode kernel cuts its work: tiles, pipeline stages, warps and programs."""

from dataclasses import dataclass

from jackfield.compute.kernels.launch import power_of_2

MANY_SEQS = 48
"""From so many sequences on a program may have several, and all of them to look through."""

_FEW_SEQS = 4


@dataclass(frozen=True, slots=True)
class DecodeConfig:
    """``tile`` tokens a step of the loop, ``stages`` of its pipeline (Triton gives the loads behind
    a block table half of them), ``warps`` a program, programs a processor; ``ahead`` of
    a program's tiles are on their way to L2 before the newest key is written: 32 pages at most. The
    beginning of a sequence's head counts as ``pair_cost`` tiles where programs take of several."""

    tile: int
    stages: int
    warps: int
    programs_per_processor: int
    ahead: int = 2
    pair_cost: int = 1


def decode_config(head_dim: int, itemsize: int, num_seqs: int) -> DecodeConfig:
    """What measured best on an H200 for keys of this size; wide heads and float32 take fewer tokens
    a tile. Many sequences want many small programs, one of which loads while another computes. Few
    want large ones, of which no processor takes more than two: all are given out while the product
    before still holds half of the processors, and the others would get three. Up to four sequences
    leave most programs without work, and do better with three of the smaller ones of 8-bit keys."""
    row_bytes = power_of_2(head_dim) * itemsize
    if itemsize == 1 and row_bytes <= 256:
        if num_seqs >= MANY_SEQS:
            return DecodeConfig(64, 5, 2, 4)
        return DecodeConfig(64, 5, 4, 3 if num_seqs <= _FEW_SEQS else 2)
    if row_bytes > 256:
        return DecodeConfig(32, 5 if row_bytes <= 512 else 3, 4, 3 if num_seqs >= 32 else 2)
    return DecodeConfig(64, 3, 2, 4) if num_seqs >= MANY_SEQS else DecodeConfig(64, 7, 4, 2)
