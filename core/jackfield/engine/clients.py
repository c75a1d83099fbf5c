"""Who talks to the engine: its parent, and API processes that share it.

A client owns the keys whose upper bits are its number, so that every key says whose it is: the
parent is number 0, others say theirs when they join. What a step made goes out in one message for
each client that has a part in it.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import suppress

import msgspec
import numpy as np

from jackfield.contracts.messages import (
    AddRequest,
    CallAnswer,
    EngineReady,
    FromEngine,
    SleepState,
    StepTokens,
    StopEngine,
    ToEngine,
)
from jackfield.engine.channel import EngineChannel, JoinEngine, StartEngine, wait_for_any
from jackfield.errors import EngineError

log = logging.getLogger(__name__)

KEY_BITS = 40
"""Bits of a key that count a client's requests; the others are the client's number."""
PARENT = 0

Message = ToEngine | StartEngine | JoinEngine
Channel = EngineChannel[Message]


def first_key(client: int) -> int:
    """The lowest key of a client's requests; it counts up from there."""
    return (client << KEY_BITS) + 1


class Clients:
    """The connections of an engine that serves. Nothing but ``wait`` blocks."""

    def __init__(self, parent: Channel, path: str | None, ready: EngineReady) -> None:
        """``path``: where others may connect; None where the parent is the only client."""
        self._parent = parent
        self._others: dict[int, Channel] = {}
        self._joining: list[Channel] = []
        self._ready = ready
        self._sleep_state: SleepState | None = None
        self._listener = None if path is None else _listen(path)
        self.gone: list[int] = []
        """Clients that have left; whoever ends their requests clears it."""
        # Only now: where the parent says that there is an engine, others connect.
        parent.send(ready)

    @property
    def closed(self) -> bool:
        """Whether the parent is gone; the others cannot go on without it."""
        return self._parent.closed

    def poll(self) -> list[tuple[int, Message]]:
        """The messages that have come, each with its client's number."""
        messages = [(PARENT, message) for message in self._parent.poll()]
        if self._listener is None:
            return messages
        self._accept(self._listener)
        for channel in list(self._joining):
            self._greet(channel)
        for number, channel in list(self._others.items()):
            messages += [(number, message) for message in self._read(number, channel)]
            if channel.closed:
                self._forget(number)
        return messages

    def wait(self, timeout_seconds: float | None = None) -> None:
        """Sleeps until something can be read, or what is kept can be sent."""
        if self._listener is None:
            self._parent.wait(timeout_seconds)
        else:
            channels = [self._parent, *self._joining, *self._others.values()]
            wait_for_any(channels, self._listener, timeout_seconds)

    def send_step(self, step: StepTokens) -> None:
        """Gives every client its part of a step; statistics go to all."""
        if self._listener is None:
            self._parent.send(step)
            return
        for number, part in split(step):
            self._send(number, part)
        if step.stats is not None:
            keys = np.frombuffer(step.keys, dtype="<i8")
            told = set((keys >> KEY_BITS).tolist())
            for number in (PARENT, *self._others):
                if number not in told:
                    self._send(number, StepTokens(stats=step.stats))

    def send_sleep_state(self, client: int, state: SleepState) -> None:
        """Answers the client that asked, and tells the others."""
        self._sleep_state = notice = msgspec.structs.replace(state, is_answer=False, message=None)
        for number in (PARENT, *self._others):
            self._send(number, state if number == client else notice)

    def send_answer(self, client: int, answer: CallAnswer) -> None:
        """Answers the client that asked."""
        self._send(client, answer)

    def drain(self, timeout_seconds: float) -> None:
        """Waits until everything is sent, or time is up."""
        for channel in (self._parent, *self._others.values()):
            channel.drain(timeout_seconds)

    def _send(self, number: int, message: FromEngine) -> None:
        channel = self._parent if number == PARENT else self._others.get(number)
        # A client that has left gets nothing: its requests are about to be ended.
        if channel is not None:
            channel.send(message)

    def _accept(self, listener: socket.socket) -> None:
        with suppress(BlockingIOError):
            connection, _ = listener.accept()
            self._joining.append(EngineChannel(connection, Message))

    def _greet(self, channel: Channel) -> None:
        """Somebody has connected: is it a client, and which?"""
        try:
            messages = channel.poll()
            if messages:
                self._join(channel, messages)
            elif channel.closed:
                channel.close()
            else:
                return
        except EngineError as error:
            log.warning("a process is not taken for a client: %s", error)
            channel.close()
        self._joining.remove(channel)

    def _join(self, channel: Channel, messages: list[Message]) -> None:
        first, *more = messages
        if not isinstance(first, JoinEngine) or more:
            raise EngineError("it does not say who it is and wait for the engine's answer")
        if first.client in (PARENT, *self._others):
            raise EngineError(f"client {first.client} is there already")
        self._others[first.client] = channel
        channel.send(self._ready)
        if self._sleep_state is not None:
            channel.send(self._sleep_state)

    def _read(self, number: int, channel: Channel) -> list[Message]:
        """What a client says that is not the parent; nothing if some of it is wrong."""
        try:
            messages = channel.poll()
            for message in messages:
                _check(number, message)
        except EngineError as error:
            log.warning("client %d is disconnected: %s", number, error)
            channel.close()
            return []
        return messages

    def _forget(self, number: int) -> None:
        self._others.pop(number).close()
        self.gone.append(number)


def _check(number: int, message: Message) -> None:
    if isinstance(message, StartEngine | JoinEngine | StopEngine):
        raise EngineError(f"{type(message).__name__} is not for it to say")
    if isinstance(message, AddRequest) and message.key >> KEY_BITS != number:
        raise EngineError(f"key {message.key} is not its own")


def split(step: StepTokens) -> Iterator[tuple[int, StepTokens]]:
    """The parts of a step by client; one array operation a client and column."""
    keys = np.frombuffer(step.keys, dtype="<i8")
    owners = keys >> KEY_BITS
    if not len(owners):
        return
    first = int(owners[0])
    if (owners == first).all():
        yield first, step
        return
    for owner in np.unique(owners).tolist():
        mine = owners == owner
        yield (
            owner,
            StepTokens(
                keys=keys[mine].tobytes(),
                token_ids=_of(step.token_ids, "<i4", mine),
                finish=_of(step.finish, np.int8, mine),
                num_cached=_of(step.num_cached, "<i4", mine),
                scheduled=_of(step.scheduled, "<f8", mine),
                logprobs=[each for each in step.logprobs if each.key >> KEY_BITS == owner],
                failed=[each for each in step.failed if each.key >> KEY_BITS == owner],
                pooled=[each for each in step.pooled if each.key >> KEY_BITS == owner],
                stats=step.stats,
            ),
        )


def _of(column: bytes, dtype: str | type[np.int8], mine: np.ndarray) -> bytes:
    return np.frombuffer(column, dtype=dtype)[mine].tobytes() if column else b""


def _listen(path: str) -> socket.socket:
    """In a directory that only this user can enter."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(path)
    os.chmod(path, 0o600)
    listener.listen()
    listener.setblocking(False)
    return listener
