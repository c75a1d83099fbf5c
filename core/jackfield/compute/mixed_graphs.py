"""Small steps with prompts as CUDA graphs: launched one by one, kernels are bound by the host.

A step is filled up to one of a few shapes with tokens of the dummy row and with sequences of no
tokens. All sequences go through the attention that reads pages, so that one graph serves prompts,
chunks behind cached prefixes and decodes beside them. Graphs are captured when first needed.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from jackfield.compute.batch import StepInputs, mixed_parts
from jackfield.compute.cuda_graphs import GraphRecorder
from jackfield.compute.row_state import RowState
from jackfield.compute.sampler import SamplingMode
from jackfield.compute.transfer import Uploads
from jackfield.contracts.attention import AttentionBatch
from jackfield.contracts.work import Int32Array, ScheduledBatch

MAX_SEQS = 64
_SEQS = (4, 16, MAX_SEQS)
_TOKENS = (16, 32, 64, 128, 256, 512, 1024)
_MAX_CONTEXT = 4096
"""A decode among prompts is read by one program a head here; beyond this that takes too long."""


@dataclass(frozen=True, slots=True)
class MixedShape:
    """What a graph has room for; ``num_changes`` block changes."""

    num_tokens: int
    num_seqs: int
    num_changes: int

    @property
    def lengths(self) -> list[int]:
        """Of the arrays of ``batch.mixed_parts``."""
        t, s, c = self.num_tokens, self.num_seqs, self.num_changes
        return [c, c, s, s, s + 1, t, t, s, s, s]


def shape_for(batch: ScheduledBatch, state: RowState) -> MixedShape | None:
    """The smallest shape that holds a step that samples something; None if none does."""
    longest = int((batch.first_positions + batch.num_tokens).max())
    tokens = _at_least(_TOKENS, batch.total_tokens)
    seqs = _at_least(_SEQS, len(batch.rows))
    if tokens is None or seqs is None or longest > _MAX_CONTEXT:
        return None
    return MixedShape(tokens, seqs, 2 * seqs + tokens // state.block_size)


def pack(batch: ScheduledBatch | None, state: RowState, shape: MixedShape) -> Int32Array:
    """A step, or nothing but padding, as int32; block changes must fit."""
    packed = np.zeros(sum(shape.lengths), dtype=np.int32)
    parts = np.split(packed, np.cumsum(shape.lengths)[:-1])
    parts[0][:] = state.dummy_row * state.max_blocks
    for index in (2, 5, 8):
        parts[index][:] = state.dummy_row
    if batch is None:
        return packed
    parts[4][:] = batch.total_tokens
    values = mixed_parts(batch, state)
    for part, value in zip(parts, values, strict=True):
        part[: len(value)] = value
    return packed


def unpack(packed: Tensor, state: RowState, shape: MixedShape) -> StepInputs:
    """Applies the block changes and builds the step; reads no value on the host."""
    places, blocks, rows, lens, starts, token_rows, at, index, sample_rows, sample_at = torch.split(
        packed, shape.lengths
    )
    state.set_blocks(places, blocks)
    token_rows, positions = token_rows.long(), at.long()
    attention = AttentionBatch(
        rows=rows,
        query_starts=starts,
        seq_lens=lens,
        block_table=state.block_table,
        slots=state.gather_slots(token_rows, positions),
        positions=positions,
        num_seqs=shape.num_seqs,
        num_tokens=shape.num_tokens,
        num_decodes=0,
        max_query_len=shape.num_tokens,
        max_seq_len=_MAX_CONTEXT,
        fresh=False,
    )
    return StepInputs(
        ids=state.gather_ids(token_rows, positions),
        attention=attention,
        sample_index=index.long(),
        sample_rows=sample_rows.long(),
        sample_positions=sample_at.long(),
    )


class MixedGraphs:
    """Graphs by (shape, mode). ``body(inputs, mode, out)`` enqueues a step and writes ids to
    ``out`` (int32 [num_seqs]); without a mode nothing is sampled, and it keeps the logits."""

    def __init__(
        self,
        recorder: GraphRecorder,
        body: Callable[[StepInputs, SamplingMode | None, Tensor], None],
        state: RowState,
        uploads: Uploads,
        device: torch.device,
    ) -> None:
        self._recorder = recorder
        self._body = body
        self._state = state
        self._uploads = uploads
        largest = MixedShape(_TOKENS[-1], MAX_SEQS, 2 * MAX_SEQS + _TOKENS[-1])
        self._packed = torch.zeros(sum(largest.lengths), dtype=torch.int32, device=device)
        self._out = torch.zeros(MAX_SEQS, dtype=torch.int32, device=device)
        self._graphs: dict[tuple[MixedShape, SamplingMode | None], Callable[[], None]] = {}

    def __len__(self) -> int:
        """Graphs captured so far."""
        return len(self._graphs)

    def run(self, batch: ScheduledBatch, shape: MixedShape, mode: SamplingMode | None) -> Tensor:
        """One step. ids int32 [samples], valid on the device until the next call."""
        replay = self._graph(shape, mode)
        self._uploads.upload_into(pack(batch, self._state, shape), self._packed)
        replay()
        return self._out[: int(batch.samples.sum())]

    def _graph(self, shape: MixedShape, mode: SamplingMode | None) -> Callable[[], None]:
        replay = self._graphs.get((shape, mode))
        if replay is None:
            self._uploads.upload_into(pack(None, self._state, shape), self._packed)
            packed, out = self._packed[: sum(shape.lengths)], self._out[: shape.num_seqs]
            replay = self._recorder.record(
                lambda: self._body(unpack(packed, self._state, shape), mode, out)
            )
            self._graphs[shape, mode] = replay
        return replay


def _at_least(sizes: Sequence[int], wanted: int) -> int | None:
    place = bisect.bisect_left(sizes, wanted)
    return sizes[place] if place < len(sizes) else None
