"""Options that a plugin declares: a class ``Options`` inside the plugin class.

``Options`` is a frozen dataclass or a pydantic model. ``--plugin-option NAME.key=value`` sets a
field; the plugin's constructor gets the whole as the keyword argument ``options``.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from jackfield.config.suggestion import did_you_mean
from jackfield.errors import BrokenPluginError, ConfigError

FLAG = "--plugin-option"


@dataclasses.dataclass(frozen=True, slots=True)
class OptionHelp:
    """One option as ``serve --help=plugin:NAME`` shows it; ``default`` None: it must be given."""

    name: str
    type: str
    default: str | None
    help: str


def options_class(found: type[Any]) -> type[Any] | None:
    """The options that a plugin class declares; None where it has none."""
    declared: type[Any] | None = getattr(found, "Options", None)
    return declared


def make_options(who: str, found: type[Any], values: Mapping[str, object]) -> object | None:
    """The plugin's ``Options`` from what the user said; None where it declares none.

    Raises ``ConfigError`` for an unknown option, a wrong value and one that is missing;
    ``BrokenPluginError`` where ``Options`` is no class of options. ``who`` begins each message.
    """
    declared = options_class(found)
    if declared is None:
        if values:
            raise ConfigError(f"{who} takes no options; leave {FLAG} {next(iter(values))} out")
        return None
    known = [option.name for option in describe_options(who, found)]
    for name in values:
        if name not in known:
            raise ConfigError(
                f"{who} has no option {name!r}{did_you_mean(name, known)} "
                f"(options: {', '.join(known) or 'none'})"
            )
    # Costs a tenth of a second, and most plugins have no options.
    from pydantic import TypeAdapter, ValidationError

    try:
        given = {name: _structured(value) for name, value in values.items()}
        options: object = TypeAdapter(declared).validate_python(given)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or declared.__name__
        message = first["msg"].removeprefix("Value error, ")
        if first["type"].startswith("missing"):
            raise ConfigError(f"{who} needs {FLAG} NAME.{place}=VALUE") from None
        raise ConfigError(
            f"{who}: {FLAG} {place} is refused: {message[:1].lower()}{message[1:]}, "
            f"not {first['input']!r:.80}"
        ) from None
    return options


def describe_options(who: str, found: type[Any]) -> list[OptionHelp]:
    """What the plugin class can be told; empty where it declares no options."""
    declared = options_class(found)
    if declared is None:
        return []
    if dataclasses.is_dataclass(declared):
        return [_of_dataclass(field) for field in dataclasses.fields(declared) if field.init]
    fields = getattr(declared, "model_fields", None)
    if not isinstance(fields, Mapping):
        raise BrokenPluginError(
            f"{who} is broken: its Options is neither a dataclass nor a pydantic model"
        )
    return [_of_model(name, field) for name, field in fields.items()]


def _of_dataclass(field: dataclasses.Field[Any]) -> OptionHelp:
    default: str | None = None
    if field.default is not dataclasses.MISSING:
        default = repr(field.default)
    elif field.default_factory is not dataclasses.MISSING:
        default = repr(field.default_factory())
    return OptionHelp(
        field.name, _type_name(field.type), default, str(field.metadata.get("help", ""))
    )


def _of_model(name: str, field: Any) -> OptionHelp:
    default = None if field.is_required() else repr(field.get_default(call_default_factory=True))
    return OptionHelp(name, _type_name(field.annotation), default, field.description or "")


def _type_name(annotation: Any) -> str:
    return annotation.__name__ if isinstance(annotation, type) else str(annotation)


def _structured(value: object) -> object:
    """A list or an object is written as JSON; any other text is left to the type of its field."""
    if not isinstance(value, str) or value[:1] not in ("[", "{"):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value
