"""From command-line words to settings: vLLM's spellings, and one line for what is wrong."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Sequence
from functools import cache
from typing import Any

from jackfield.config.foreign import FOREIGN_FLAGS, take_foreign
from jackfield.config.foreign_flag import ForeignFlag, Standing
from jackfield.config.foreign_variables import vllm_variables
from jackfield.config.line_parser import LineParser
from jackfield.config.settings import (
    GROUPS,
    Settings,
    config_file_notes,
    flag_of,
    flags_of,
    make_settings,
    unknown_variables,
    variable_of,
)
from jackfield.config.suggestion import did_you_mean
from jackfield.config.values import json_object, leveled_object, plain_type, shape_of
from jackfield.errors import ConfigError

_BOOLEANS = {"true": True, "false": False}


def parse_arguments(
    words: Sequence[str], prog: str = "jackfield serve"
) -> tuple[Settings, list[str]]:
    """The settings, and lines for the user about flags that have no effect.

    Prints the help and raises ``SystemExit`` for ``--help``; raises ``ConfigError`` for all
    that is wrong.
    """
    parser = make_parser(prog)
    plain, objects = _normalise(words)
    known, rest = parser.parse_known_args(plain)
    if rest:
        raise ConfigError(_unexpected(rest[0]))
    values = vars(known)
    notes = take_foreign(values)
    model = values.pop("model_positional", None)
    if model is not None:
        if values.get("model", model) != model:
            raise ConfigError(f"two models are named: {model} and --model {values['model']}")
        values["model"] = model
    for option, given in objects.items():
        values[option] = _merge(_object_of(option, values.get(option)), given)
    settings = make_settings(values)
    notes += config_file_notes(settings) + unknown_variables() + vllm_variables()
    return settings, notes


def make_parser(prog: str) -> argparse.ArgumentParser:
    """The parser that ``--help`` describes: a group of options for each class in ``GROUPS``."""
    parser = LineParser(
        prog=prog,
        usage=f"{prog} MODEL [options]",
        description="Dashes and underscores are the same; a switch is turned off by --no-NAME. "
        "Every option is an environment variable and a key of the config file too; the command "
        "line goes before the environment, the environment before the file.",
        argument_default=argparse.SUPPRESS,
        formatter_class=_HelpFormatter,
    )
    parser.add_argument("model_positional", nargs="?", metavar="MODEL", help=_field_help("model"))
    parser.add_argument("--config", metavar="FILE", help=_field_help("config"))
    for group in GROUPS:
        section = parser.add_argument_group(str(group.__doc__))
        for option in group.model_fields:
            _add_option(section, option)
    for flag, foreign in FOREIGN_FLAGS.items():
        _add_foreign(parser, flag, foreign)
    return parser


class _HelpFormatter(argparse.HelpFormatter):
    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=28, width=100)


def shown_default(option: str) -> str:
    """An option's default as it would be written; empty if there is none."""
    default = Settings.model_fields[option].get_default(call_default_factory=True)
    if default is None or default in ("", (), {}):
        return ""
    return " ".join(map(str, default)) if isinstance(default, tuple) else str(default)


def _add_option(section: argparse._ArgumentGroup, option: str) -> None:
    field = Settings.model_fields[option]
    shape = shape_of(field.annotation)
    more: dict[str, Any] = {"dest": option, "help": _field_help(option)}
    if shape == "switch":
        more["action"] = argparse.BooleanOptionalAction
    else:
        more["metavar"] = _metavar(field.annotation, option)
    if shape == "list":
        more |= {"action": "extend", "nargs": "+"}
    section.add_argument(*flags_of(option), **more)


def _add_foreign(parser: argparse.ArgumentParser, flag: str, foreign: ForeignFlag) -> None:
    option = flag.removeprefix("--").replace("-", "_")
    more: dict[str, Any] = {"dest": option, "help": argparse.SUPPRESS}
    if foreign.is_switch:
        more["action"] = argparse.BooleanOptionalAction
    else:
        # A flag that is refused whatever it says may be a list; the others have one value.
        is_refused = foreign.standing is not Standing.ACCEPTED and not foreign.harmless
        more["nargs"] = "*" if is_refused else 1
        if foreign.is_map:
            # Of dotted forms every one counts.
            more["action"] = "extend"
    parser.add_argument(flag, *foreign.short, **more)


def _metavar(annotation: Any, option: str) -> str:
    kind = plain_type(annotation)
    choices = getattr(kind, "__args__", ())
    if choices and all(isinstance(choice, str) for choice in choices):
        return "{" + ",".join(choices) + "}"
    if shape_of(annotation) == "object":
        return "JSON"
    names = {int: "N", float: "X"}
    return names.get(kind, option.rpartition("_")[2].upper())


def _field_help(option: str) -> str:
    default = shown_default(option)
    shown = f" = {default}" if default else ""
    text = f"{Settings.model_fields[option].description} [{variable_of(option)}{shown}]"
    return text.replace("%", "%%")


# --- spellings -------------------------------------------------------------------------


def _normalise(words: Sequence[str]) -> tuple[list[str], dict[str, dict[str, Any]]]:
    """Words that argparse understands, and what was said in dotted form, by option."""
    plain: list[str] = []
    objects: dict[str, dict[str, Any]] = {}
    waiting = list(words)
    while waiting:
        word = _long_form(waiting.pop(0))
        if not word.startswith("--") or word == "--":
            plain.append(word)
            continue
        name, equals, value = word.partition("=")
        base, dot, path = name.partition(".")
        flag = base.replace("_", "-")
        option = flag.removeprefix("--").replace("-", "_")
        if dot and _is(option, "object"):
            if not equals and (not waiting or waiting[0].startswith("--")):
                raise ConfigError(f"{name} needs a value")
            value = value if equals else waiting.pop(0)
            _put(objects.setdefault(option, {}), path.split("."), value, name)
        elif dot and flag in FOREIGN_FLAGS:
            plain += [flag, *([value] if equals else [])]
        elif not dot and _is(option, "switch"):
            plain.append(_switch(flag, value if equals else None, waiting))
        else:
            plain.append(f"{flag}{dot}{path}{equals}{value}")
    return plain, objects


def _long_form(word: str) -> str:
    """``-cc.key`` and ``-sc=1`` by the long name of their flag; any other word as it is."""
    short = re.split("[.=]", word, maxsplit=1)[0]
    return _long_flags().get(short.replace("_", "-"), short) + word[len(short) :]


@cache
def _long_flags() -> dict[str, str]:
    """Every short spelling and the flag it is one of."""
    found = {short: flag for flag, each in FOREIGN_FLAGS.items() for short in each.short}
    for option in Settings.model_fields:
        found |= dict.fromkeys(flags_of(option), flag_of(option))
    return found


def _is(option: str, shape: str) -> bool:
    field = Settings.model_fields.get(option)
    if field is None:
        foreign = FOREIGN_FLAGS.get(flag_of(option))
        return shape == "switch" and foreign is not None and foreign.is_switch
    return shape_of(field.annotation) == shape


def _switch(flag: str, value: str | None, waiting: list[str]) -> str:
    """``--x=false`` and ``--x false``, as older versions of vLLM have it, are ``--no-x``."""
    if value is None and waiting and waiting[0].lower() in _BOOLEANS:
        value = waiting.pop(0)
    if value is None:
        return flag
    if value.lower() not in _BOOLEANS:
        raise ConfigError(f"{flag} is a switch; it takes no value but true or false, not {value!r}")
    return flag if _BOOLEANS[value.lower()] else flag.replace("--", "--no-", 1)


def _put(target: dict[str, Any], path: list[str], text: str, name: str) -> None:
    for key in path[:-1]:
        target = target.setdefault(key, {})
        if not isinstance(target, dict):
            raise ConfigError(f"{name}: {key} has the value {target!r}, and so no keys")
    last = path[-1]
    if not last.endswith("+"):
        target[last] = _json_or_text(text)
        return
    items = target.setdefault(last[:-1], [])
    if not isinstance(items, list):
        raise ConfigError(f"{name}: {last[:-1]} has the value {items!r}, which is no list")
    whole = _json_or_text(text)
    items += map(_json_or_text, text.split(",")) if whole == text else [whole]


def _json_or_text(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _object_of(option: str, text: str | None) -> dict[str, Any]:
    """What the flag says without dots."""
    read = leveled_object if option == "compilation_config" else json_object
    try:
        value = read(text) if text is not None else {}
    except ValueError as error:
        raise ConfigError(f"{flag_of(option)} is refused: {error}") from None
    if not isinstance(value, dict):
        raise ConfigError(f"{flag_of(option)} is no JSON object: {text}")
    return value


def _merge(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    merged = dict(old)
    for key, value in new.items():
        inner = merged.get(key)
        if isinstance(inner, dict) and isinstance(value, dict):
            merged[key] = _merge(inner, value)
        elif isinstance(inner, list) and isinstance(value, list):
            merged[key] = [*inner, *value]
        else:
            merged[key] = value
    return merged


def _unexpected(word: str) -> str:
    if not word.startswith("-"):
        return f"unexpected argument {word!r}; there is one MODEL, and options begin with --"
    flag = word.partition("=")[0]
    known = [*map(flag_of, Settings.model_fields), *FOREIGN_FLAGS]
    if flag.startswith("--no-"):
        switches = [name for name in known if _is(name[2:].replace("-", "_"), "switch")]
        known = [name.replace("--", "--no-", 1) for name in switches]
    return f"unknown option {flag}{did_you_mean(flag, known, quote='')}"
