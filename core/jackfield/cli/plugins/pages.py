"""The documentation of the kinds: ``python -m jackfield.cli.plugins.pages docs/plugin-kinds``.

A page a kind, made of the contract's docstrings, the scaffold as the worked example, and the list
of known plugins (``known.toml`` beside the pages).
"""

from __future__ import annotations

import importlib
import inspect
import sys
import tomllib
from collections.abc import Iterator, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from jackfield.cli.plugins.check import KITS
from jackfield.cli.plugins.new import _filled, _values
from jackfield.registry import KINDS
from jackfield.registry.kinds import Kind, singular

Known = Mapping[str, list[Mapping[str, str]]]


def main(arguments: list[str]) -> int:
    """Writes the pages into a folder."""
    (folder,) = map(Path, arguments)
    for name, text in pages(read_known(folder)).items():
        (folder / name).write_text(text, encoding="utf-8")
    return 0


def read_known(folder: Path) -> Known:
    """Known plugins by kind."""
    known: Known = tomllib.loads((folder / "known.toml").read_text(encoding="utf-8"))
    return known


def pages(known: Known) -> dict[str, str]:
    """File name to text: a page for each kind that has a contract."""
    return {
        f"{kind.name}.md": "".join(_page(kind, known.get(kind.name, ())))
        for kind in KINDS.values()
        if kind.contract is not None
    }


def _page(kind: Kind, known: Any) -> Iterator[str]:
    module_name, _, name = str(kind.contract).partition(":")
    module = importlib.import_module(module_name)
    contract = getattr(module, name)
    versions = ", ".join(str(version) for version in sorted(kind.api_versions))
    kit = KITS.get(kind.name)
    kit_name = f"`jackfield.testing.{kit.name}`" if kit else "`jackfield.testing.PluginContract`"
    yield f"# {kind.name}\n\n"
    yield f"{inspect.getdoc(module)}\n\n"
    yield "| | |\n| --- | --- |\n"
    yield f"| entry-point group | `{kind.group}` |\n"
    yield f"| chosen by | `{kind.flag}` |\n"
    yield f"| one more, unpackaged | `{kind.plugin_flag}` |\n"
    yield f"| runs in | {kind.process} |\n"
    yield f"| default | {f'`{kind.default}`' if kind.default else ''} |\n"
    yield f"| contract | `{kind.contract}`, version {versions} |\n"
    yield f"| conformance kit | {kit_name} |\n\n"
    yield "## Contract\n\n"
    yield f"### `{name}`\n\n{inspect.getdoc(contract)}\n\n"
    yield from _members(contract)
    yield "## Worked example\n\n"
    yield f"What `jackfield plugins new {singular(kind.name).replace('_', '-')} mine` writes:\n\n"
    values = _values(kind.name, "mine")
    for file in ("plugin.py", "test_plugin.py"):
        template = files("jackfield.scaffold") / kind.name / f"{file}.txt"
        yield f"```python\n{_filled(template.read_text(encoding='utf-8'), values)}```\n\n"
    yield "## Known plugins\n\n"
    yield "Bundled: see `jackfield plugins list --kind "
    yield f"{singular(kind.name).replace('_', '-')}`. From third parties:\n\n"
    for each in known:
        yield f"* [{each['name']}]({each['url']}): {each['what']}\n"
    if not known:
        yield "* none is known yet; add yours to `docs/plugin-kinds/known.toml`\n"


def _members(contract: type[Any]) -> Iterator[str]:
    for name, annotation in contract.__annotations__.items():
        yield f"* `{name}`: `{annotation}`\n"
    if contract.__annotations__:
        yield "\n"
    for name, value in vars(contract).items():
        function = getattr(value, "__func__", value)
        if isinstance(function, property):
            function = function.fget
        # Protocols have functions of `typing` among their own.
        if not inspect.isfunction(function) or function.__module__ == "typing":
            continue
        said = inspect.getdoc(function) if function.__doc__ else None
        signature = str(inspect.signature(function)).replace("'", "")
        yield f"#### `{name}{signature}`\n\n"
        if said:
            yield f"{said}\n\n"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
