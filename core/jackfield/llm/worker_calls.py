"""Calls of workers' methods as messages: what may be passed, and what came back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from jackfield.contracts.messages import CallAnswer, CallWorkers
from jackfield.errors import RequestError


def call_message(
    method: object, args: Sequence[object], kwargs: Mapping[str, object]
) -> CallWorkers:
    """``RequestError`` for what cannot be sent to another process."""
    if not isinstance(method, str):
        raise RequestError(
            f"method is the name of a worker's method, not a {type(method).__name__}: no code is "
            "sent to the workers; write a class that has the method, and name it with "
            "--worker-extension-cls",
            param="method",
        )
    return CallWorkers(method, _plain(list(args), "args"), _plain(dict(kwargs), "kwargs"))


def _plain(values: object, param: str) -> bytes:
    try:
        return msgspec.msgpack.encode(values)
    except (TypeError, ValueError, OverflowError) as error:
        raise RequestError(
            f"{param} are plain values (None, numbers, text, bytes, lists, maps): {error}",
            param=param,
        ) from None


def results_of(answer: CallAnswer) -> list[object]:
    """A value a worker; ``RequestError`` where there is none."""
    if answer.message is not None:
        raise RequestError(answer.message, param="method" if answer.is_refused else None)
    results: list[object] = msgspec.msgpack.decode(answer.results)
    return results
