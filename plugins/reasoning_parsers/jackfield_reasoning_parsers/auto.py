"""Choosing a reasoning parser by what the checkpoint says of itself."""

from __future__ import annotations

from typing import ClassVar

from jackfield.contracts.text import CheckpointText
from jackfield_reasoning_parsers.bundled import FORMATS
from jackfield_reasoning_parsers.response_template import has_thinking


class AutoReasoningParser:
    """The checkpoint's ``response_template`` first, then its chat template, then its architecture;
    a checkpoint that shows no sign of thinking gets none."""

    name: ClassVar[str] = "auto"
    api_version: ClassVar[int] = 1

    @classmethod
    def choose(cls, checkpoint: CheckpointText) -> str | None:
        if has_thinking(checkpoint.response_template):
            return "hf"
        template = checkpoint.chat_template
        if template is not None:
            for each in FORMATS:
                if each.detect.fits(template):
                    return each.name
            return None
        for each in FORMATS:
            if set(each.detect.architectures) & set(checkpoint.architectures):
                return each.name
        return None
