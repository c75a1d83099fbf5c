"""Memory that is reserved but not used costs nothing; uploads keep their values."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.core.compute.rows import CPU

from jackfield.compute.transfer import Uploads, device_zeros


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_only_what_is_written_takes_memory() -> None:
    before = resident_bytes()
    tensor = device_zeros((64, 1 << 20), torch.float32, CPU)
    for row in range(64):
        tensor[row, 5] = 1.0
    assert resident_bytes() - before < 16 << 20
    assert tensor[:, :4096].sum() == 64


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.int32])
def test_zeros_are_zeros_of_the_asked_shape(dtype: torch.dtype) -> None:
    tensor = device_zeros((3, 5, 7), dtype, CPU)
    assert tensor.shape == (3, 5, 7)
    assert tensor.dtype == dtype
    assert not bool(tensor.any())
    tensor.fill_(1)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_uploads_in_flight_keep_their_values() -> None:
    uploads = Uploads(torch.device("cuda", 0), depth=2)
    sent = [np.full(5000 + 1000 * i, i, dtype=np.int32) for i in range(20)]
    received = [uploads.upload(values) for values in sent]
    for values, tensor in zip(sent, received, strict=True):
        assert tensor.tolist() == values.tolist()
