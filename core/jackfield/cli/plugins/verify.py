"""``jackfield plugins verify``: imports every plugin, in a child process with a deadline.

The child answers a line a plugin. One that ends the child (``sys.exit`` in a thread, a crash in a
library) or takes too long is named, and another child goes on behind it.
"""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import IO

from jackfield.cli.plugins.entries import all_entries, entries_named, kind_named, parser, table
from jackfield.errors import JackfieldError
from jackfield.registry import HOOKS, PluginEntry, Registry

TIMEOUT_SECONDS = 60.0
"""For one plugin."""

COLUMNS = ("kind", "name", "distribution", "version", "state")


def main(argv: list[str]) -> int:
    """Prints a table or JSON; status 1 where a plugin does not work."""
    made = parser("verify", "Imports each plugin and checks its contract version and its members.")
    made.add_argument("names", nargs="*", metavar="NAME", help="plugins or distributions only")
    made.add_argument("--kind", help="only this kind")
    made.add_argument("--json", action="store_true", help="as JSON")
    made.add_argument(
        "--timeout", type=float, default=TIMEOUT_SECONDS, metavar="SECONDS", help="for one plugin"
    )
    args = made.parse_args(argv)
    registry = Registry()
    entries = all_entries(registry, None if args.kind is None else kind_named(args.kind))
    if args.names:
        wanted = [each for name in args.names for each in entries_named(registry, name)]
        entries = [entry for entry in entries if entry in wanted]
    rows = [
        {
            "kind": entry.kind,
            "name": entry.name,
            "distribution": entry.distribution,
            "version": entry.version,
            "state": state,
        }
        for entry, state in zip(entries, states(entries, args.timeout), strict=True)
    ]
    print(json.dumps(rows, indent=2) if args.json else table(rows, COLUMNS))
    return int(any(row["state"] != "ok" for row in rows))


def states(entries: Sequence[PluginEntry], timeout: float) -> Iterator[str]:
    """``ok``, or what is wrong, of each entry."""
    done = 0
    while done < len(entries):
        for state in _child_states(entries[done:], timeout):
            done += 1
            yield state


def _child_states(entries: Sequence[PluginEntry], timeout: float) -> Iterator[str]:
    """The states that one child tells; the last one may be that it died or hung."""
    child = subprocess.Popen(
        [sys.executable, "-m", "jackfield.cli.plugins.verify"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdin is not None and child.stdout is not None
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()
    reader = threading.Thread(target=_read, args=(child.stdout, lines), daemon=True)
    reader.start()
    try:
        child.stdin.write(json.dumps([(each.kind, each.name, each.value) for each in entries]))
        child.stdin.close()
        for entry in entries:
            try:
                line = lines.get(timeout=timeout)
            except queue.Empty:
                yield f"{entry} hangs: it was not imported in {timeout:g} s"
                return
            if not line:
                yield f"{entry} is broken: importing it ended the process"
                return
            yield json.loads(line)
    finally:
        child.kill()
        child.wait()
        reader.join()
        child.stdout.close()


def _read(source: IO[str], lines: queue.SimpleQueue[str]) -> None:
    """Lines, then an empty one at the end."""
    for line in source:
        if line.startswith('"'):
            lines.put(line)
    lines.put("")


def _child() -> None:
    registry = Registry()
    # What a plugin prints must not look like an answer.
    answers, sys.stdout = sys.stdout, sys.stderr
    for kind, name, value in json.loads(sys.stdin.read()):
        entry = next(
            each for each in registry.list(kind) if (each.name, each.value) == (name, value)
        )
        print(json.dumps(_state(entry, registry)), file=answers, flush=True)


def _state(entry: PluginEntry, registry: Registry) -> str:
    try:
        if entry.kind == HOOKS:
            from jackfield.hooks import Hooks  # pluggy, for hooks alone

            Hooks([entry])
        else:
            registry.load_entry(entry)
            registry.find(entry.kind, entry.name)
    except JackfieldError as error:
        return str(error)
    return "ok"


if __name__ == "__main__":
    _child()
