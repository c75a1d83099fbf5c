"""Every request under way, by the keys of its choices; each step's tokens to whom they belong."""

from __future__ import annotations

import logging
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable
from typing import Protocol

import numpy as np
from msgspec.structs import replace

from jackfield.contracts.generation import ChoiceDelta, Finish, RequestRecord
from jackfield.contracts.messages import (
    AbortRequests,
    FinishReason,
    RequestFailed,
    RequestLogprobs,
    StepTokens,
)
from jackfield.errors import RAISED, RequestError
from jackfield.llm.pooled import hand_out_vectors
from jackfield.llm.run import Run

log = logging.getLogger(__name__)

FINISH_REASONS = tuple(FinishReason)

Portion = tuple[int, tuple[int, ...], int]
"""The key of a choice, ids for it, and the ``FinishReason`` behind them."""


class Observer(Protocol):
    """Sees finished requests and token gaps; called in the event loop, must not raise or wait."""

    def request_finished(self, record: RequestRecord) -> None: ...

    def inter_token(self, seconds: float, count: int) -> None:
        """``count`` tokens came ``seconds`` after the request's previous ones."""
        ...


class RunTable:
    """Belongs to one event loop. ``abort`` tells the engine that nobody waits for some keys."""

    def __init__(self, abort: Callable[[AbortRequests], None]) -> None:
        self._abort = abort
        self._runs: dict[int, tuple[Run, int]] = {}
        self._observers: list[Observer] = []

    def __len__(self) -> int:
        """How many choices are under way."""
        return len(self._runs)

    def observe(self, observer: Observer) -> None:
        """Adds an observer of finished requests and token gaps."""
        self._observers.append(observer)

    def add(self, run: Run) -> None:
        """Its choices are fed from now on."""
        self._runs.update((key, (run, index)) for index, key in enumerate(run.keys))

    def remove(self, run: Run) -> list[int]:
        """Forgets a run; the keys of the choices that had not ended."""
        return [key for key in run.keys if self._runs.pop(key, None) is not None]

    def take_all(self) -> list[Run]:
        """Every run under way, the oldest first; none is left."""
        runs = list(dict.fromkeys(run for run, _ in self._runs.values()))
        self._runs.clear()
        return runs

    def tell_finished(self, run: Run) -> None:
        """The observers hear of a run that is over."""
        record = run.record()
        for observer in self._observers:
            try:
                observer.request_finished(record)
            except Exception:
                log.exception("request %s: an observer failed", record.request_id)

    def hand_out_tokens(self, step: StepTokens) -> None:
        """Hands each token of a step to its choice, or several together where there are several of
        a choice. O(tokens); one call a message."""
        if not step.keys:
            return
        now = time.monotonic()
        keys = np.frombuffer(step.keys, dtype="<i8").tolist()
        self._note_first(step, keys)
        logprobs = _by_key(step.logprobs) if step.logprobs else None
        failures = {entry.key: entry for entry in step.failed} if step.failed else {}
        stopped: list[int] = []
        gaps: Counter[float] = Counter()
        for key, tokens, finish in self._portions(step, keys):
            entry = self._runs.get(key)
            if entry is None:
                continue
            run, index = entry
            if tokens:
                run.note_tokens(index, now, len(tokens), gaps)
            details = None
            if logprobs is not None and (tokens or not finish):
                details = _next(logprobs[key], all_of_them=run.choices[index].takes_several)
            delta = _feed(run, index, tokens, finish, details, failures.get(key))
            if delta.finish is not None:
                del self._runs[key]
                if not finish:
                    stopped.append(key)
            if not run.push(delta, delta.finish):
                self._cut(run)
        self._tell_gaps(gaps, now)
        if stopped:
            self._abort(AbortRequests(stopped))

    def _portions(self, step: StepTokens, keys: list[int]) -> list[Portion]:
        """What is fed to a choice at a time: an entry of the message, or all that it has of a
        choice that takes several at once."""
        tokens = np.frombuffer(step.token_ids, dtype="<i4").tolist()
        finishes = np.frombuffer(step.finish, dtype=np.int8).tolist()
        entries = zip(keys, tokens, finishes, strict=True)
        if len(set(keys)) == len(keys):
            return [(key, (token,) if token >= 0 else (), finish) for key, token, finish in entries]
        portions: list[Portion] = []
        places: dict[int, int] = {}
        for key, token, finish in entries:
            taken = (token,) if token >= 0 else ()
            place = places.setdefault(key, len(portions))
            if place < len(portions) and self._takes_several(key):
                portions[place] = (key, portions[place][1] + taken, finish)
            else:
                portions.append((key, taken, finish))
        return portions

    def _takes_several(self, key: int) -> bool:
        entry = self._runs.get(key)
        return entry is not None and entry[0].choices[entry[1]].takes_several

    def hand_out_pooled(self, step: StepTokens) -> None:
        """Hands each vector of a step to its request."""
        if step.keys:
            keys = np.frombuffer(step.keys, dtype="<i8").tolist()
            self._note_first(step, keys)
            hand_out_vectors(step, keys, self._runs, time.monotonic())

    def _cut(self, run: Run) -> None:
        """Ends a stream that nobody reads; what has been said is still there to be read."""
        alive = self.remove(run)
        if alive:
            self._abort(AbortRequests(alive))
            run.fail(RequestError("the stream was not read in time and was cut"))

    def _note_first(self, step: StepTokens, keys: list[int]) -> None:
        """Prefix-cache hits and scheduling times, which come with a request's first token."""
        if not step.num_cached:
            return
        cached = np.frombuffer(step.num_cached, dtype="<i4")
        scheduled = np.frombuffer(step.scheduled, dtype="<f8")
        for position in np.flatnonzero(scheduled).tolist():
            entry = self._runs.get(keys[position])
            if entry is not None and entry[0].first_scheduled is None:
                entry[0].first_scheduled = float(scheduled[position])
                entry[0].num_cached = int(cached[position])

    def _tell_gaps(self, gaps: Counter[float], now: float) -> None:
        """``gaps``: how many tokens came now behind one of that moment."""
        for last, count in gaps.items():
            for observer in self._observers:
                observer.inter_token(now - last, count)


def _feed(
    run: Run,
    index: int,
    tokens: tuple[int, ...],
    finish: int,
    logprobs: RequestLogprobs | None,
    failure: RequestFailed | None,
) -> ChoiceDelta:
    """Tokens through a choice's text path; a failure there is this choice's alone."""
    choice = run.choices[index]
    try:
        if tokens and not finish and logprobs is None:
            return choice.feed_running(tokens, run.num_cached)
        return choice.feed(
            tokens,
            FINISH_REASONS[finish],
            logprobs=tuple(logprobs.output) if logprobs else (),
            prompt_logprobs=tuple(logprobs.prompt) if logprobs else (),
            num_cached_tokens=run.num_cached,
            failure=failure,
        )
    except RAISED:
        log.exception("request %s: its output could not be decoded", run.request.request_id)
        failed = Finish("error", message="the output of this request could not be decoded")
        return ChoiceDelta(index=index, text="", token_ids=tokens, finish=failed)


def _by_key(entries: list[RequestLogprobs]) -> defaultdict[int, deque[RequestLogprobs]]:
    """Of each choice, in the order of its tokens."""
    found: defaultdict[int, deque[RequestLogprobs]] = defaultdict(deque)
    for entry in entries:
        found[entry.key].append(entry)
    return found


def _next(entries: deque[RequestLogprobs], *, all_of_them: bool) -> RequestLogprobs | None:
    """The first one, or all as one; None where there is none."""
    if not entries:
        return None
    joined = entries.popleft()
    while entries and all_of_them:
        more = entries.popleft()
        joined = replace(
            joined, output=joined.output + more.output, prompt=joined.prompt + more.prompt
        )
    return joined
