"""What the door needs of an engine, whoever keeps it, and what it wants to hear of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from jackfield.contracts.messages import (
    Answer,
    EngineReady,
    Question,
    SleepState,
    StepTokens,
    ToEngine,
)
from jackfield.errors import JackfieldError


@dataclass(frozen=True, slots=True)
class EngineEvents:
    """Callbacks, all in the event loop's thread. ``on_step`` gets each step's tokens; ``on_lost``
    is called when an engine has died, at once; ``on_replaced`` when a new one serves;
    ``on_sleep`` when somebody else has put the engine to sleep or woken it."""

    on_step: Callable[[StepTokens], None]
    on_lost: Callable[[JackfieldError], None]
    on_replaced: Callable[[EngineReady], None]
    on_sleep: Callable[[SleepState], None] = lambda state: None


class EngineLink(Protocol):
    """One engine at a time, replaced when it dies. Belongs to the event loop that runs
    ``start``."""

    @property
    def is_serving(self) -> bool: ...
    @property
    def num_restarts(self) -> int: ...
    @property
    def pid(self) -> int | None:
        """Process id of the engine of now."""
        ...

    @property
    def death(self) -> JackfieldError | None:
        """Why no engine will serve any more, if none will."""
        ...

    def launch(self) -> None:
        """Spawns the first engine, if that is this process' business; idempotent."""
        ...

    async def start(self) -> EngineReady:
        """Waits until the first engine serves; ``ConfigError``, ``EngineError``: it never will."""
        ...

    async def stop(self, timeout: float = 5.0) -> None:
        """Ends the engine, or this process' part in it."""
        ...

    async def wait_dead(self) -> JackfieldError:
        """Returns when there is no engine and there will be none, with the last one's error."""
        ...

    def send(self, message: ToEngine) -> None:
        """Hands a message to the engine of now; never blocks. Without one it goes nowhere."""
        ...

    async def ask(self, message: Question) -> Answer:
        """Sends a message that is answered; ``EngineError`` if the engine ends before."""
        ...


MakeLink = Callable[[EngineEvents], EngineLink]
