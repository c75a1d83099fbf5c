"""Model directories that mean harm: is each refused, soon, with one line and in little memory?

    PYTHONPATH=. python bench/hostile_directories.py [KIND ...]

Prints a line for each kind: exit status, seconds, the most memory of any process, and what was
said. The exit status is 1 where one was served, ran its own code, took more than ``MAX_SECONDS`` or
``MAX_MIB``, or was refused with anything but one line and status 2.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from tests.hostile_checkpoints import KINDS, MARKER, make_hostile

MAX_SECONDS = 5.0
"""Of CPU time: what else the machine does is not the server's fault."""
MAX_MIB = 1024
GIVE_UP_SECONDS = 60.0


def refusal(directory: Path) -> tuple[int, float, float, list[str]]:
    """Exit status, CPU seconds, MiB at the peak, and the lines of the error."""
    words = ["--port", "0", "--host", "127.0.0.1", "--cpu-kv-cache-gib", "0.25"]
    command = [sys.executable, "-m", "jackfield", "serve", str(directory), *words]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, errors="replace"
    )
    timer = threading.Timer(GIVE_UP_SECONDS, process.kill)
    timer.start()
    assert process.stderr is not None
    lines = process.stderr.read().splitlines()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    timer.cancel()
    return process.returncode, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, lines


def complaint(status: int, seconds: float, mib: float, lines: list[str], code_ran: bool) -> str:
    """What is wrong with a refusal; empty where it is right."""
    errors = [line for line in lines if line.startswith("jackfield: error: ")]
    if code_ran:
        return "ITS CODE WAS RUN"
    if status != 2 or len(errors) != 1 or any("Traceback" in line for line in lines):
        return "NOT REFUSED IN ONE LINE"
    if len(errors[0]) > 400:
        return "A LONG LINE"
    if seconds > MAX_SECONDS:
        return "SLOW"
    return "MUCH MEMORY" if mib > MAX_MIB else ""


def make_in(directory: str) -> Path:
    """A checkpoint that is right."""
    from tests.checkpoints import make

    return Path(shutil.copytree(make("Qwen3ForCausalLM"), directory, dirs_exist_ok=True))


def main() -> int:
    """Tries every kind."""
    wrong = 0
    # In a process of its own: a child's peak would begin with what its parent has imported.
    with ProcessPoolExecutor(1, get_context("spawn")) as maker:
        good = maker.submit(make_in, tempfile.mkdtemp(prefix="jackfield-good-")).result()
    with tempfile.TemporaryDirectory(prefix="jackfield-hostile-") as parent:
        for kind in sys.argv[1:] or KINDS:
            directory = make_hostile(kind, good, Path(parent))
            begin = time.monotonic()
            status, seconds, mib, lines = refusal(directory)
            took = time.monotonic() - begin
            fault = complaint(status, seconds, mib, lines, (Path(parent) / MARKER).exists())
            said = lines[-1].replace(parent, "") if lines else "(nothing)"
            print(
                f"{kind:<34} {status:3} {took:5.1f} s, CPU {seconds:4.1f} s {mib:6.0f} MiB {fault}"
            )
            print(f"    {said[:150]}", flush=True)
            (Path(parent) / MARKER).unlink(missing_ok=True)
            wrong += bool(fault)
    print(f"{len(sys.argv[1:] or KINDS)} kinds, {wrong} of them not refused as they should be")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
