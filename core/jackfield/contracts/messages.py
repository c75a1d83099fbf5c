"""What crosses the border between the API process and the engine process.

msgpack by msgspec, one tagged struct a message; arrays travel as little-endian bytes
(``numpy.frombuffer``). Nothing here holds an object that only one of the two sides knows.
"""

from __future__ import annotations

from enum import IntEnum

import msgspec

from jackfield.contracts.sampling import TokenSampling


class FinishReason(IntEnum):
    """Why a request ended; ``RUNNING`` while it has not."""

    RUNNING = 0
    STOP = 1
    LENGTH = 2
    ABORT = 3
    ERROR = 4


# --- to the engine ---------------------------------------------------------------------


class AddRequest(msgspec.Struct, frozen=True, tag="add", omit_defaults=True):
    """One sequence to continue; ``n`` choices are ``n`` of these.

    ``key`` is unique in the life of the engine, whichever client sends it. ``prompt`` is int32 ids
    as bytes, at least one. ``max_tokens`` is resolved: prompt plus output fits the context.
    ``arrival`` is ``time.monotonic()`` of the API process (one clock for all processes of a
    machine).
    With ``pooling`` nothing is sampled: the prompt ends in a vector; ``max_tokens`` is 0.
    """

    key: int
    prompt: bytes
    sampling: TokenSampling
    max_tokens: int
    arrival: float
    priority: int = 0
    cache_salt: str | None = None
    user: str | None = None
    pooling: bool = False


class AbortRequests(msgspec.Struct, frozen=True, tag="abort"):
    """Clients are gone, or a stop string was found. Unknown keys are ignored."""

    keys: list[int]


class ResetPrefixCache(msgspec.Struct, frozen=True, tag="reset_prefix_cache"):
    """Forget every cached block that no request uses."""


class Sleep(msgspec.Struct, frozen=True, tag="sleep"):
    """Give the device's memory away. Sent while no request is in the engine, and none is sent
    until it is awake; see ``contracts.work.CanSleep`` for ``level``. Answered by ``SleepState``."""

    level: int


class WakeUp(msgspec.Struct, frozen=True, tag="wake_up"):
    """Take the memory again. Answered by ``SleepState``."""


class CallWorkers(msgspec.Struct, frozen=True, tag="call"):
    """Call a method of every worker, between two steps. ``args`` is a list and ``kwargs`` a map by
    name, each in msgpack of its own: plain values only. Answered by ``CallAnswer``."""

    method: str
    args: bytes
    kwargs: bytes


class StopEngine(msgspec.Struct, frozen=True, tag="stop"):
    """End the engine process; requests still there are aborted."""


Question = Sleep | WakeUp | CallWorkers
"""What is answered; each client gets its answers in the order in which it asked."""
ToEngine = AddRequest | AbortRequests | ResetPrefixCache | Question | StopEngine


# --- from the engine -------------------------------------------------------------------


class EngineReady(msgspec.Struct, frozen=True, tag="ready"):
    """The model is loaded and serving starts. ``phases``: (name, start, end), monotonic seconds."""

    num_blocks: int
    block_size: int
    max_model_len: int
    logits_width: int
    phases: list[tuple[str, float, float]]
    notes: list[str] = []


class EngineFailed(msgspec.Struct, frozen=True, tag="failed"):
    """The engine process ends now. ``message`` is one line for the user."""

    message: str
    is_config_error: bool = False


class TokenLogprobs(msgspec.Struct, frozen=True, array_like=True):
    """Log-probabilities at one sampled position.

    ``rank`` is 1 for the most likely token. The ``top_*`` lists are sorted, most likely first.
    """

    token_id: int
    logprob: float
    rank: int
    top_ids: list[int]
    top_logprobs: list[float]


class RequestLogprobs(msgspec.Struct, frozen=True, array_like=True):
    """Logprobs of one request in one step: ``output`` for each new token, ``prompt`` for prompt
    positions computed in this step (``prompt_start`` is the position of the first; position 0
    has none)."""

    key: int
    output: list[TokenLogprobs]
    prompt: list[TokenLogprobs] = []
    prompt_start: int = 0


class RequestPooled(msgspec.Struct, frozen=True, array_like=True):
    """The vector that a prompt has ended in, little-endian float32 as bytes; or, where every token
    has one, those of the tokens that a step computed, from number ``first`` on. A prompt that is
    computed anew begins at 0 again."""

    key: int
    vector: bytes
    first: int = 0


class RequestFailed(msgspec.Struct, frozen=True, array_like=True):
    """The engine could not serve this request; it is finished with ``FinishReason.ERROR``.

    ``param`` is the request field at fault; None where the request was right.
    """

    key: int
    message: str
    param: str | None = None


STEP_TOKEN_BOUNDS = (1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)
"""Steps are counted by how many tokens they compute: up to each of these, and above the last."""


class EngineStats(msgspec.Struct, frozen=True, array_like=True):
    """Gauges and counters (totals since start) of the engine, at most a few times a second.

    ``stage_seconds``: what its loop has spent, by stage of a step. ``steps_over`` by kind, and
    ``step_seconds``, what they took: from the launch, or the end of the step before.
    ``steps_by_size`` by ``STEP_TOKEN_BOUNDS``, and ``num_step_tokens``, what they computed.
    """

    num_running: int
    num_waiting: int
    num_blocks_used: int
    num_preemptions: int
    prefix_cache_queries: int
    prefix_cache_hits: int
    num_prompt_tokens: int
    num_generation_tokens: int
    num_steps: int
    stage_seconds: dict[str, float] = {}
    steps_over: dict[str, int] = {}
    step_seconds: dict[str, float] = {}
    steps_by_size: tuple[int, ...] = (0,) * (len(STEP_TOKEN_BOUNDS) + 1)
    num_step_tokens: int = 0


class StepTokens(msgspec.Struct, frozen=True, tag="tokens", omit_defaults=True):
    """The outcome of one engine step, or of several: one message whatever the number of requests.
    A key that comes several times has its tokens in that order.

    ``keys`` int64[n], ``token_ids`` int32[n] (-1: the request ended without a new token),
    ``finish`` int8[n] (``FinishReason``), ``num_cached`` int32[n]: prompt tokens found in the
    prefix cache, set with a request's first token, else 0. ``scheduled`` float64[n]:
    monotonic time at which the request was first scheduled, set likewise. ``pooled``: the vectors
    of requests that ended with one, or go on (token -1, ``finish`` 0) and have more to come.
    """

    keys: bytes = b""
    token_ids: bytes = b""
    finish: bytes = b""
    num_cached: bytes = b""
    scheduled: bytes = b""
    logprobs: list[RequestLogprobs] = []
    failed: list[RequestFailed] = []
    pooled: list[RequestPooled] = []
    stats: EngineStats | None = None


class SleepState(msgspec.Struct, frozen=True, tag="sleep_state"):
    """The answer to ``Sleep`` and ``WakeUp``; ``message`` says why nothing has changed. Not an
    answer: what another client of the engine has brought about."""

    is_asleep: bool
    message: str | None = None
    is_answer: bool = True


class CallAnswer(msgspec.Struct, frozen=True, tag="called", omit_defaults=True):
    """The answer to ``CallWorkers``. ``results`` is a list in msgpack, a value a worker; empty
    where ``message`` says why there is none. ``is_refused``: nothing was called."""

    results: bytes = b""
    message: str | None = None
    is_refused: bool = False


Answer = SleepState | CallAnswer
FromEngine = EngineReady | EngineFailed | StepTokens | Answer
