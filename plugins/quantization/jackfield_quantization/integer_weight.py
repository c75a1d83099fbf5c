"""Integers with or without zero points as a coded weight."""

from __future__ import annotations

import torch
from torch import Tensor

from jackfield.compute.layers.coded_weight import CodedWeight
from jackfield_quantization.number_formats import signed_integers


def integer_weight(codes: Tensor, scales: Tensor, zeros: Tensor | None, bits: int) -> CodedWeight:
    """(code - zero) * scale; codes uint8 [N, K] of at most 8 bits, scales and zeros [N, groups].
    Without zeros they are in the middle."""
    middle = 2.0 ** (bits - 1)
    if zeros is not None and bool((zeros == middle).all()):
        zeros = None
    scales = scales.float()
    # The tables stand for code - 8 and code - 128.
    own = 8.0 if bits <= 4 else 128.0
    zero = torch.full_like(scales, middle) if zeros is None else zeros.float()
    shifts = None if bool((zero == own).all()) else (own - zero) * scales
    if bits <= 4:
        table = signed_integers().to(codes.device)
        return CodedWeight.pack(codes, scales, bits=4, table=table, shifts=shifts)
    signed = (codes.to(torch.int16) - 128).to(torch.int8)
    return CodedWeight.pack(signed, scales, bits=8, shifts=shifts)
