"""Where log lines go: to standard error, by a thread of their own.

Whoever reads them may have stopped, and the disk they lie on may be full: then lines are lost, and
nothing waits for them.
"""

from __future__ import annotations

import logging
import logging.handlers
import os
import queue
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

log = logging.getLogger(__name__)

MAX_WAITING_LINES = 10_000
LAST_LINES_SECONDS = 2.0
"""How long the end waits for the lines that are not out yet."""
FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_NOISY = ("urllib3", "httpx", "httpcore", "filelock", "asyncio", "huggingface_hub")
_STDERR = 2


@contextmanager
def log_output(level: str, notes: Sequence[str] = ()) -> Iterator[None]:
    """While it lasts, log lines from ``level`` on are written; at its end all have been, if they
    are taken. ``notes`` are the first of them."""
    waiting: queue.Queue[logging.LogRecord | None] = queue.Queue(MAX_WAITING_LINES)
    handler = _DroppingHandler(waiting)
    root = logging.getLogger()
    before = root.level
    root.addHandler(handler)
    root.setLevel(level.upper())
    for name in _NOISY:
        logging.getLogger(name).setLevel(logging.WARNING)
    writer = threading.Thread(target=_write_all, args=(waiting,), name="log lines", daemon=True)
    writer.start()
    for note in notes:
        log.warning("%s", note)
    try:
        yield
    finally:
        root.removeHandler(handler)
        root.setLevel(before)
        with suppress(queue.Full):
            waiting.put_nowait(None)
            writer.join(LAST_LINES_SECONDS)


class _DroppingHandler(logging.handlers.QueueHandler):
    """The newest lines are lost where nobody takes them."""

    def enqueue(self, record: logging.LogRecord) -> None:
        with suppress(queue.Full):
            self.queue.put_nowait(record)


def _write_all(waiting: queue.Queue[logging.LogRecord | None]) -> None:
    """Writes past Python's own buffer: its lock, held in a write that does not return, would keep
    the program from ending, and what a full disk has not taken would be its exit status."""
    formatter = logging.Formatter(FORMAT)
    while (record := waiting.get()) is not None:
        line = (formatter.format(record) + "\n").encode(errors="backslashreplace")
        with suppress(OSError):
            while line:
                line = line[os.write(_STDERR, line) :]
