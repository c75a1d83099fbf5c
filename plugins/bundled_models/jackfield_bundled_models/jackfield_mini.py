"""``jackfield-mini``: eight million parameters that chat, call tools, write JSON and add."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar


class JackfieldMini:
    """Trained by ``tools/mini`` of the repository; docs/jackfield-mini.md is its card."""

    name: ClassVar[str] = "jackfield-mini"
    api_version: ClassVar[int] = 1
    tool_parser: ClassVar[str | None] = "hermes"
    reasoning_parser: ClassVar[str | None] = "qwen3"

    def directory(self) -> Path:
        return Path(__file__).parent / "checkpoints" / "jackfield-mini"
