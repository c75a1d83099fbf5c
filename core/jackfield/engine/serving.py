"""From a plan to an engine that serves."""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
import time
from collections.abc import Callable
from typing import cast

from jackfield.config.log_output import log_output
from jackfield.config.plan import EnginePlan
from jackfield.contracts.grammar import GrammarBackend, Vocabulary
from jackfield.contracts.messages import EngineFailed, EngineReady, StopEngine
from jackfield.contracts.scheduling import QueuePolicy, Scheduler, SchedulerLimits
from jackfield.contracts.work import Executor, KVCapacity
from jackfield.engine.admission import RequestBounds
from jackfield.engine.block_manager import BlockManager
from jackfield.engine.channel import EngineChannel, StartEngine
from jackfield.engine.clients import Channel, Clients, Message
from jackfield.engine.compilers import compilers
from jackfield.engine.garbage_collection import settle
from jackfield.engine.grammar_compiler import GrammarCompiler, read_vocabulary
from jackfield.engine.prefix_hash import PrefixHasher
from jackfield.engine.pulse import Pulse
from jackfield.engine.serving_loop import LAST_WORDS_SECONDS, ServingLoop
from jackfield.engine.sleeping import Sleeper
from jackfield.engine.step_loop import EngineCore
from jackfield.engine.swap_space import SwapSpace
from jackfield.errors import RAISED, ConfigError, JackfieldError, UnknownPluginError
from jackfield.registry import Registry
from jackfield.registry.culprit import culprit
from jackfield.text.tokenizer import load_tokenizer

log = logging.getLogger(__name__)

Phases = list[tuple[str, float, float]]


def serve(path: str, pulse_descriptor: int, began: float, phases: Phases) -> int:
    """Connects to the parent at ``path``, starts an engine by its plan, serves; exit status.

    ``pulse_descriptor`` is the writing end of a pipe that the parent listens to. ``phases`` of the
    start are told; others may still be added, in a thread."""
    imported = time.monotonic()
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.connect(path)
    channel: Channel = EngineChannel(connection, Message)
    pulse = Pulse(pulse_descriptor)
    pulse.start()
    start = _wait_for_plan(channel)
    if start is None:
        return 0
    phases += [("interpreter", start.launched, began), ("imports", began, imported)]
    phases.append(("wait for the plan", imported, time.monotonic()))
    with log_output(start.plan.log_level):
        return _serve_plan(start, channel, pulse, phases)


def _serve_plan(start: StartEngine, channel: Channel, pulse: Pulse, phases: Phases) -> int:
    try:
        _start_and_run(start, channel, pulse, phases)
    except RAISED as error:
        log.debug("the engine ends", exc_info=error)
        message = _one_line(error, Registry.for_plan(start.plan.worker))
        channel.send(EngineFailed(message, isinstance(error, ConfigError)))
        channel.drain(LAST_WORDS_SECONDS)
        return 1
    finally:
        channel.close()
    return 0


def _wait_for_plan(channel: Channel) -> StartEngine | None:
    while not channel.closed:
        for message in channel.poll():
            if isinstance(message, StartEngine):
                return message
            if isinstance(message, StopEngine):
                return None
        if not channel.closed:
            channel.wait()
    return None


def _start_and_run(start: StartEngine, channel: Channel, pulse: Pulse, phases: Phases) -> None:
    plan = start.plan
    begin = time.monotonic()
    registry = Registry.for_plan(plan.worker)
    make_scheduler = scheduler_maker(plan, registry)
    _prepare_device(registry, plan.worker.device)
    executor: Executor = registry.make("executors", plan.worker.executor)
    loaded = time.monotonic()
    phases.append(("scheduler and executor", begin, loaded))
    try:
        with compilers(plan.worker) as worker:
            capacity = executor.start(worker)
        phases.append(("worker", loaded, time.monotonic()))
        core, ready = make_core(plan, executor, make_scheduler, capacity, phases)
        clients = Clients(channel, start.clients_path, ready)
        settle()
        sleeper = Sleeper(core, executor)
        loads_early = plan.loads_grammars_early
        ServingLoop(core, clients, pulse, sleeper, loads_early=loads_early).run()
    finally:
        executor.stop()


def _prepare_device(registry: Registry, name: str) -> None:
    """Lets the platform begin what takes its time. A worker may do without a platform."""
    with contextlib.suppress(UnknownPluginError):
        prepare = getattr(registry.load("platforms", name), "prepare", None)
        if prepare is not None:
            threading.Thread(target=prepare, name="device", daemon=True).start()


def scheduler_maker(plan: EnginePlan, registry: Registry) -> Callable[[SchedulerLimits], Scheduler]:
    """Imports the scheduler and its queue policy, which is made here: both are checked before the
    model is loaded."""
    takes_policy = getattr(registry.load("schedulers", plan.scheduler), "takes_queue_policy", False)
    registry.factory("schedulers", plan.scheduler)
    policies: list[QueuePolicy] = []
    if plan.queue_policy is not None:
        if not takes_policy:
            raise ConfigError(
                f"{registry.describe('schedulers', plan.scheduler)} takes no queue policy: leave "
                f"--scheduling-policy {plan.queue_policy} out, or --scheduler-cls"
            )
        policies.append(registry.make("queue_policies", plan.queue_policy))

    def make(limits: SchedulerLimits) -> Scheduler:
        scheduler: Scheduler = registry.make("schedulers", plan.scheduler, limits, *policies)
        return scheduler

    return make


def make_core(
    plan: EnginePlan,
    executor: Executor,
    make_scheduler: Callable[[SchedulerLimits], Scheduler],
    capacity: KVCapacity,
    phases: Phases,
) -> tuple[EngineCore, EngineReady]:
    """The step loop over a started executor, and what to tell the parent."""
    worker = plan.worker
    hasher = None
    if plan.enable_prefix_caching:
        hasher = PrefixHasher(plan.prefix_caching_hash_algo, worker.block_size, worker.model)
    if worker.swap_bytes and not capacity.num_host_blocks:
        raise ConfigError(
            f"worker {worker.worker!r} keeps no KV in the host's memory: leave --preemption-mode "
            "swap out"
        )
    space = SwapSpace(capacity.num_host_blocks) if capacity.num_host_blocks else None
    blocks = BlockManager(
        capacity.num_blocks, worker.block_size, hasher, space, capacity.num_first_blocks
    )
    notes = list(capacity.notes)
    num_block_tokens = (capacity.num_blocks - 1) * worker.block_size
    max_model_len = worker.max_model_len
    if num_block_tokens < max_model_len:
        notes.append(
            f"context limited to {num_block_tokens} tokens, which is what the KV cache holds "
            f"(max_model_len is {max_model_len})"
        )
        max_model_len = num_block_tokens
    scheduler = make_scheduler(_scheduler_limits(plan, max_model_len))
    core = EngineCore(
        executor,
        scheduler,
        blocks,
        RequestBounds(
            max_model_len,
            capacity.logits_width,
            num_block_tokens,
            worker.most_step_tokens,
            pooling=worker.pooler is not None,
        ),
        max_num_seqs=worker.max_num_seqs,
        max_num_batched_tokens=worker.most_step_tokens,
        steps_in_flight=worker.steps_in_flight or capacity.steps_in_flight,
        grammars=_grammars(plan, capacity.logits_width, max_model_len),
        stream_interval=plan.stream_interval,
    )
    ready = EngineReady(
        num_blocks=capacity.num_blocks,
        block_size=worker.block_size,
        max_model_len=max_model_len,
        logits_width=capacity.logits_width,
        phases=phases,
        notes=notes,
    )
    return core, ready


def _scheduler_limits(plan: EnginePlan, max_model_len: int) -> SchedulerLimits:
    return SchedulerLimits(
        max_num_seqs=plan.worker.max_num_seqs,
        max_num_batched_tokens=plan.worker.max_num_batched_tokens,
        max_num_lone_tokens=plan.worker.max_num_lone_tokens,
        max_model_len=max_model_len,
        enable_chunked_prefill=plan.enable_chunked_prefill,
        long_prefill_token_threshold=plan.long_prefill_token_threshold,
        max_num_partial_prefills=plan.max_num_partial_prefills,
        max_long_partial_prefills=plan.max_long_partial_prefills,
        delay_factor=plan.scheduler_delay_factor,
    )


def _grammars(plan: EnginePlan, logits_width: int, max_model_len: int) -> GrammarCompiler | None:
    """Loads nothing yet: the first grammar does, or an engine that has nothing to do."""
    if plan.tokenizer_mode == "none":
        return None
    registry = Registry.for_plan(plan.worker)

    def vocabulary() -> Vocabulary:
        tokenizer = load_tokenizer(
            registry, plan.tokenizer_mode, plan.tokenizer, plan.worker.trust_remote_code
        )
        return read_vocabulary(tokenizer, logits_width)

    def backend(name: str, vocabulary: Vocabulary) -> GrammarBackend:
        return cast(GrammarBackend, registry.make("grammars", name, vocabulary))

    return GrammarCompiler(
        vocabulary, backend, plan.grammar_backend, max_model_len, plan.json_whitespace
    )


def _one_line(error: BaseException, registry: Registry) -> str:
    """What the user reads; our own errors are written for that, others name whose code it was."""
    lines = str(error).strip().splitlines() or [""]
    if isinstance(error, JackfieldError):
        return " ".join(line.strip() for line in lines)
    who = culprit(error, registry)
    by = "" if who is None else f" in {who}"
    return f"the engine failed{by}: {type(error).__name__}: {lines[0]}".rstrip(": ")
