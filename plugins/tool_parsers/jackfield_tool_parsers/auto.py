"""Choosing a tool parser by what the checkpoint says of itself."""

from __future__ import annotations

from typing import ClassVar

from jackfield.contracts.text import CheckpointText
from jackfield_tool_parsers.formats import all_formats
from jackfield_tool_parsers.response_template import has_calls


class AutoToolParser:
    """The checkpoint's ``response_template`` first, then its chat template, then its
    architecture."""

    name: ClassVar[str] = "auto"
    api_version: ClassVar[int] = 1

    @classmethod
    def choose(cls, checkpoint: CheckpointText) -> str | None:
        if has_calls(checkpoint.response_template):
            return "hf"
        found = _by_template(checkpoint.chat_template or "")
        architectures = set(checkpoint.architectures)
        of_architecture = [
            each.name
            for each in all_formats().values()
            if architectures & set(each.detect.architectures)
        ]
        # One format of several families: the architecture tells which name is the model's.
        both = [name for name in found if name in of_architecture]
        return next(iter([*both, *found, *of_architecture]), None)


def _by_template(template: str) -> list[str]:
    """The formats whose texts are in the template, those with the most telling ones first."""
    fitting = [each for each in all_formats().values() if each.detect.fits(template)]
    fitting.sort(key=lambda each: -sum(map(len, each.detect.template)))
    return [each.name for each in fitting]
