from __future__ import annotations

import itertools
import socket
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jackfield.contracts.messages import (
    AbortRequests,
    AddRequest,
    FromEngine,
    ResetPrefixCache,
    StepTokens,
    StopEngine,
    ToEngine,
)
from jackfield.contracts.sampling import TokenSampling
from jackfield.engine.channel import (
    MAX_FRAME_BYTES,
    EngineChannel,
    FrameDecoder,
    FrameEncoder,
)
from jackfield.errors import EngineError

MESSAGES: list[ToEngine] = [
    AddRequest(3, b"\x01\x00\x00\x00", TokenSampling(stop_token_ids=(1, 2)), 5, 1.5, -2, "salt"),
    AbortRequests([1, 2, 3]),
    ResetPrefixCache(),
    StopEngine(),
]


def pair() -> tuple[EngineChannel[ToEngine], socket.socket]:
    ours, theirs = socket.socketpair()
    return EngineChannel(ours, ToEngine), theirs


@given(cuts=st.lists(st.integers(0, 200), max_size=12))
def test_any_split_gives_the_same_messages(cuts: list[int]) -> None:
    encoder = FrameEncoder()
    data = b"".join(bytes(encoder.encode(message)) for message in MESSAGES)
    decoder: FrameDecoder[ToEngine] = FrameDecoder(ToEngine)
    found: list[ToEngine] = []
    edges = [0, *sorted(cuts), len(data)]
    for start, end in itertools.pairwise(edges):
        found += decoder.feed(data[start:end])
    assert found == MESSAGES


def test_an_oversized_frame_is_refused_before_it_is_read() -> None:
    decoder: FrameDecoder[ToEngine] = FrameDecoder(ToEngine)
    with pytest.raises(EngineError, match="longer"):
        decoder.feed((MAX_FRAME_BYTES + 1).to_bytes(4, "little"))


@pytest.mark.parametrize("body", [b"", b"\xc1", b"\x81\xa4type\xa6nobody", b"\x93\x01\x02\x03"])
def test_what_is_no_message_is_refused(body: bytes) -> None:
    decoder: FrameDecoder[ToEngine] = FrameDecoder(ToEngine)
    with pytest.raises(EngineError, match="cannot be read"):
        decoder.feed(len(body).to_bytes(4, "little") + body)


def test_poll_returns_at_once_and_gives_what_has_come() -> None:
    channel, theirs = pair()
    assert channel.poll() == []
    for message in MESSAGES:
        theirs.sendall(FrameEncoder().encode(message))
    assert channel.poll() == MESSAGES
    assert not channel.closed
    theirs.close()
    assert channel.poll() == []
    assert channel.closed
    channel.close()


def test_messages_before_the_hangup_are_not_lost() -> None:
    channel, theirs = pair()
    theirs.sendall(FrameEncoder().encode(StopEngine()))
    theirs.close()
    found = channel.poll()
    assert found == [StopEngine()]
    channel.close()


def test_wait_ends_when_a_message_comes() -> None:
    channel, theirs = pair()
    timer = threading.Timer(0.05, theirs.sendall, [bytes(FrameEncoder().encode(StopEngine()))])
    timer.start()
    channel.wait(5.0)
    assert channel.poll() == [StopEngine()]
    timer.join()
    channel.close()
    theirs.close()


def test_a_slow_reader_never_blocks_a_send_and_gets_everything_in_order() -> None:
    channel, theirs = pair()
    payload = bytes(100_000)
    for index in range(50):
        channel.send(StepTokens(keys=payload, token_ids=index.to_bytes(4, "little")))
    decoder: FrameDecoder[FromEngine] = FrameDecoder(FromEngine)
    found: list[FromEngine] = []
    theirs.setblocking(False)
    while len(found) < 50:
        channel.poll()
        try:
            found += decoder.feed(theirs.recv(1 << 16))
        except BlockingIOError:
            continue
    indices = [
        int.from_bytes(message.token_ids, "little")
        for message in found
        if isinstance(message, StepTokens)
    ]
    assert indices == list(range(50))
    channel.close()
    theirs.close()


def test_sending_to_a_closed_end_marks_the_channel_closed() -> None:
    channel, theirs = pair()
    theirs.close()
    channel.send(StepTokens())
    channel.send(StepTokens())
    assert channel.closed
    channel.close()


def test_drain_gives_up_after_its_time() -> None:
    channel, theirs = pair()
    for _ in range(20):
        channel.send(StepTokens(keys=bytes(1_000_000)))
    channel.drain(0.2)
    assert channel.closed
    channel.close()
    theirs.close()
