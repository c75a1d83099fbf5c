"""What a serving process does about garbage; in another process, because it is for all of it."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import gc
from jackfield.engine.garbage_collection import collect_rarely, settle

class Ring:
    def __init__(self):
        self.own = self

young = gc.get_threshold()[0]
collect_rarely()
kept, dropped = Ring(), Ring()
del dropped
settle()
assert gc.get_threshold()[0] > 10 * young
assert gc.get_freeze_count() > 0
assert not any(one is kept for one in gc.get_objects())
later = Ring()
del later
print(gc.collect())
"""


def test_what_a_server_is_made_of_is_not_looked_at_again_and_garbage_still_goes() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60
    )
    assert done.stderr == ""
    assert int(done.stdout) > 0
