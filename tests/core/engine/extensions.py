"""Classes that tests mix into workers, by ``module:Class``."""

from __future__ import annotations

import time
from typing import Any


class Extension:
    """Methods over a ``DeviceWorker`` or a simulated one."""

    def add(self, a: int, b: int = 1, *, scale: int = 1) -> int:
        self.calls = getattr(self, "calls", 0) + 1
        return (a + b) * scale

    def num_calls(self) -> int:
        return getattr(self, "calls", 0)

    def echo(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        return {"args": list(args), "kwargs": kwargs}

    def fail(self) -> None:
        raise ValueError("on purpose")

    def give_bytes(self, size: int) -> bytes:
        return bytes(size)

    def give_object(self) -> object:
        return object()

    def nap(self, seconds: float) -> None:
        time.sleep(seconds)

    def scale_head(self, factor: float) -> float:
        """Changes a weight of the model in place; the old sum of its first row."""
        weight = self.model.model.norm.weight.data  # type: ignore[attr-defined]
        before = float(weight.sum())
        weight.mul_(factor)
        return before

    def _hidden(self) -> None: ...


class Clashing:
    """Has what every worker has."""

    def execute(self) -> None: ...
    def more(self) -> None: ...


class Slotted:
    """Cannot become a base of a worker that has other slots."""

    __slots__ = ("x",)


NO_CLASS = 7
