"""The real step loop and block manager over a simulated worker, for tests in milliseconds."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np

from jackfield.config.plan import WorkerPlan
from jackfield.contracts.messages import (
    AbortRequests,
    AddRequest,
    EngineStats,
    FinishReason,
    StepTokens,
    TokenLogprobs,
)
from jackfield.contracts.sampling import TokenSampling
from jackfield.contracts.scheduling import Scheduler, SchedulerLimits
from jackfield.contracts.work import Executor, GivesBackBlocks
from jackfield.engine.admission import RequestBounds
from jackfield.engine.block_manager import BlockManager
from jackfield.engine.grammar_compiler import GrammarCompiler
from jackfield.engine.prefix_hash import PrefixHasher
from jackfield.engine.step_loop import EngineCore
from jackfield.engine.swap_space import SwapSpace
from jackfield.testing.simulated_worker import SimulatedWorker


@dataclass
class Answer:
    """What came out for one request. ``first_step`` is the step loop's call that gave the
    first token."""

    token_ids: list[int] = field(default_factory=list)
    finish: FinishReason = FinishReason.RUNNING
    num_cached: int = 0
    first_step: int = 0
    message: str | None = None
    logprobs: list[TokenLogprobs] = field(default_factory=list)
    prompt_logprobs: list[TokenLogprobs] = field(default_factory=list)


class SimulatedEngine:
    """An engine that is stepped by hand. ``answers`` by key, in the order of ``add``."""

    def __init__(
        self,
        scheduler: Scheduler,
        limits: SchedulerLimits,
        *,
        num_blocks: int = 64,
        block_size: int = 4,
        steps_in_flight: int = 2,
        hash_algorithm: str | None = "sha256",
        vocabulary: int = 97,
        worker: Executor | None = None,
        grammars: GrammarCompiler | None = None,
        num_host_blocks: int = 0,
        stream_interval: int = 1,
        num_first_blocks: int | None = None,
    ) -> None:
        """``worker`` has been started; without one a simulated one is. ``num_first_blocks``: see
        ``KVCapacity``."""
        self.vocabulary = vocabulary
        if worker is None:
            self.worker = worker = SimulatedWorker()
            plan = _plan(limits, vocabulary, steps_in_flight, block_size, num_blocks)
            self.worker.start(msgspec.structs.replace(plan, swap_bytes=num_host_blocks))
        hasher = PrefixHasher(hash_algorithm, block_size, "simulated") if hash_algorithm else None
        self.swap_space = SwapSpace(num_host_blocks) if num_host_blocks else None
        self.blocks = BlockManager(
            num_blocks, block_size, hasher, self.swap_space, num_first_blocks
        )
        self.scheduler = scheduler
        self.executor = worker
        self.core = EngineCore(
            worker,
            scheduler,
            self.blocks,
            RequestBounds(
                limits.max_model_len,
                vocabulary,
                (num_blocks - 1) * block_size,
                limits.max_num_batched_tokens,
            ),
            max_num_seqs=limits.max_num_seqs,
            max_num_batched_tokens=limits.max_num_batched_tokens,
            steps_in_flight=steps_in_flight,
            grammars=grammars,
            stream_interval=stream_interval,
        )
        self.answers: dict[int, Answer] = {}
        self.num_steps = 0
        self.stats: EngineStats | None = None
        self._max_num_seqs = limits.max_num_seqs
        self._num_host_blocks = num_host_blocks

    def add(
        self,
        prompt: Sequence[int],
        max_tokens: int = 8,
        *,
        sampling: TokenSampling | None = None,
        priority: int = 0,
        arrival: float | None = None,
        cache_salt: str | None = None,
        user: str | None = None,
    ) -> int:
        """Sends a request; returns its key."""
        key = len(self.answers) + 1
        self.answers[key] = Answer()
        self.core.take_in(
            AddRequest(
                key=key,
                prompt=np.array(prompt, dtype="<i4").tobytes(),
                sampling=sampling or TokenSampling(),
                max_tokens=max_tokens,
                arrival=float(key) if arrival is None else arrival,
                priority=priority,
                cache_salt=cache_salt,
                user=user,
            )
        )
        return key

    def abort(self, keys: Sequence[int]) -> None:
        """Aborts requests, as a client that left."""
        self.core.take_in(AbortRequests(list(keys)))

    def step(self) -> None:
        """One turn of the loop; what it tells is added to ``answers``."""
        self.num_steps += 1
        message = self.core.step()
        if message is not None:
            self._read(message)

    def run(self, max_steps: int = 100_000) -> None:
        """Steps until there is nothing left to do."""
        for _ in range(max_steps):
            while self.core.is_compiling and not self.core.has_work:
                time.sleep(0.001)
            if not self.core.has_work:
                return
            self.step()
        raise AssertionError(f"{len(self.core.requests)} requests do not end")

    def rest(self) -> None:
        """What an engine does that has had nothing to do for a while."""
        assert not self.core.has_work
        if isinstance(self.executor, GivesBackBlocks):
            while len(blocks := self.core.give_back_blocks()):
                self.executor.give_back(blocks)

    def check_empty(self) -> None:
        """Nothing is left of the requests: no block, no row, no entry in the scheduler."""
        assert not self.core.requests
        assert len(self.scheduler) == 0 and self.scheduler.num_waiting == 0
        assert self.core.num_free_rows == self._max_num_seqs
        assert self.blocks.num_free == self.blocks.num_blocks - 1
        assert self.swap_space is None or self.swap_space.num_free == self._num_host_blocks

    def _read(self, message: StepTokens) -> None:
        keys = np.frombuffer(message.keys, dtype="<i8").tolist()
        tokens = np.frombuffer(message.token_ids, dtype="<i4").tolist()
        finishes = np.frombuffer(message.finish, dtype=np.int8).tolist()
        cached = np.frombuffer(message.num_cached, dtype="<i4")
        scheduled = np.frombuffer(message.scheduled, dtype="<f8")
        self.stats = message.stats or self.stats
        for entry in message.logprobs:
            assert entry.key in keys, "logprobs without an entry"
            answer = self.answers[entry.key]
            answer.logprobs += entry.output
            if entry.prompt:
                assert entry.prompt_start == len(answer.prompt_logprobs) + 1
                assert not answer.token_ids, "prompt logprobs after the first token"
            answer.prompt_logprobs += entry.prompt
        for index, (key, token, finish) in enumerate(zip(keys, tokens, finishes, strict=True)):
            answer = self.answers[key]
            assert not answer.finish, f"request {key} ended twice"
            answer.finish = FinishReason(finish)
            if token < 0:
                continue
            if not answer.token_ids:
                assert len(scheduled) and scheduled[index] > 0
                answer.first_step = self.num_steps
                answer.num_cached = int(cached[index])
            answer.token_ids.append(token)
        for failure in message.failed:
            self.answers[failure.key].message = failure.message


def _plan(
    limits: SchedulerLimits, vocabulary: int, steps_in_flight: int, block_size: int, num_blocks: int
) -> WorkerPlan:
    return WorkerPlan(
        model="simulated",
        config={"vocab_size": vocabulary, "steps_in_flight": steps_in_flight},
        device="none",
        dtype="float32",
        max_model_len=limits.max_model_len,
        max_num_seqs=limits.max_num_seqs,
        max_num_batched_tokens=limits.max_num_batched_tokens,
        block_size=block_size,
        num_blocks_override=num_blocks,
    )
