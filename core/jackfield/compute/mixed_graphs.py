"""Steps with prompts as CUDA graphs: launched one by one, kernels are bound by the host.

A step is filled up to one of a few shapes: decodes and prompts (or pieces of them) with sequences
of no tokens, tokens with those of the dummy row. The tokens follow each other without gaps, so
that a full step computes nothing in vain. The attention reads lengths in device memory, so that a
shape serves any of them. A capture holds up every request for the time of tens of steps: graphs are
captured while there is nothing to do, and a larger one that is there stands in for one that is not,
until that has cost as much.
"""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import torch
from torch import Tensor

from jackfield.compute.batch import (
    MixedLengths,
    StepInputs,
    count_up,
    mixed_parts,
    unpack_mixed,
)
from jackfield.compute.cuda_graphs import GraphRecorder, SampledGraph, SampleLogits, StepLogits
from jackfield.compute.row_state import RowState
from jackfield.compute.sampler import SamplingMode
from jackfield.compute.transfer import Uploads
from jackfield.contracts.work import Int32Array, ScheduledBatch

_DECODES = (0, 16, 64, 256, 512)
_PROMPTS = (8, 64)
"""Room for a prompt that is not there is a program a head of the attention: beside 8 they are idle
processors, beside 64 they take 19 us a layer of an H200."""
_TOKENS = (16, 32, 64, 128, 256, *range(512, 2048, 256), *range(2048, 4097, 512))
_USUAL_TOKENS = (128, 512, 1024, 2048)
"""Of steps that are captured before they come, where they are not prompts alone."""

MAX_SEQS = _DECODES[-1] + _PROMPTS[-1]

_MAX_WASTE = 8192
"""A shape is captured though others can stand in for it once they have computed so many tokens in
vain: 10 ms of a small model, 200 of a large one, where a capture takes 50 to 120."""


@dataclass(frozen=True, slots=True)
class MixedShape:
    """What a graph has room for; ``num_changes`` block changes. Without ``samples`` it ends
    before the logits: pieces of prompts that are not the last."""

    num_decodes: int
    num_prompts: int
    num_tokens: int
    num_changes: int
    samples: bool

    @property
    def num_seqs(self) -> int:
        return self.num_decodes + self.num_prompts

    def holds(self, other: MixedShape) -> bool:
        """Whether every step that fits ``other`` fits this one, and leaves as much."""
        return (
            self.samples == other.samples
            and self.num_decodes >= other.num_decodes
            and self.num_prompts >= other.num_prompts
            and self.num_tokens >= other.num_tokens
        )

    def waste(self, other: MixedShape) -> int:
        """Tokens that a step which fits ``other`` computes in vain. Room for a decode costs half of
        one where it is sampled, room for a prompt several, in every layer's attention."""
        decodes, prompts = (
            self.num_decodes - other.num_decodes,
            self.num_prompts - other.num_prompts,
        )
        return self.num_tokens - other.num_tokens + decodes // 2 + 8 * prompts

    @property
    def lengths(self) -> MixedLengths:
        samples = self.num_seqs if self.samples else 0
        return MixedLengths(self.num_changes, self.num_seqs, self.num_tokens, samples)

    @property
    def packed_size(self) -> int:
        """Numbers of a packed step."""
        return sum(self.lengths.parts)


def shape_for(batch: ScheduledBatch, state: RowState) -> MixedShape | None:
    """The smallest shape that holds a step; None if none does."""
    num_decodes = _num_decodes(batch)
    decodes = _at_least(_DECODES, num_decodes)
    prompts = _at_least(_PROMPTS, len(batch.rows) - num_decodes)
    if decodes is None or prompts is None:
        return None
    tokens = _at_least(_TOKENS, max(batch.total_tokens, decodes))
    if tokens is None:
        return None
    return _shape(decodes, prompts, tokens, bool(batch.samples.any()), state.block_size)


def _shape(decodes: int, prompts: int, tokens: int, samples: bool, block_size: int) -> MixedShape:
    changes = decodes + 2 * prompts + tokens // block_size
    return MixedShape(decodes, prompts, tokens, changes, samples)


def likely_shapes(max_tokens: int, max_num_seqs: int, block_size: int) -> Iterator[MixedShape]:
    """What is captured before it comes, in the order in which an engine that was idle is likely to
    meet it: a few prompts alone, full steps, then smaller ones. Every step of up to ``max_tokens``
    tokens fits one of them; others are captured once these have cost too much."""
    sizes = [size for size in _TOKENS if size <= max_tokens]
    if not sizes:
        return
    few, many = _PROMPTS
    for size in sizes:
        yield _shape(0, few, size, True, block_size)
    yield _shape(0, few, sizes[-1], False, block_size)
    usual = [size for size in _USUAL_TOKENS if size < sizes[-1]]
    decodes = _decodes(max_num_seqs)
    for size in (sizes[-1], *reversed(usual)):
        for n in decodes:
            if 0 < n <= size:
                yield _shape(n, few, size, True, block_size)
    for size in (sizes[-1], *usual[-1:]):
        for n in decodes:
            if n <= size:
                yield _shape(n, many, size, True, block_size)


def with_most_decodes(shape: MixedShape, max_num_seqs: int, block_size: int) -> MixedShape:
    """The shape, with room for as many decodes as there can be in so many tokens, if it has any."""
    if not shape.num_decodes:
        return shape
    most = max(n for n in _decodes(max_num_seqs) if n <= shape.num_tokens)
    return _shape(most, shape.num_prompts, shape.num_tokens, shape.samples, block_size)


def _decodes(max_num_seqs: int) -> list[int]:
    """Those that steps of so many sequences take: each is for more than the one below has."""
    below = (-1, *_DECODES[:-1])
    return [n for n, less in zip(_DECODES, below, strict=True) if less < max_num_seqs - 1]


def pack(batch: ScheduledBatch | None, state: RowState, shape: MixedShape) -> Int32Array:
    """A step, or nothing but padding, as int32; block changes must fit."""
    lengths = shape.lengths.parts
    packed = np.zeros(sum(lengths), dtype=np.int32)
    # np.split takes longer than all the rest.
    ends = list(accumulate(lengths))
    parts = [packed[end - length : end] for length, end in zip(lengths, ends, strict=True)]
    parts[0][:] = state.dummy_row * state.max_blocks
    for part in (parts[2], parts[5], parts[8]):
        part[:] = state.dummy_row
    if batch is None:
        return packed
    values = mixed_parts(batch, state)
    n, first = _num_decodes(batch), shape.num_decodes
    parts[4][:] = batch.total_tokens
    for place, (part, value) in enumerate(zip(parts, values, strict=True)):
        if place in (2, 3, 4):
            # Of sequences: prompts begin where the shape's decodes end.
            part[:n] = value[:n]
            part[first : first + len(value) - n] = value[n:]
        elif len(part):
            part[: len(value)] = value
    return packed


def unpack(packed: Tensor, state: RowState, shape: MixedShape, starts: Tensor) -> StepInputs:
    """Applies the block changes and builds the step; reads no value on the host. ``starts`` is
    int32 0 .. ``num_seqs`` or more."""
    return unpack_mixed(
        packed,
        state,
        shape.lengths,
        num_decodes=shape.num_decodes,
        max_query_len=shape.num_tokens,
        max_seq_len=state.max_model_len,
        fresh=False,
        starts=starts,
    )


def _num_decodes(batch: ScheduledBatch) -> int:
    return int((batch.num_tokens == 1).sum())


class MixedGraphs:
    """Graphs by shape. ``body(inputs)`` enqueues a step and returns what it leaves to sample."""

    def __init__(
        self,
        recorder: GraphRecorder,
        body: Callable[[StepInputs], StepLogits | None],
        sample: SampleLogits,
        state: RowState,
        uploads: Uploads,
        device: torch.device,
    ) -> None:
        self._recorder = recorder
        self._body, self._sample = body, sample
        self._state = state
        self._uploads = uploads
        most = _TOKENS[-1]
        changes = 2 * MAX_SEQS + most // state.block_size
        largest = MixedShape(_DECODES[-1], _PROMPTS[-1], most, changes, True)
        self._packed = torch.zeros(largest.packed_size, dtype=torch.int32, device=device)
        self._starts = count_up(MAX_SEQS, device)
        self._graphs: dict[MixedShape, SampledGraph] = {}
        self._wasted: Counter[MixedShape] = Counter()

    def __len__(self) -> int:
        """Graphs captured so far."""
        return len(self._graphs)

    def capture_next(self, mode: SamplingMode, max_tokens: int) -> bool:
        """Captures one more shape of up to so many tokens that is likely to come; False if there is
        none left."""
        state = self._state
        for shape in likely_shapes(max_tokens, state.dummy_row, state.block_size):
            if shape not in self._graphs:
                graph = self._graph(shape)
                if shape.samples:
                    graph.prepare(mode)
                return True
        return False

    def choose(self, wanted: MixedShape) -> MixedShape:
        """The shape for a step that ``wanted`` is the smallest for: that one, or a larger one."""
        if wanted in self._graphs:
            return wanted
        larger = [shape for shape in self._graphs if shape.holds(wanted)]
        if not larger:
            # One that then stands in for other numbers of decodes, too.
            return with_most_decodes(wanted, self._state.dummy_row, self._state.block_size)
        best = min(larger, key=lambda shape: shape.waste(wanted))
        self._wasted[wanted] += best.waste(wanted)
        return wanted if self._wasted[wanted] > _MAX_WASTE else best

    def run(self, batch: ScheduledBatch, shape: MixedShape) -> SampledGraph:
        """Replays one step up to its logits."""
        graph = self._graph(shape)
        self._uploads.upload_into(pack(batch, self._state, shape), self._packed)
        graph.replay()
        return graph

    def _graph(self, shape: MixedShape) -> SampledGraph:
        graph = self._graphs.get(shape)
        if graph is None:
            self._uploads.upload_into(pack(None, self._state, shape), self._packed)
            packed = self._packed[: shape.packed_size]
            graph = SampledGraph(
                self._recorder,
                lambda: self._body(unpack(packed, self._state, shape, self._starts)),
                self._sample,
            )
            self._graphs[shape] = graph
        return graph


def _at_least(sizes: Sequence[int], wanted: int) -> int | None:
    place = bisect.bisect_left(sizes, wanted)
    return sizes[place] if place < len(sizes) else None
