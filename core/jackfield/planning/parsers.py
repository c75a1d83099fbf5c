"""Which parsers read the output: the ones that were named, or what the model suggests."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from jackfield import checkpoint
from jackfield.checkpoint.reading import read_text
from jackfield.config.paths import given_path
from jackfield.config.settings import Settings
from jackfield.contracts.text import CheckpointText, ParserContext
from jackfield.errors import ConfigError
from jackfield.planning.model import ModelFiles
from jackfield.registry import KINDS, Registry


def checkpoint_text(settings: Settings, files: ModelFiles) -> CheckpointText:
    """What the checkpoint, and the template that was given instead of its own, say of the text."""
    config = checkpoint.read_optional_json(files.tokenizer / "tokenizer_config.json")
    said = config.get("response_template")
    names = files.config.get("architectures")
    return CheckpointText(
        chat_template=_with_tools(settings.chat_template, files.tokenizer, config),
        response_template=said if isinstance(said, Mapping) else None,
        architectures=tuple(map(str, names)) if isinstance(names, list) else (),
    )


def choose_tool_parser(
    settings: Settings, files: ModelFiles, text: CheckpointText, registry: Registry
) -> str | None:
    """The tool parser's name; ``ConfigError`` where ``auto`` finds nothing."""
    own = None if files.bundled is None else files.bundled.tool_parser
    name = _choose("tool_parsers", settings.tool_call_parser or own, text, registry)
    if name is None and settings.tool_call_parser is not None:
        raise ConfigError(
            f"--tool-call-parser {settings.tool_call_parser}: neither the chat template nor the "
            "architecture of the model tells how it calls tools; name a parser (jackfield plugins "
            "list --kind tool_parsers shows them), or leave the option out"
        )
    return name


def choose_reasoning_parser(
    settings: Settings, files: ModelFiles, text: CheckpointText, registry: Registry
) -> str | None:
    """The reasoning parser's name; None also where ``auto`` finds no sign of thinking."""
    own = None if files.bundled is None else files.bundled.reasoning_parser
    return _choose("reasoning_parsers", settings.reasoning_parser or own, text, registry)


def _choose(kind: str, name: str | None, text: CheckpointText, registry: Registry) -> str | None:
    """Loads the parser, as parsers are small, and asks it where it stands for others. One is made:
    what it cannot follow in the checkpoint is said at the start."""
    if name is None:
        return None
    choose = getattr(registry.load(kind, name), "choose", None)
    if choose is None:
        registry.make(kind, name, ParserContext(checkpoint=text))
        return name
    chosen: object = choose(text)
    if chosen is None:
        return None
    if not isinstance(chosen, str):
        raise ConfigError(f"{KINDS[kind].flag} {name} chose {chosen!r:.60}, which is no name")
    registry.make(kind, chosen, ParserContext(checkpoint=text))
    return chosen


def _with_tools(given: str | None, folder: Path, config: Mapping[str, object]) -> str | None:
    """The source of the template that requests with tools get."""
    own = checkpoint.read_chat_template(folder, config)
    if given is not None and "{" in given:
        return given
    if given is not None and (path := given_path(given)).is_file():
        return read_text(path)
    if own is None or isinstance(own, str):
        return own
    return own.get(given or "tool_use") or own.get("default")
