"""What a device is called and what it offers. Imports no torch at import time.

Kind: ``jackfield.platforms`` (``--device``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Protocol

if TYPE_CHECKING:
    import torch


class Platform(Protocol):
    """A kind of device. Detection must be cheap and must not initialise the device.

    A classmethod ``prepare() -> None``, if there is one, is called in the engine's process, in a
    thread of its own, while torch is imported: what it initialises need not be waited for later.
    """

    name: ClassVar[str]
    api_version: ClassVar[int]
    steps_in_flight: ClassVar[int]
    default_attention_backend: ClassVar[str]

    @classmethod
    def available(cls) -> bool:
        """Whether this machine has such a device."""
        ...

    def device(self, rank: int) -> torch.device:
        """Makes device ``rank`` current and returns it."""
        ...

    def memory(self, device: torch.device) -> tuple[int, int]:
        """(free, total) bytes."""
        ...
