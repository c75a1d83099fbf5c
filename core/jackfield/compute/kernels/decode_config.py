"""How the decode kernel cuts its work: tiles, pipeline stages, warps and programs."""

from dataclasses import dataclass

from jackfield.compute.kernels.launch import power_of_2


@dataclass(frozen=True, slots=True)
class DecodeConfig:
    """``tile`` tokens a step of the loop, ``stages`` of its pipeline (Triton gives the loads behind
    a block table half of them), ``warps`` a program, programs a processor."""

    tile: int
    stages: int
    warps: int
    programs_per_processor: int


def decode_config(head_dim: int, itemsize: int, num_seqs: int) -> DecodeConfig:
    """What measured best on an H200 for keys of this size; wide heads and float32 take fewer tokens
    a tile. Many short sequences want many small programs, one of which loads while another
    computes; so do 8 bits, whose conversion takes time."""
    row_bytes = power_of_2(head_dim) * itemsize
    if itemsize == 1:
        if num_seqs >= 96:
            return DecodeConfig(64, 5, 2, 4)
        return DecodeConfig(64, 4, 4, 3 if num_seqs >= 16 else 4)
    if row_bytes > 256:
        return DecodeConfig(32, 5 if row_bytes <= 512 else 3, 4, 3 if num_seqs >= 32 else 2)
    return DecodeConfig(64, 3, 2, 4) if num_seqs >= 96 else DecodeConfig(64, 5, 4, 2)
