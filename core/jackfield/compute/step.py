"""A step on its way through the model runner."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from jackfield.compute.cuda_graphs import SampledGraph
from jackfield.compute.pending import PromptLogprobs
from jackfield.compute.sampler import SamplingMode
from jackfield.contracts.work import Int32Array, ScheduledBatch


@dataclass(frozen=True, slots=True)
class StepSampling:
    """What the N sampling sequences of a step need: their ``rows`` and the ``positions`` that
    their tokens go to, int32 [N]; the union of their ``RowFlag``s."""

    rows: Int32Array
    positions: Int32Array
    flags: int
    mode: SamplingMode


@dataclass(slots=True)
class Step:
    """A batch, what it samples (None: nothing) and, once computed, what it is sampled from.

    ``failed``: rows that failed alone, with a message. ``logits`` [N, V]; ``targets`` rows
    and positions of the ids, int64 [N] both. ``graph``: what computed it, if a graph did.
    """

    batch: ScheduledBatch
    failed: tuple[tuple[int, str], ...]
    is_decode: bool
    sampling: StepSampling | None = None
    logits: Tensor | None = None
    targets: tuple[Tensor, Tensor] | None = None
    prompt: PromptLogprobs | None = None
    graph: SampledGraph | None = None
