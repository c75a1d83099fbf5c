"""Log lines are written by a thread of their own, and never stop the program."""

from __future__ import annotations

import logging
import queue

import pytest

from jackfield.cli.log_output import _DroppingHandler, log_output


def test_all_lines_are_out_at_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    before = logging.getLogger().handlers[:]
    with log_output("info", ["a note"]):
        for number in range(100):
            logging.getLogger("some.module").info("line %d", number)
        logging.getLogger("some.module").debug("hidden")
    lines = capsys.readouterr().err.splitlines()
    assert "WARNING jackfield.cli.log_output: a note" in lines[0]
    assert len(lines) == 101 and lines[-1].endswith("INFO some.module: line 99")
    assert logging.getLogger().handlers == before


def test_a_full_queue_loses_lines_and_does_not_wait() -> None:
    waiting: queue.Queue[logging.LogRecord] = queue.Queue(1)
    handler = _DroppingHandler(waiting)
    for _ in range(3):
        handler.handle(logging.LogRecord("a", logging.INFO, "a.py", 1, "text", None, None))
    assert waiting.qsize() == 1
