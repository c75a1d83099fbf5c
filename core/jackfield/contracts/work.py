"""Engine and worker: what is computed in a step, and what comes back. No torch here.

Kinds: ``jackfield.workers`` (``--worker-cls``) and ``jackfield.executors``
(``--distributed-executor-backend``).

A *row* is a place in the batch state that the worker keeps on its device: token ids, block
table and sampling parameters of one running request, ``max_num_seqs`` rows in all. The
engine owns the rows' allocation; the worker only obeys. Sampled ids stay in the row: the
worker writes each sampled token after the row's last one, so that the next step can be
executed before the host has seen the token.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from jackfield.config.plan import WorkerPlan
from jackfield.contracts.messages import TokenLogprobs
from jackfield.contracts.sampling import TokenSampling

Int32Array = npt.NDArray[np.int32]
Float32Array = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class AdmittedRow:
    """A request takes a row in this step, for the first time or again after a preemption.

    ``token_ids``: int32, the prompt and whatever was generated before. ``num_prompt_tokens``
    of them are the prompt.
    """

    row: int
    token_ids: Int32Array
    num_prompt_tokens: int
    sampling: TokenSampling


@dataclass(frozen=True, slots=True)
class BlockSwaps:
    """KV blocks that are copied between the device and the host's memory.

    ``out`` int32 [N, 2]: block on the device, block in the host's memory; ``back`` int32 [N, 2]:
    block in the host's memory, block on the device. All of ``out`` are copied first.
    """

    out: Int32Array
    back: Int32Array


@dataclass(frozen=True, slots=True)
class ScheduledBatch:
    """One step. All arrays are of length S, the sequences in the step, unless said otherwise.

    ``admitted`` and ``new_blocks`` take effect before the step is computed. Tokens
    ``first_positions[i] .. first_positions[i] + num_tokens[i] - 1`` of row ``rows[i]`` are
    computed; their ids are in the row already. Where ``samples[i]``, a token is sampled from
    the last of them and written at position ``first_positions[i] + num_tokens[i]`` of the row.
    Rows come with the ``num_tokens == 1`` ones first. A row stands in a step at most once.
    """

    step: int
    admitted: tuple[AdmittedRow, ...]
    rows: Int32Array
    num_tokens: Int32Array
    first_positions: Int32Array
    samples: BoolArray
    new_blocks: Int32Array
    """[C, 3]: row, index in the row's block table, block id."""
    given: Int32Array | None = None
    """[G, 3]: row, position, token id. Ids that no step samples, written to their rows behind
    ``admitted`` and before the step is computed."""
    swaps: BlockSwaps | None = None
    """Copies to make before the step is computed; only with ``KVCapacity.num_host_blocks``."""

    @property
    def total_tokens(self) -> int:
        """Tokens computed in the step."""
        return int(self.num_tokens.sum())


@dataclass(frozen=True, slots=True)
class TokenMasks:
    """Which ids some sequences of a step may sample.

    ``places`` int32 [M], rising: their places in ``ScheduledBatch.rows``; each samples. ``slots``
    int32 [M]: which mask of ``bits`` each has, one of its own. ``are_new`` [M] is false where that
    mask is the one that the slot had when a step used it last. ``bits`` int32 [S, W] with
    W = V // 32 + 1 for a logits width of V: bit i % 32 of word i // 32 allows id i. Bits beyond
    V - 1 mean nothing. Allowed ids keep their logits, others never come out; the masks act behind
    all other rules. M may be 0. The arrays may change once the step before has been waited for
    and ``finish`` has returned.
    """

    places: Int32Array
    slots: Int32Array
    are_new: BoolArray
    bits: Int32Array


@dataclass(frozen=True, slots=True)
class RowLogprobs:
    """Logprobs of one row: of the sampled token (None if not asked or none was sampled) and of
    prompt positions ``prompt_start ..`` that this step computed."""

    row: int
    output: TokenLogprobs | None
    prompt: tuple[TokenLogprobs, ...] = ()
    prompt_start: int = 0


@dataclass(frozen=True, slots=True)
class StepOutput:
    """What a step sampled: ``token_ids[i]`` (int32, [S]; undefined where ``samples`` was false),
    aligned with ``ScheduledBatch.rows``; logprobs of the rows that asked; rows that failed
    alone, with a message. A worker whose plan has a ``pooler`` samples nothing: ``pooled``
    (float32, [N, D]) has a vector for each of the N sequences where ``samples`` is true, in the
    batch's order. Where the plan wants one of every token, ``pooled`` (float32, [T, D]) has those
    of all T tokens of the step, and ``pooled_spans`` (int32, [S, 2]) says for each sequence the
    position of its first one and how many there are."""

    token_ids: Int32Array
    logprobs: tuple[RowLogprobs, ...] = ()
    failed: tuple[tuple[int, str], ...] = ()
    pooled: Float32Array | None = None
    pooled_spans: Int32Array | None = None


class PendingStep(Protocol):
    """A step that is under way on the device."""

    def wait(self) -> StepOutput:
        """Blocks until the step is computed. Called once, in the order of ``execute``."""
        ...


@dataclass(frozen=True, slots=True)
class KVCapacity:
    """What the worker found room for once the model was loaded."""

    num_blocks: int
    """KV blocks, the reserved block 0 included (padding writes go there)."""
    logits_width: int
    """Width of the logits: a token id of a prompt or of a parameter must be below it."""
    steps_in_flight: int
    """How many steps the engine should have enqueued at once: 2 where the device runs
    beside the host, 1 where it does not."""
    notes: tuple[str, ...] = ()
    """Lines for the start-up story (attention backend, graphs, memory)."""
    num_host_blocks: int = 0
    """KV blocks in the host's memory, where the plan has ``swap_bytes``."""
    num_first_blocks: int | None = None
    """Where a block takes memory once it is used: so many are used before free blocks that hold
    a cached prefix are used again. None: the memory of all of them is taken."""


class Worker(Protocol):
    """Owns one device: the model's shard, the KV tensors, the batch state.

    Made in the worker's process with no arguments; called by its executor from one thread.
    An exception from any method ends the engine; what concerns one row goes into
    ``StepOutput.failed``.
    """

    name: ClassVar[str]
    api_version: ClassVar[int]

    def start(self, plan: WorkerPlan) -> KVCapacity:
        """Loads the model and sizes the KV cache; called once, before everything else."""
        ...

    def execute(self, batch: ScheduledBatch) -> PendingStep:
        """Enqueues one step and returns without waiting for the device, if it has one."""
        ...

    def begin(self, batch: ScheduledBatch) -> None:
        """Enqueues one step up to its logits. ``finish`` is the next call."""
        ...

    def finish(self, masks: TokenMasks) -> PendingStep:
        """Enqueues the rest of the step begun last, sampling under ``masks``."""
        ...

    def stop(self) -> None:
        """Frees the device. Called once; no call follows."""
        ...


@runtime_checkable
class HasMaskRoom(Protocol):
    """What a worker or an executor has if it owns memory from which masks reach its device."""

    def mask_room(self) -> Int32Array | None:
        """int32 [max_num_seqs, W]: the engine fills masks there if it is given, and hands it over
        as ``TokenMasks.bits``. Called for the first step that needs masks, and for the first
        such step after a sleep."""
        ...


@runtime_checkable
class CanSleep(Protocol):
    """What a worker or an executor has if it can give its device's memory away for a while.

    Called between two steps with no row in use. Both return when it is done.
    """

    def sleep(self, level: int) -> None:
        """Frees the KV cache and, with level 1, moves the weights into the host's memory; with
        level 2 lets go of them."""
        ...

    def wake_up(self) -> None:
        """Brings back what ``sleep`` took away: weights from the host's memory or from the
        checkpoint, and an empty KV cache of as many blocks as before."""
        ...


@runtime_checkable
class UsesIdleTime(Protocol):
    """What a worker or an executor has if it can do before it is needed what would hold a request
    up later."""

    def use_idle_time(self) -> bool:
        """Does one piece of it, less than 0.1 s long, and says whether there was one. Called
        between two steps when the engine has had nothing to do for a moment, until it is False
        once, and again after a sleep; never while the worker sleeps."""
        ...


@runtime_checkable
class GivesBackBlocks(Protocol):
    """What a worker or an executor has if its KV blocks take memory only once they are used."""

    def give_back(self, blocks: Int32Array) -> None:
        """What ``blocks`` (int32 [N], rising) hold is not needed any more: their memory may go
        back to the system. Called between two steps, when the engine has had nothing to do for
        some seconds."""
        ...


@runtime_checkable
class CallsWorkers(Protocol):
    """What an executor has if methods of its workers can be called by name."""

    def collective_rpc(
        self,
        method: str,
        timeout: float | None = None,
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> list[object]:
        """What ``method`` of each worker returns, in rank order. Called between two steps, one of
        which may be under way on the device. The values are plain ones (``registry.workers``
        has the rules and what an executor does on each worker). ``timeout`` in seconds is for
        executors that wait for other processes: ``TimeoutError``. ``RequestError`` where the
        workers have no such method."""
        ...


class Executor(Protocol):
    """Starts ``plan.tensor_parallel_size`` workers, runs each call on all, and ends with them.

    Its methods are the worker's, over all workers; the capacity is
    that of the smallest worker, the output that of rank 0. A worker that dies raises
    ``EngineError`` from the next call. It makes its workers with ``registry.workers.make_worker``.
    """

    name: ClassVar[str]
    api_version: ClassVar[int]

    def start(self, plan: WorkerPlan) -> KVCapacity:
        """Makes and starts the workers."""
        ...

    def execute(self, batch: ScheduledBatch) -> PendingStep:
        """Enqueues one step on every worker."""
        ...

    def begin(self, batch: ScheduledBatch) -> None:
        """Enqueues one step up to its logits on every worker."""
        ...

    def finish(self, masks: TokenMasks) -> PendingStep:
        """Enqueues the rest of it on every worker."""
        ...

    def stop(self) -> None:
        """Ends the workers."""
        ...
