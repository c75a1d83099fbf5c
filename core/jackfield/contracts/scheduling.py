"""Who runs in the next step. No torch here.

Kinds: ``jackfield.schedulers`` (``--scheduler-cls``, or by name ``--scheduling-policy``) and
``jackfield.queue_policies`` (``--scheduling-policy``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable


@dataclass(frozen=True, slots=True)
class SchedulerLimits:
    """The options every scheduler gets.

    ``max_num_batched_tokens`` is the one budget of a step for prefill and decode together; a
    request that is alone may have ``max_num_lone_tokens`` where that is more;
    ``long_prefill_token_threshold`` caps the prompt tokens that one request may have
    computed in a step (0: no cap), so that a step has room for others. With
    ``max_num_partial_prefills`` above 1 so many prompts at most are computed in part side by side
    and share the budget, ``max_long_partial_prefills`` of them longer than the threshold. With
    ``enable_chunked_prefill`` false a prompt is computed whole or not at all (the budget is then at
    least ``max_model_len``). With a ``delay_factor`` above 0, waiting requests are let in once the
    first of them has waited that many times as long as the last step with a prompt took, or nobody
    runs.
    """

    max_num_seqs: int
    max_num_batched_tokens: int
    max_model_len: int
    enable_chunked_prefill: bool = True
    long_prefill_token_threshold: int = 0
    max_num_partial_prefills: int = 1
    max_long_partial_prefills: int = 1
    delay_factor: float = 0.0
    max_num_lone_tokens: int = 0


class SchedulerRequest(Protocol):
    """A scheduler's view of a request. The engine changes it; a scheduler only reads.

    ``num_tokens``: prompt and output, a token that is sampled by a step in flight included.
    ``num_computed_tokens``: of these, whose KV is in blocks or is being computed by a step
    in flight. The difference is what is left to schedule: 1 for a decoding request.
    ``num_in_flight``: sampled tokens that the host has not seen yet. ``user`` is the request's
    field of that name, None where it has none.
    """

    @property
    def key(self) -> int: ...
    @property
    def priority(self) -> int: ...
    @property
    def user(self) -> str | None: ...
    @property
    def arrival(self) -> float: ...
    @property
    def num_prompt_tokens(self) -> int: ...
    @property
    def num_tokens(self) -> int: ...
    @property
    def num_computed_tokens(self) -> int: ...
    @property
    def num_in_flight(self) -> int: ...


class Blocks(Protocol):
    """The KV blocks, as a scheduler may use them. Every call is O(blocks it touches)."""

    @property
    def block_size(self) -> int: ...
    @property
    def num_free(self) -> int: ...

    def match(self, request: SchedulerRequest) -> int:
        """How many leading tokens of the request are cached, or were saved when it was preempted:
        at most ``num_tokens - 1`` (the last token is always computed). Changes nothing."""
        ...

    def admit(self, request: SchedulerRequest, num_tokens: int) -> bool:
        """Gives a request without blocks its cached prefix, or what was saved of it, and room for
        ``num_tokens`` more tokens behind it; afterwards ``num_computed_tokens`` counts these.
        False, and nothing changed, where there are not enough blocks."""
        ...

    def grow(self, request: SchedulerRequest, num_tokens: int) -> bool:
        """Makes room for ``num_tokens`` tokens more than are computed; False as above."""
        ...

    def release(self, request: SchedulerRequest) -> None:
        """Takes all blocks of the request; used for preemption. ``num_computed_tokens`` is 0
        afterwards. What it had computed may be cached from now on: ``match`` anew."""
        ...


@dataclass(frozen=True, slots=True)
class Schedule:
    """The decision for one step.

    ``entries``: (request, tokens to compute now), each request once, tokens at least 1; room
    was made by ``admit`` or ``grow``. ``preempted``: running requests whose blocks were
    released in this call; the scheduler keeps them among its waiting ones.
    """

    entries: tuple[tuple[SchedulerRequest, int], ...]
    preempted: tuple[SchedulerRequest, ...] = ()


class QueuePolicy(Protocol):
    """The order in which waiting requests get their turn, for a scheduler that takes one.

    Made once per engine as ``cls()``. A request whose policy raises fails by itself.

    A policy may have a further method, ``quota(request) -> Quota | None`` (``QuotaPolicy``): how
    many requests of its group may run at once; the others of the group wait, and those behind
    them in the queue pass.
    """

    name: ClassVar[str]
    api_version: ClassVar[int]

    def key(self, request: SchedulerRequest) -> tuple[float, ...]:
        """The lowest goes first, equal ones in the order of their arrival. Asked once, when the
        request arrives; the order of running requests is the same, the last one gives up its
        blocks first."""
        ...


@dataclass(frozen=True, slots=True)
class Quota:
    """At most ``max_running`` (1 or more) requests of ``group`` run at once."""

    group: str
    max_running: int


@runtime_checkable
class QuotaPolicy(Protocol):
    """The optional part of a queue policy."""

    def quota(self, request: SchedulerRequest) -> Quota | None:
        """The group of a request and its limit; None: no limit. Asked once, as ``key`` is."""
        ...


class Scheduler(Protocol):
    """Decides who runs. Made once per engine as ``cls(limits)``; called from one thread.

    A scheduler that takes a queue policy says ``takes_queue_policy = True`` and is made as
    ``cls(limits, policy)`` where the user chose one with ``--scheduling-policy``.

    An exception from ``schedule`` or ``finish`` ends the engine, one from ``add`` its request. A
    request is in the scheduler from ``add`` to ``finish``, waiting or running. One with
    ``num_in_flight`` above 0 and no blocks (just preempted) must not be admitted again until that
    is 0.
    """

    name: ClassVar[str]
    api_version: ClassVar[int]

    def __init__(self, limits: SchedulerLimits) -> None: ...

    def add(self, request: SchedulerRequest) -> None:
        """Takes a new request in. O(log waiting)."""
        ...

    def schedule(self, blocks: Blocks) -> Schedule:
        """Chooses the next step; called before the previous step's tokens are known. May
        return no entries (nothing to do, or nothing fits until a step in flight ends)."""
        ...

    def finish(self, request: SchedulerRequest) -> None:
        """Forgets a request: it ended or was aborted. The engine releases its blocks."""
        ...

    def __len__(self) -> int:
        """Requests in the scheduler, waiting and running."""
        ...

    @property
    def num_waiting(self) -> int:
        """Of these, how many have no blocks."""
        ...
