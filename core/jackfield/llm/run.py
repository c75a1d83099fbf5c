"""One request under way: its choices, what they gained and nobody has taken yet, its times."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable

from jackfield.contracts.generation import (
    ChoiceDelta,
    Finish,
    GenerationRequest,
    RequestRecord,
)
from jackfield.contracts.messages import AddRequest
from jackfield.contracts.pooling import PoolingRequest
from jackfield.text.output import ChoiceOutput

Shortcut = Callable[[ChoiceDelta], bool]
"""Delivers a delta at once; False: it must take the usual way. Called in the event loop between two
steps' tokens: it may not wait."""

MAX_PENDING = 4096
"""Deltas of a choice that may wait for a consumer that streams; about 1 MiB of plain ones."""


class Run:
    """The state of one request between the engine's steps and the consumer of its stream.

    Made, fed and read in the event loop's thread. With ``wake_at_end`` the consumer is woken
    once, when every choice has finished, and not for every step. With ``waits_for_text`` the
    consumer of a stream is first woken for a delta that has some.
    """

    __slots__ = (
        "_has_news",
        "_make_choices",
        "_pending",
        "_shortcut",
        "_waiter",
        "_waits_for_text",
        "arrival",
        "choices",
        "failure",
        "first_scheduled",
        "first_token",
        "has_streamed",
        "keys",
        "last_token",
        "max_tokens",
        "messages",
        "num_cached",
        "num_open",
        "num_outputs",
        "num_starts",
        "reason",
        "request",
        "vectors",
        "wake_at_end",
    )

    def __init__(
        self,
        request: GenerationRequest | PoolingRequest,
        messages: list[AddRequest],
        make_choices: Callable[[], list[ChoiceOutput]],
        arrival: float,
        max_tokens: int,
        wake_at_end: bool,
        waits_for_text: bool,
    ) -> None:
        self.request = request
        self.messages = messages
        """One a choice, as the engine got it, and gets it again if it dies."""
        self.keys = [message.key for message in messages]
        self.arrival = arrival
        self.max_tokens = max_tokens
        self.wake_at_end = wake_at_end
        self.num_starts = 0
        """How many engines have got it."""
        self.choices: list[ChoiceOutput] = []
        self._make_choices = make_choices
        self._waits_for_text = waits_for_text
        self.has_streamed = False
        """Whether the consumer has something: from then on nothing can be done over."""
        self.failure: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._shortcut: Shortcut | None = None

    def begin(self) -> None:
        """The first start, or another one with a new engine: nothing has come yet."""
        self.first_scheduled: float | None = None
        self.first_token: float | None = None
        self.last_token: float | None = None
        self.num_outputs = [0] * len(self.keys)
        """Tokens of each choice."""
        self.num_cached = 0
        self.reason = "abort"
        self._pending: list[ChoiceDelta] = []
        self._has_news = False
        # Last: a parser whose constructor fails leaves a run that can be told of.
        self.choices = self._make_choices()
        self.num_open = len(self.keys)
        self.vectors: list[bytes] = []
        """Float32; what a prompt that is pooled has ended in, in parts."""

    def note_tokens(self, index: int, now: float, count: int, gaps: Counter[float]) -> None:
        """``count`` tokens of a choice came at ``now``, in monotonic seconds; ``gaps`` counts
        tokens by when the request's one before came."""
        last, self.last_token = self.last_token, now
        if last is None:
            self.first_token = now
        else:
            gaps[last] += 1
        if count > 1:
            gaps[now] += count - 1
        self.num_outputs[index] += count

    def divert(self, shortcut: Shortcut) -> None:
        """Running deltas may go past a consumer that waits for them; a stream of one choice only,
        which has begun."""
        if len(self.keys) == 1 and self.has_streamed:
            self._shortcut = shortcut

    def push(self, delta: ChoiceDelta, finished: Finish | None) -> bool:
        """Keeps a delta for the consumer and wakes it. False if the consumer is too far behind."""
        if self._shortcut is not None and finished is None and self._goes_past(delta):
            return True
        self._pending.append(delta)
        if finished is not None:
            self.num_open -= 1
            self.reason = finished.reason
        if self.num_open == 0 or (not self.wake_at_end and self._is_news(delta)):
            self._wake()
        return self.wake_at_end or len(self._pending) < MAX_PENDING * len(self.keys)

    def _goes_past(self, delta: ChoiceDelta) -> bool:
        """Whether the shortcut has taken the delta. A consumer that is busy still has to deliver
        what came before."""
        waiter = self._waiter
        if waiter is None or waiter.done() or self._pending or self._shortcut is None:
            return False
        try:
            return self._shortcut(delta)
        except Exception as error:
            self.fail(error)
            return True

    def _is_news(self, delta: ChoiceDelta) -> bool:
        """Whether a stream should hear of the delta now. Its beginning waits for the first text:
        as long as the consumer has nothing, all can be done over."""
        return self.has_streamed or not self._waits_for_text or bool(delta.text or delta.events)

    @property
    def is_taken(self) -> bool:
        """Whether every choice has finished and the consumer has all of it."""
        return not (self.num_open or self._pending)

    def fail(self, failure: Exception) -> None:
        """The request cannot go on: a stream gets ``failure`` after what is pending."""
        self.failure = failure
        self._wake()

    def give_up(self, message: str) -> None:
        """Ends the choices with an error that is the request's own."""
        finish = Finish("error", message=message)
        self._pending = [
            ChoiceDelta(index, "", (), finish=finish) for index in range(len(self.keys))
        ]
        self.num_open, self.reason = 0, finish.reason
        self._wake()

    async def take(self) -> list[ChoiceDelta]:
        """What has gathered since the last call; waits until there is something."""
        while not self._has_news:
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        if self.failure is not None and (self.wake_at_end or not self._pending):
            raise self.failure
        taken, self._pending = self._pending, []
        # A failure stays news until it is raised.
        self._has_news = self.failure is not None
        self.has_streamed = True
        return taken

    def record(self) -> RequestRecord:
        """The request as observers see it once it is over."""
        return RequestRecord(
            request_id=self.request.request_id,
            arrival=self.arrival,
            first_scheduled=self.first_scheduled,
            first_token=self.first_token,
            last_token=self.last_token,
            num_prompt_tokens=len(self.request.prompt_token_ids),
            num_output_tokens=sum(self.num_outputs),
            num_cached_tokens=self.num_cached,
            finish=self.reason,
            n=len(self.keys),
            max_tokens=self.max_tokens,
            max_choice_tokens=max(self.num_outputs),
        )

    def _wake(self) -> None:
        self._has_news = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
