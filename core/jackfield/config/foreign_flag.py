"""What becomes of a flag of another engine that is no option here."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import partial

from jackfield.errors import ConfigError

# Reasons of many flags, older and newer.
PARALLEL = "more than one device"
ONE_DEVICE = "one device serves the model"
MEDIA = "multimodal models"
NO_MEDIA = "requests with media are refused"
ABOUT_LORA = "it is about LoRA adapters, for which --enable-lora would ask"


class Standing(Enum):
    """What becomes of a flag that is no option."""

    LATER = "not built yet"
    REFUSED = "refused"
    ACCEPTED = "accepted"


@dataclass(frozen=True, slots=True)
class ForeignFlag:
    """``reason`` is the feature that it belongs to, or why there is no such option; ``instead``
    is what to do now. Values in ``harmless`` ask for what is so anyway and are taken. With
    ``is_switch`` it has no value; with ``is_map`` the value is an object, of which each value has
    to be harmless."""

    standing: Standing
    reason: str
    instead: str = "leave it out"
    is_switch: bool = False
    is_map: bool = False
    harmless: tuple[str, ...] = ()
    short: tuple[str, ...] = ()

    def note(self, place: str, value: object) -> str | None:
        """Refuses what a place (a flag, a variable, a line of a file) says, or returns the line
        to print about it, if one is due."""
        if value is None or (self.is_switch and _is_off(value)):
            return None
        values = value if isinstance(value, list | tuple) else [value]
        if values and all(map(self._is_harmless, values)):
            return None
        if self.standing is Standing.ACCEPTED:
            return f"{place} has no effect: {self.reason}; {self.instead}"
        raise ConfigError(f"{place} is {self.standing.value}: {self.reason}; {self.instead}")

    def _is_harmless(self, value: object) -> bool:
        taken = ("", *self.harmless)
        inner = _values_of(value) if self.is_map else [value]
        return all(str(each).strip().lower() in taken for each in inner)


def flag_table(
    standing: Standing,
    reason: str,
    names: str,
    instead: str = "leave it out",
    *,
    is_switch: bool = False,
    is_map: bool = False,
    harmless: str = "",
) -> dict[str, ForeignFlag]:
    """The same for each of ``names``; ``-x/name`` has another spelling too."""
    taken = tuple(harmless.split())
    found = {}
    for each in names.split():
        *short, name = each.split("/")
        found[f"--{name}"] = ForeignFlag(
            standing, reason, instead, is_switch, is_map, taken, tuple(short)
        )
    return found


later = partial(flag_table, Standing.LATER)
accepted = partial(flag_table, Standing.ACCEPTED, is_switch=True)
accepted_value = partial(flag_table, Standing.ACCEPTED)
refused = partial(flag_table, Standing.REFUSED)


def _values_of(value: object) -> Iterator[object]:
    """Of an object, of JSON, of ``image=0,video=0``; what is none of these is the value itself,
    as it is behind a dotted flag."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            value = dict(enumerate(each.rpartition("=")[2] for each in str(value).split(",")))
    if isinstance(value, Mapping):
        yield from value.values()
    else:
        yield value


def _is_off(value: object) -> bool:
    return str(value).strip().lower() in ("false", "0", "no", "off")
