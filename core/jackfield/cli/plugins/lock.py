"""``jackfield plugins lock``: which plugin code may run, by hash."""

from __future__ import annotations

from pathlib import Path

from jackfield.cli.plugins.entries import all_entries, parser
from jackfield.registry import Registry
from jackfield.registry.lock import PluginLock


def main(argv: list[str]) -> int:
    """Prints the lock, or writes it to a file."""
    made = parser(
        "lock",
        "Writes down every installed plugin distribution with the hash of its packages, for "
        "`serve --plugins-lock FILE`. Imports nothing.",
    )
    made.add_argument("files", nargs="*", metavar="FILE.py", help="plugin files to allow as well")
    made.add_argument("-o", "--output", metavar="FILE", help="where to write; default: the screen")
    made.add_argument(
        "--disable-plugin", action="append", default=[], metavar="DIST", help="leave one out"
    )
    args = made.parse_args(argv)
    registry = Registry(disabled=args.disable_plugin)
    text = PluginLock.of(all_entries(registry), args.files).text()
    if args.output is None:
        print(text, end="")
    else:
        Path(args.output).write_text(text, encoding="utf-8")
    return 0
