"""The table of dependencies says what pyproject.toml says, and keeps to the bound."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_dependency_has_its_reason() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = {re.split(r"[^a-z0-9-]", name)[0] for name in project["dependencies"]}
    text = (ROOT / "docs" / "dependencies.md").read_text()
    assert declared == set(re.findall(r"^\| `([a-z0-9-]+)` \|", text, re.M))


def test_there_are_at_most_eighteen() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert len(project["dependencies"]) <= 18
