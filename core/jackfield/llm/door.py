"""The asynchronous door: requests to the engine process, its tokens to text and events."""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import Mapping, Sequence
from functools import partial

import msgspec
import numpy as np

from jackfield.contracts.generation import ChoiceDelta, GenerationRequest
from jackfield.contracts.messages import (
    AbortRequests,
    AddRequest,
    CallAnswer,
    EngineReady,
    EngineStats,
    ResetPrefixCache,
    Sleep,
    SleepState,
    StepTokens,
    WakeUp,
)
from jackfield.contracts.pooling import Pooled, PoolingRequest
from jackfield.contracts.sampling import MAX_SEED, TokenSampling
from jackfield.contracts.text import Tokenizer
from jackfield.engine.spawning import SpawnedEngine
from jackfield.errors import EngineError, EngineKilledError, JackfieldError, RequestError
from jackfield.llm.engine_link import EngineEvents, EngineLink, MakeLink
from jackfield.llm.parser_counts import ParserCounts
from jackfield.llm.pooled import VectorRoom, pooled_of, pooling_run
from jackfield.llm.run import Run
from jackfield.llm.run_table import Observer, RunTable
from jackfield.llm.supervisor import RestartPolicy, Supervisor
from jackfield.llm.text_side import TextSide
from jackfield.llm.token_stream import TokenStream
from jackfield.llm.worker_calls import call_message, results_of
from jackfield.planning import ServingPlan
from jackfield.registry import Registry
from jackfield.text.chat_template import find_chat_template
from jackfield.text.prompt import PromptBuilder

log = logging.getLogger(__name__)

MAX_STARTS = 3
MAX_STARTS_IF_KILLED = 10
"""How often a request may be running when an engine dies: it may be the cause. It hardly is where
somebody killed the engine, unless that was for want of memory."""


class AsyncLLM:
    """Owns the engine process and every request under way.

    ``launch`` starts the engine process and returns at once; ``start`` waits until it is
    ready. All other methods belong to the event loop that ran ``start``.
    """

    def __init__(
        self,
        plan: ServingPlan,
        registry: Registry,
        policy: RestartPolicy | None = None,
        spawned: SpawnedEngine | None = None,
        *,
        link: MakeLink | None = None,
        first_key: int = 1,
    ) -> None:
        """``spawned``: the first engine's process, if it is there already. ``link`` makes the way
        to an engine that another process keeps, which this one has the keys from ``first_key`` on
        for; without it the engine is this process' own."""
        self.plan = plan
        self.registry = registry
        self.prompts: PromptBuilder
        self.ready: EngineReady | None = None
        self.stats: EngineStats | None = None
        self.is_asleep = False
        self.phases: list[tuple[str, float, float]] = []
        events = EngineEvents(
            on_step=self._on_step,
            on_lost=self._on_lost,
            on_replaced=self._on_replaced,
            on_sleep=self._on_sleep,
        )
        self._is_shared = link is not None
        self._engine: EngineLink = (
            Supervisor(plan.engine, policy or RestartPolicy(), events, spawned)
            if link is None
            else link(events)
        )
        self._runs = runs = RunTable(self._engine.send)
        self._hand_out = runs.hand_out_tokens if plan.pooling is None else runs.hand_out_pooled
        self._keys = itertools.count(first_key)
        self._text = TextSide(plan, registry)
        self._room = VectorRoom(0 if plan.pooling is None else plan.pooling.token_bytes)

    # --- life ------------------------------------------------------------------------

    def launch(self) -> None:
        """Starts the engine process; idempotent, needs no event loop."""
        self._engine.launch()

    async def start(self) -> EngineReady:
        """Loads the tokenizer while the engine loads the model; ``ConfigError`` or
        ``EngineError`` where either fails."""
        self.launch()
        loading = asyncio.create_task(asyncio.to_thread(self._load_text))
        try:
            ready = await self._engine.start()
            await loading
        except BaseException:
            loading.cancel()
            await self._engine.stop(timeout=1.0)
            raise
        self._serve(ready)
        return ready

    def _serve(self, ready: EngineReady) -> None:
        template = find_chat_template(self.tokenizer, self.plan.chat_template)
        self.prompts = PromptBuilder(
            self.tokenizer,
            template,
            max_model_len=ready.max_model_len,
            logits_width=ready.logits_width,
            eos_token_ids=self.plan.eos_token_ids,
            max_logprobs=self.plan.max_logprobs,
            content_format=self.plan.chat_template_content_format,
            template_defaults=self.plan.template_defaults,
            generates=self.plan.pooling is None,
        )
        self.ready = ready

    async def stop(self, drain_seconds: float = 0.0) -> None:
        """Lets running requests finish for at most ``drain_seconds``, then ends the engine."""
        deadline = time.monotonic() + drain_seconds
        while self._has_work() and self._engine.death is None and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
        self.ready = None
        await self._engine.stop()
        for run in self._runs.take_all():
            run.fail(EngineError("the server is shutting down"))

    @property
    def tokenizer(self) -> Tokenizer | None:
        """The model's; None before ``start``, and for a server without text."""
        return self._text.tokenizer

    @property
    def is_ready(self) -> bool:
        """Whether requests are served."""
        return self.ready is not None and self._engine.is_serving and not self.is_asleep

    @property
    def engine_pid(self) -> int | None:
        """Process id of the engine of now."""
        return self._engine.pid

    @property
    def parser_counts(self) -> list[ParserCounts]:
        """What became of the calls and the thinking that the parsers saw."""
        return self._text.parser_counts

    @property
    def num_restarts(self) -> int:
        """How often a dead engine was replaced."""
        return self._engine.num_restarts

    async def wait_dead(self) -> JackfieldError:
        """Returns when the engine has died and is not replaced, with its error."""
        return await self._engine.wait_dead()

    @property
    def max_model_len(self) -> int:
        """Context length in tokens, prompt and output together."""
        if self.ready is not None:
            return self.ready.max_model_len
        return self.plan.engine.worker.max_model_len

    @property
    def num_waiting(self) -> int:
        """Choices that certainly wait for a row in the engine; of all its clients together as the
        engine said last."""
        own = max(0, len(self._runs) - self.plan.engine.worker.max_num_seqs)
        if self._is_shared and self.stats is not None:
            return max(own, self.stats.num_waiting)
        return own

    def observe(self, observer: Observer) -> None:
        """Adds an observer of finished requests and token gaps."""
        self._runs.observe(observer)

    def reset_prefix_cache(self) -> None:
        """Forgets cached blocks that no request uses."""
        self._engine.send(ResetPrefixCache())

    async def sleep(self, level: int = 1) -> None:
        """Lets running requests finish and gives the device's memory away. New requests are
        refused until ``wake_up``. ``RequestError`` where the engine cannot."""
        if level not in (1, 2):
            raise RequestError("the level of sleep is 1 or 2", param="level")
        self.is_asleep = True
        while self._has_work():
            await asyncio.sleep(0.01)
        await self._change_sleep(Sleep(level))

    async def wake_up(self) -> None:
        """Takes the memory again; returns when requests are served."""
        await self._change_sleep(WakeUp())

    async def _change_sleep(self, message: Sleep | WakeUp) -> None:
        state = await self._engine.ask(message)
        assert isinstance(state, SleepState), "another question's answer"
        self.is_asleep = state.is_asleep
        if state.message is not None:
            raise RequestError(state.message)

    async def collective_rpc(
        self,
        method: str,
        timeout: float | None = None,
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> list[object]:
        """Calls a method of every worker, its own or one of ``--worker-extension-cls``, between two
        steps: what each returns, in rank order. What is passed and returned are plain values:
        None, numbers, text, bytes, lists and maps.

        ``RequestError`` where there is no such method (``param`` is ``method`` then), or where it
        raises; ``TimeoutError`` after ``timeout`` seconds, though the call goes on.
        """
        question = call_message(method, args, kwargs or {})
        try:
            answer = await asyncio.wait_for(self._engine.ask(question), timeout)
        except TimeoutError:
            raise TimeoutError(
                f"{method} has not returned within {timeout:g} s; the call goes on"
            ) from None
        assert isinstance(answer, CallAnswer), "another question's answer"
        return results_of(answer)

    def tool_structure(
        self, tools: Sequence[Mapping[str, object]], choice: str, *, parallel: bool
    ) -> Mapping[str, object] | None:
        """How the tool parser writes calls (``StructuredToolParser.structure``); None where there
        is no parser, or it cannot say."""
        return self._text.tool_structure(tools, choice, parallel=parallel)

    # --- requests --------------------------------------------------------------------

    def stream(self, request: GenerationRequest) -> TokenStream:
        """What the choices gain, step by step, until each has finished.

        Closing the iterator (``aclose``) aborts what is still running and frees its blocks. It
        raises ``RequestError`` for a request that cannot be served, ``EngineError`` when the engine
        dies.
        """
        return TokenStream(lambda: self._submit(request, wake_at_end=False), self._end)

    async def collect(self, request: GenerationRequest) -> list[ChoiceDelta]:
        """Everything the choices gain, once all have finished; cheaper than ``stream``."""
        run = self._submit(request, wake_at_end=True)
        try:
            return await run.take()
        finally:
            self._end(run)

    async def pool(self, request: PoolingRequest) -> Pooled:
        """The vectors that a prompt ends in. Raises as ``stream`` does."""
        arrival = time.monotonic()
        async with self._room.room_for(len(request.prompt_token_ids)):
            self._check_serving()
            if self.plan.pooling is None:
                raise RequestError("this model generates text; for vectors give --task embed")
            run = pooling_run(request, next(self._keys), arrival)
            self._start(run)
            try:
                return pooled_of(run, await run.take(), by_token=self.plan.pooling.by_token)
            finally:
                self._end(run)

    def _has_work(self) -> bool:
        return bool(self._runs or self._room.num_waiting)

    def _check_serving(self) -> None:
        # An engine that is being replaced gets the request when it is there.
        if self.ready is None or self.is_asleep or self._engine.death is not None:
            raise EngineError("the engine sleeps" if self.is_asleep else "the engine is not ready")

    def _submit(self, request: GenerationRequest, wake_at_end: bool) -> Run:
        self._check_serving()
        if self.plan.pooling is not None:
            raise RequestError("this model makes vectors and generates nothing")
        arrival = time.monotonic()
        context = self._text.context(request)
        reasoning = self._text.reasoning_ids(request, context)
        sampling, max_tokens = self.prompts.resolve(
            request.sampling, len(request.prompt_token_ids), reasoning
        )
        prompt = np.asarray(request.prompt_token_ids, dtype="<i4").tobytes()
        count = request.sampling.n
        messages = [
            AddRequest(
                key=next(self._keys),
                prompt=prompt,
                sampling=sampling if index == 0 else _reseeded(sampling, index),
                max_tokens=max_tokens,
                arrival=arrival,
                priority=request.priority,
                cache_salt=request.cache_salt,
                user=request.user,
            )
            for index in range(count)
        ]

        choices = partial(self._text.choices, request, context, reasoning)
        waits_for_text = self.tokenizer is not None and request.sampling.detokenize
        run = Run(request, messages, choices, arrival, max_tokens, wake_at_end, waits_for_text)
        self._start(run)
        return run

    def _start(self, run: Run) -> None:
        try:
            self._begin(run)
        except BaseException:
            self._end(run)
            raise

    def _begin(self, run: Run) -> None:
        """Sends a run's choices to the engine, for the first time or again. While it is being
        replaced they only wait."""
        self._runs.add(run)
        if self._engine.is_serving:
            run.num_starts += 1
            for message in run.messages:
                self._engine.send(message)
        # Behind: the engine need not wait for what becomes of its tokens.
        run.begin()

    def _end(self, run: Run) -> None:
        """Forgets a run; aborts what still runs; tells the observers."""
        alive = self._runs.remove(run)
        if alive and self._engine.is_serving:
            self._engine.send(AbortRequests(alive))
        self._runs.tell_finished(run)

    # --- from the engine -------------------------------------------------------------

    def _on_step(self, step: StepTokens) -> None:
        if step.stats is not None:
            self.stats = step.stats
        self._hand_out(step)

    def _on_lost(self, error: JackfieldError) -> None:
        """The engine is gone. Streams that have begun end; what has not begun waits for the next
        engine, unless it may be what kills them."""
        self.stats = None
        self.is_asleep = False
        max_running = self.plan.engine.worker.max_num_seqs
        num_older = 0
        max_starts = MAX_STARTS_IF_KILLED if isinstance(error, EngineKilledError) else MAX_STARTS
        for run in self._runs.take_all():
            may_have_run = num_older < max_running
            num_older += len(run.keys)
            if run.has_streamed:
                run.fail(EngineError("the engine process died"))
            elif may_have_run and run.num_starts >= max_starts:
                run.give_up(f"the engine died {run.num_starts} times while it ran this request")
            else:
                run.num_starts -= not may_have_run
                self._runs.add(run)

    def _on_sleep(self, state: SleepState) -> None:
        self.is_asleep = state.is_asleep

    def _on_replaced(self, ready: EngineReady) -> None:
        self._serve(ready)
        for run in self._runs.take_all():
            try:
                self._begin(run)
            except Exception as error:
                log.exception("request %s could not be started again", run.request.request_id)
                run.fail(error)

    def _load_text(self) -> None:
        begin = time.monotonic()
        self._text.load()
        self.phases.append(("tokenizer and parsers", begin, time.monotonic()))


def _reseeded(sampling: TokenSampling, index: int) -> TokenSampling:
    """The same sampling for another choice: each choice draws its own numbers."""
    return msgspec.structs.replace(sampling, seed=(sampling.seed + index) & MAX_SEED)
