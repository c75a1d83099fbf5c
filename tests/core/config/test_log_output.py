"""Log lines are written by a thread of their own, and never stop the program."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.faults import full_pipe

from jackfield.config.log_output import MAX_WAITING_LINES, log_output

LOGS = """
import logging
from jackfield.config.log_output import log_output
with log_output("info"):
    for number in range({count}):
        logging.getLogger("some.module").info("line %d", number)
    print("done", flush=True)
"""


def run(count: int, stderr: int) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", LOGS.format(count=count)]
    return subprocess.run(
        command, stdout=subprocess.PIPE, stderr=stderr, text=True, timeout=60, check=False
    )


def test_all_lines_are_out_at_the_end(capfd: pytest.CaptureFixture[str]) -> None:
    before = logging.getLogger().handlers[:]
    with log_output("info", ["a note"]):
        for number in range(100):
            logging.getLogger("some.module").info("line %d", number)
        logging.getLogger("some.module").debug("hidden")
    lines = capfd.readouterr().err.splitlines()
    assert "WARNING jackfield.config.log_output: a note" in lines[0]
    assert len(lines) == 101 and lines[-1].endswith("INFO some.module: line 99")
    assert logging.getLogger().handlers == before


@pytest.mark.parametrize("count", [10, MAX_WAITING_LINES + 10])
def test_where_nobody_reads_lines_are_lost_and_the_program_ends(count: int) -> None:
    with full_pipe() as stderr:
        done = run(count, stderr)
    assert (done.returncode, done.stdout) == (0, "done\n")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux's device that is always full")
def test_a_full_disk_costs_lines_and_no_exit_status() -> None:
    descriptor = os.open("/dev/full", os.O_WRONLY)
    try:
        done = run(100, descriptor)
    finally:
        os.close(descriptor)
    assert (done.returncode, done.stdout) == (0, "done\n")
