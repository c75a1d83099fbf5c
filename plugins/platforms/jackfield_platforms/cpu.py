"""The host's processors."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from jackfield_platforms import host_memory

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
        """(free, total) bytes of main memory, or of what this process may have of it."""
        return host_memory.free_and_total()
