"""The logits processors that a request names, as the server's pattern allows them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from jackfield.contracts.sampling import ProcessorCall
from jackfield.errors import RequestError

FIELD = "logits_processors"
MAX_NAME = 256


def processor_calls(named: Sequence[object], pattern: str | None) -> tuple[ProcessorCall, ...]:
    """Each is a name, or vLLM's object ``{"qualname": name, "kwargs": {...}}``; ``RequestError``
    for another form and for a name that the whole of ``pattern`` does not match."""
    return tuple(_call(each, pattern) for each in named)


def _call(given: object, pattern: str | None) -> ProcessorCall:
    arguments: object = {}
    name = given
    if isinstance(given, Mapping):
        unknown = given.keys() - {"qualname", "kwargs", "args"}
        if unknown or given.get("args"):
            raise RequestError(
                f"{FIELD}: an object has 'qualname' and 'kwargs', nothing else", param=FIELD
            )
        name, arguments = given.get("qualname"), given.get("kwargs") or {}
    if not isinstance(name, str) or not isinstance(arguments, dict):
        raise RequestError(
            f"{FIELD} must be names, or objects with 'qualname' and 'kwargs'", param=FIELD
        )
    if pattern is None:
        raise RequestError(
            f"this server lets no request name {FIELD} (--logits-processor-pattern)", param=FIELD
        )
    if len(name) > MAX_NAME or re.fullmatch(pattern, name) is None:
        raise RequestError(f"this server does not allow the logits processor {name!r:.100}", FIELD)
    return ProcessorCall(name, arguments)
