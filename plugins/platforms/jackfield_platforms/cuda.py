"""NVIDIA GPUs."""

from __future__ import annotations

import ctypes.util
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from jackfield.errors import ConfigError

if TYPE_CHECKING:
    import torch

_DEVICE_NODES = (Path("/dev/nvidiactl"), Path("/dev/dxg"))
"""Linux's driver, and the one that WSL 2 lends from Windows."""


class CudaPlatform:
    """CUDA devices, as torch numbers them (``CUDA_VISIBLE_DEVICES`` applies)."""

    name: ClassVar[str] = "cuda"
    api_version: ClassVar[int] = 1
    steps_in_flight: ClassVar[int] = 2
    default_attention_backend: ClassVar[str] = "triton"

    @classmethod
    def available(cls) -> bool:
        """Whether there is a driver with a device; starts neither torch nor the device."""
        if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
            return False
        if any(node.exists() for node in _DEVICE_NODES):
            return True
        return os.name == "nt" and ctypes.util.find_library("nvcuda") is not None

    @classmethod
    def prepare(cls) -> None:
        """Makes the context of the first device, 0.6 s, which torch will find, and lets Triton look
        at itself, 0.5 s, as it does before it finds a kernel in its cache: both are work outside of
        Python's lock. What is wrong with the driver is torch's to tell."""
        with ThreadPoolExecutor(2) as threads:
            threads.submit(_make_context)
            threads.submit(_hash_triton)

    def device(self, rank: int) -> torch.device:
        """Makes device ``rank`` current. Raises ``ConfigError`` where torch cannot use it."""
        import torch  # not at import time: the settings ask for a platform without torch

        if not torch.cuda.is_available():
            raise ConfigError(
                "this machine has an NVIDIA driver, but torch cannot use it: install a CUDA build"
                f" of torch that suits the driver (this is {torch.__version__}), or serve with"
                " --device cpu"
            )
        if rank >= torch.cuda.device_count():
            raise ConfigError(
                f"GPU {rank} is asked for, but torch sees {torch.cuda.device_count()}"
            )
        device = torch.device("cuda", rank)
        torch.cuda.set_device(device)
        return device

    def memory(self, device: torch.device) -> tuple[int, int]:
        """(free, total) bytes, as the driver counts them over all processes."""
        import torch

        return torch.cuda.mem_get_info(device)


def _make_context() -> None:
    with suppress(OSError):
        driver = ctypes.CDLL("libcuda.so.1")
        device, context = ctypes.c_int(), ctypes.c_void_p()
        if driver.cuInit(0) == 0 and driver.cuDeviceGet(ctypes.byref(device), 0) == 0:
            driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), device)


def _hash_triton() -> None:
    with suppress(ImportError):
        from triton.runtime.cache import triton_key  # it takes 0.2 s to import

        triton_key()
