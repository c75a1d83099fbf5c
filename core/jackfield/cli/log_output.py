"""Where log lines go: to standard error, by a thread of their own."""

from __future__ import annotations

import logging
import logging.handlers
import queue
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

log = logging.getLogger(__name__)

MAX_WAITING_LINES = 10_000
FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_NOISY = ("urllib3", "httpx", "httpcore", "filelock", "asyncio", "huggingface_hub")


class _DroppingHandler(logging.handlers.QueueHandler):
    """A terminal that takes no more lines must not stop the server: the newest are lost."""

    def enqueue(self, record: logging.LogRecord) -> None:
        with suppress(queue.Full):
            self.queue.put_nowait(record)


@contextmanager
def log_output(level: str, notes: Sequence[str] = ()) -> Iterator[None]:
    """While it lasts, log lines from ``level`` on are written; at its end all have been.
    ``notes`` are the first of them."""
    waiting: queue.Queue[logging.LogRecord] = queue.Queue(MAX_WAITING_LINES)
    writer = logging.StreamHandler()
    writer.setFormatter(logging.Formatter(FORMAT))
    listener = logging.handlers.QueueListener(waiting, writer)
    handler = _DroppingHandler(waiting)
    root = logging.getLogger()
    before = root.level
    root.addHandler(handler)
    root.setLevel(level.upper())
    for name in _NOISY:
        logging.getLogger(name).setLevel(logging.WARNING)
    listener.start()
    for note in notes:
        log.warning("%s", note)
    try:
        yield
    finally:
        root.removeHandler(handler)
        root.setLevel(before)
        listener.stop()
