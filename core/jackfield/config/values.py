"""How option values are written: human integers, JSON objects, lists; the same in every source."""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict, PositiveInt

# vLLM's rule: a small letter counts in thousands, a capital in powers of 1024.
_SUFFIXES = {
    "k": 10**3,
    "m": 10**6,
    "g": 10**9,
    "t": 10**12,
    "K": 2**10,
    "M": 2**20,
    "G": 2**30,
    "T": 2**40,
}
_LEAST_BYTES = 1 << 20
_NUMBER = re.compile(r"\s*(-?\d+(?:\.\d+)?)([kmgtKMGT])\s*")


def human_integer(value: object) -> object:
    """``32k`` is 32,000 and ``32K`` is 32,768; anything else is left to the validator."""
    if not isinstance(value, str) or (match := _NUMBER.fullmatch(value)) is None:
        return value
    number, suffix = match.groups()
    if "." in number and suffix.isupper():
        raise ValueError(f"{value} has a fraction of {suffix}; write {number}{suffix.lower()}")
    # What a float has behind the sixth place is its own: 2.01k is 2009.9999999999998.
    product = round(float(number) * _SUFFIXES[suffix], 6)
    if not product.is_integer():
        raise ValueError(f"{value} is not a whole number")
    return int(product)


def automatic(value: object) -> object:
    """``auto`` and ``-1`` say what no value says."""
    return None if value in ("auto", "-1", -1) else value


def json_object(value: object) -> object:
    """A JSON object as text."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError as error:
        raise ValueError(f"not a JSON object ({error})") from None


def leveled_object(value: object) -> object:
    """A JSON object, or a level: ``3`` is ``{"level": 3}``."""
    if isinstance(value, str):
        value = json_object(value)
    return {"level": value} if isinstance(value, int) else value


def string_list(value: object) -> object:
    """A JSON list as text, one value, or a list of either."""
    items = [value] if isinstance(value, str | int) else value
    if not isinstance(items, list | tuple):
        return items
    flat: list[object] = []
    for item in items:
        parsed = _json_list(item) if isinstance(item, str) else None
        flat.extend([item] if parsed is None else parsed)
    return tuple(flat)


def _json_list(text: str) -> list[object] | None:
    if not text.lstrip().startswith("["):
        return None
    try:
        value = json.loads(text)
    except ValueError as error:
        raise ValueError(f"not a JSON list ({error})") from None
    return value if isinstance(value, list) else None


def memory_share(value: object) -> object:
    """``0.9`` is a share, ``20G`` and what is above 1 are bytes."""
    value = human_integer(value)
    try:
        number = float(value)  # type: ignore[arg-type]  # what is no number goes to the validator
    except (TypeError, ValueError):
        return value
    if 1 < number < _LEAST_BYTES:
        raise ValueError(f"{value} is neither a share up to 1 nor {_LEAST_BYTES >> 20} MiB or more")
    return value


HumanInt = Annotated[int, BeforeValidator(human_integer)]
Length = Annotated[PositiveInt, BeforeValidator(human_integer)]
AutoLength = Annotated[Length | None, BeforeValidator(automatic)]
MemoryShare = Annotated[float, BeforeValidator(memory_share)]
JsonObject = Annotated[dict[str, Any], BeforeValidator(json_object)]
CompilationConfig = Annotated[dict[str, Any], BeforeValidator(leveled_object)]
StringList = Annotated[tuple[str, ...], BeforeValidator(string_list)]
IntList = Annotated[tuple[PositiveInt, ...], BeforeValidator(string_list)]

Shape = Literal["switch", "list", "object", "value"]


class OptionGroup(BaseModel):
    """Options of one subject; the docstring is the title in ``--help``. Only ``Settings``, which
    has all of them, is ever validated: groups alone need no validators."""

    model_config = ConfigDict(defer_build=True)


class Spelling:
    """Further spellings of an option's flag: ``Annotated[str, Spelling("-q")]``."""

    def __init__(self, *flags: str) -> None:
        self.flags = flags


def plain_type(annotation: Any) -> Any:
    """The type inside ``Annotated[...]`` and ``... | None``."""
    if get_origin(annotation) is Annotated:
        return plain_type(get_args(annotation)[0])
    inner = [each for each in get_args(annotation) if each is not type(None)]
    if len(inner) == 1 and len(get_args(annotation)) == 2 and get_origin(annotation) is not tuple:
        return plain_type(inner[0])
    return annotation


def shape_of(annotation: Any) -> Shape:
    """How an option of this type is written on a command line."""
    kind = plain_type(annotation)
    if kind is bool:
        return "switch"
    if get_origin(kind) is tuple:
        return "list"
    return "object" if get_origin(kind) is dict else "value"
