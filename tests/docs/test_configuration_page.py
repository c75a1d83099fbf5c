"""docs/configuration.md is what ``jackfield.config.reference`` makes of the options."""

from __future__ import annotations

from pathlib import Path

from jackfield.config.foreign import FOREIGN_FLAGS
from jackfield.config.reference import page
from jackfield.config.settings import Settings, flag_of, variable_of

PAGE = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text(encoding="utf-8")


def test_the_page_is_up_to_date() -> None:
    assert "".join(page()) == PAGE, "run: python -m jackfield.config.reference > docs/..."


def test_the_page_names_every_flag_and_variable() -> None:
    for option in Settings.model_fields:
        assert f"`{flag_of(option)}`" in PAGE and f"`{variable_of(option)}`" in PAGE
    for flag in FOREIGN_FLAGS:
        assert f"`{flag}`" in PAGE
