"""Waiting for what a thread, a task or a process does, without a sleep that hopes it is done.

The patience is no law: a condition that comes true is seen at once, however slow the machine is,
and one that never does fails its test in the place of holding up the run.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

PATIENCE_SECONDS = 60.0


async def until(condition: Callable[[], object]) -> None:
    """Returns once ``condition`` holds; others of the event loop go on meanwhile."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not condition():
            await asyncio.sleep(0.005)


def wait_until(condition: Callable[[], object]) -> None:
    """``until`` for what happens outside of an event loop of this thread."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError
        time.sleep(0.005)
