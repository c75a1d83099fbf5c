"""docs/plugin-kinds: a page a kind, made of the contracts."""

from __future__ import annotations

import tomllib
from pathlib import Path

from jackfield.cli.plugins.pages import pages, read_known
from jackfield.registry import KINDS

DOCS = Path(__file__).parents[2] / "docs"
FOLDER = DOCS / "plugin-kinds"


def test_the_pages_are_up_to_date() -> None:
    made = pages(read_known(FOLDER))
    there = {path.name: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.md")}
    remedy = "run: python -m jackfield.cli.plugins.pages docs/plugin-kinds"
    assert made.keys() == there.keys(), remedy
    for name, text in made.items():
        assert text == there[name], f"{name}: {remedy}"


def test_known_plugins_are_of_a_kind_and_have_an_address() -> None:
    known = tomllib.loads((FOLDER / "known.toml").read_text())
    assert known.keys() <= KINDS.keys()
    for each in (entry for entries in known.values() for entry in entries):
        assert each.keys() == {"name", "url", "what"}
        if not each["url"].startswith("https://"):
            assert (FOLDER / each["url"]).is_dir()


def test_every_kind_stands_in_the_changes_of_the_contracts() -> None:
    text = (DOCS / "contract-changes.md").read_text(encoding="utf-8")
    versions = {version for kind in KINDS.values() for version in kind.api_versions}
    assert versions == {1} and "All contracts are version 1." in text
