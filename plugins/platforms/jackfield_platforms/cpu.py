"""The host's processors."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    import torch


class CpuPlatform:
    """The CPU: device and host are one, so that a step is done when it has been enqueued."""

    name: ClassVar[str] = "cpu"
    api_version: ClassVar[int] = 1
    steps_in_flight: ClassVar[int] = 1
    default_attention_backend: ClassVar[str] = "cpu"

    @classmethod
    def available(cls) -> bool:
        """Always."""
        return True

    def device(self, rank: int) -> torch.device:
        """All ranks share the one host."""
        import torch  # not at import time: the settings ask for a platform without torch

        return torch.device("cpu")

    def memory(self, device: torch.device) -> tuple[int, int]:
        """(free, total) bytes of main memory."""
        page = os.sysconf("SC_PAGE_SIZE")
        return os.sysconf("SC_AVPHYS_PAGES") * page, os.sysconf("SC_PHYS_PAGES") * page
