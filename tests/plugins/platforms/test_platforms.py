"""Platforms are found without torch and say what memory there is."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from collections.abc import Callable
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
class FakeDriver:
    """Notes what it is asked for; ``status`` is what cuInit says."""

    def __init__(self, status: int) -> None:
        self.calls: list[str] = []
        self._status = status

    def __getattr__(self, name: str) -> Callable[..., int]:
        def call(*arguments: object) -> int:
            self.calls.append(name)
            return self._status if name == "cuInit" else 0

        return call


@pytest.mark.parametrize(
    ("status", "calls"),
    [(0, ["cuInit", "cuDeviceGet", "cuDevicePrimaryCtxRetain"]), (100, ["cuInit"])],
)
def test_the_context_is_made_ahead_where_the_driver_works(
    status: int, calls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = FakeDriver(status)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: driver)
    CudaPlatform.prepare()
    assert driver.calls == calls


def test_a_missing_driver_is_not_the_preparations_to_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise OSError(f"{name}: no such file")

    monkeypatch.setattr(ctypes, "CDLL", missing)
    CudaPlatform.prepare()


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
