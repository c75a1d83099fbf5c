"""Platforms are found without torch and say what memory there is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from jackfield.errors import ConfigError
from jackfield_platforms import cuda
from jackfield_platforms.cpu import CpuPlatform
from jackfield_platforms.cuda import CudaPlatform

DETECT = """
import sys
from jackfield_platforms.cpu import CpuPlatform
from jackfield_platforms.cuda import CudaPlatform
CpuPlatform.available(), CudaPlatform.available()
assert "torch" not in sys.modules
"""


def test_detection_does_not_import_torch() -> None:
    subprocess.run([sys.executable, "-c", DETECT], check=True)


def test_the_cpu_is_always_there() -> None:
    platform = CpuPlatform()
    assert platform.available()
    assert platform.device(0) == torch.device("cpu")
    free, total = platform.memory(torch.device("cpu"))
    assert 0 < free <= total


def test_a_driver_makes_cuda_available(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(cuda, "_DEVICE_NODES", (tmp_path / "nvidiactl",))
    assert not CudaPlatform.available()
    (tmp_path / "nvidiactl").touch()
    assert CudaPlatform.available()


def test_no_visible_device_is_no_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "_DEVICE_NODES", (tmp_path,))
    for nothing in ("", "-1"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", nothing)
        assert not CudaPlatform.available()


@pytest.mark.skipif(torch.cuda.is_available(), reason="torch can use a GPU here")
def test_a_torch_without_cuda_is_one_line() -> None:
    with pytest.raises(ConfigError, match="--device cpu") as error:
        CudaPlatform().device(0)
    assert "\n" not in str(error.value)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_is_made_current_and_measured() -> None:
    platform = CudaPlatform()
    device = platform.device(0)
    free, total = platform.memory(device)
    assert 0 < free <= total
    with pytest.raises(ConfigError):
        platform.device(torch.cuda.device_count())
