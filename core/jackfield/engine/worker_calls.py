"""Methods of the workers, called from outside by name."""

from __future__ import annotations

import logging
from typing import Any

import msgspec

from jackfield.contracts.messages import CallAnswer, CallWorkers
from jackfield.contracts.work import CallsWorkers, Executor
from jackfield.engine.channel import MAX_FRAME_BYTES
from jackfield.errors import RAISED, RequestError

log = logging.getLogger(__name__)

MAX_RESULT_BYTES = MAX_FRAME_BYTES - 1024
"""Of all workers; a message holds no more."""


def answer_call(executor: Executor, message: CallWorkers) -> CallAnswer:
    """Calls the method on every worker. What it raises, or returns and cannot be sent, is its
    caller's affair: the engine goes on."""
    if not isinstance(executor, CallsWorkers):
        text = f"executor {executor.name!r} calls no methods of its workers"
        return CallAnswer(message=text, is_refused=True)
    args: list[Any] = msgspec.msgpack.decode(message.args)
    kwargs: dict[str, Any] = msgspec.msgpack.decode(message.kwargs)
    try:
        results = executor.collective_rpc(message.method, None, args, kwargs)
    except RequestError as error:
        return CallAnswer(message=error.message, is_refused=True)
    except RAISED as error:
        log.exception("method %s of a worker failed", message.method)
        return CallAnswer(message=f"{message.method} raised {type(error).__name__}: {error}")
    try:
        encoded = msgspec.msgpack.encode(results)
    except (TypeError, ValueError, OverflowError) as error:
        return CallAnswer(
            message=f"{message.method} was called, but returned what is no plain value "
            f"(None, numbers, text, bytes, lists, maps): {error}"
        )
    if len(encoded) > MAX_RESULT_BYTES:
        return CallAnswer(
            message=f"{message.method} was called, but returned {len(encoded)} bytes, more than "
            f"{MAX_RESULT_BYTES}"
        )
    return CallAnswer(encoded)
