"""``jackfield plugins info NAME``: all that is known of a plugin without importing it."""

from __future__ import annotations

import json

import importlib_metadata

from jackfield.cli.plugins.entries import entries_named, parser
from jackfield.registry import KINDS, PluginEntry, Registry
from jackfield.registry.files import file_hash, plugin_file


def main(argv: list[str]) -> int:
    """Prints a block for each plugin of the name, or for each of the distribution's."""
    made = parser("info", "All that is known of a plugin without importing it.")
    made.add_argument("name", help="a plugin or a distribution")
    made.add_argument("--json", action="store_true", help="as JSON")
    args = made.parse_args(argv)
    blocks = [describe(entry) for entry in entries_named(Registry(), args.name)]
    if args.json:
        print(json.dumps(blocks, indent=2))
        return 0
    for index, block in enumerate(blocks):
        if index:
            print()
        width = max(map(len, block)) + 2
        print("\n".join(f"{key + ':':<{width}}{value}" for key, value in block.items() if value))
    return 0


def describe(entry: PluginEntry) -> dict[str, str]:
    """What the metadata and the file system say of it."""
    metadata = importlib_metadata.distribution(entry.distribution).metadata
    path = plugin_file(entry.value)
    kind = KINDS.get(entry.kind)
    stated = "not stated; the class says" if entry.api_version is None else entry.api_version
    options = f"--plugin-option {entry.name}.KEY=VALUE; serve --help=plugin:{entry.name}"
    return {
        "name": entry.name,
        "kind": entry.kind,
        "distribution": f"{entry.distribution} {entry.version}",
        "summary": str(metadata.get("Summary", "")),
        "home page": str(metadata.get("Home-page") or metadata.get("Project-URL", "")),
        "license": str(metadata.get("License-Expression") or metadata.get("License", "")),
        "entry point": entry.value,
        "file": str(path or "not found"),
        "sha256": file_hash(path),
        "api version": str(stated) if kind is not None else "",
        "contract": (kind.contract or "none yet") if kind is not None else "jackfield.hooks",
        "runs in": kind.process if kind is not None else "API process",
        "chosen by": kind.flag if kind is not None else "being installed",
        "options": options,
    }
