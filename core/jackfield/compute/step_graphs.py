"""The captured steps of a model: which one serves a batch, and what each holds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from jackfield.compute.batch import (
    StepInputs,
    count_up,
    decode_inputs,
    pack_decode,
    pack_padding,
    sampled_hidden,
)
from jackfield.compute.cuda_graphs import (
    DecodeGraphs,
    GraphRecorder,
    SampledGraph,
    StepLogits,
    graph_sizes,
)
from jackfield.compute.kv_cache import layer_bytes, vocabulary_size
from jackfield.compute.mixed_graphs import MAX_SEQS, MixedGraphs, shape_for
from jackfield.compute.offload import layers_of
from jackfield.compute.prompt_logprobs import asks_prompt_logprobs
from jackfield.compute.row_state import RowState
from jackfield.compute.sampler import GREEDY, SamplingMode
from jackfield.compute.step import Step
from jackfield.compute.token_masks import MaskRoom
from jackfield.compute.transfer import Uploads
from jackfield.config.plan import WorkerPlan
from jackfield.contracts.model import Model
from jackfield.contracts.work import ScheduledBatch

_CUTS = (2, 8)
"""Layers that begin a part of a step with prompts."""

Choose = Callable[[Tensor, Tensor, Tensor, SamplingMode], Tensor]
"""(logits, rows, positions, mode) -> ids int32 [N], which it writes to the rows as well."""


class StepGraphs:
    """Decode steps by size and steps with prompts by shape, over one batch state."""

    def __init__(
        self,
        plan: WorkerPlan,
        model: Model,
        state: RowState,
        uploads: Uploads,
        choose: Choose,
        recorder: GraphRecorder,
        logits_width: int,
        masks: Callable[[], MaskRoom],
    ) -> None:
        self._plan, self._model, self._state, self._choose = plan, model, state, choose
        self._masks = masks
        self._recorder = recorder
        # Not where layers come from the host meanwhile: a part must end with all streams joined.
        self._cut_layers = () if plan.cpu_offload_bytes else cut_layers(model)
        self._longest = longest_captured(plan)
        self._logits_width = logits_width
        device = state.token_ids.device
        self._starts = count_up(plan.max_num_seqs, device)
        self._logits: Tensor | None = None
        self._decodes = DecodeGraphs(
            decode_sizes(plan),
            recorder,
            self._decode_step,
            self._sample,
            lambda size: pack_padding(state, size),
            uploads,
            device,
        )
        self._mixed = MixedGraphs(recorder, self._mixed_step, self._sample, state, uploads, device)

    def capture(self) -> str:
        """Captures the decode steps of a few sizes; what there is to tell about it."""
        self._decodes.capture(GREEDY)
        num, now = len(decode_sizes(self._plan)), len(self._decodes)
        return f"CUDA graphs: {num} decode sizes" + (f", {now} of them now" if now < num else "")

    def capture_next(self) -> bool:
        """Captures one step more that is likely to come, some 50 ms; False if there is none left:
        steps that are less likely are captured when they come."""
        return self._recorder.has_room() and (
            self._decodes.capture_next(GREEDY)
            or self._mixed.capture_next(GREEDY, self._plan.max_num_batched_tokens)
        )

    def replay(self, step: Step) -> SampledGraph | None:
        """Enqueues the step up to its logits; None where no graph can serve it."""
        batch = step.batch
        if len(batch.rows) == 0:
            return None
        if self._longest < self._plan.max_model_len:
            longest = int((batch.first_positions + batch.num_tokens).max())
            if longest > self._longest:
                return None
        if step.is_decode:
            size = self._decodes.choose(len(batch.rows))
            if size is None:
                return None
            packed = pack_decode(self._with_few_changes(batch, size), self._state, size, size)
            return self._decodes.run(packed, size)
        shape = shape_for(batch, self._state)
        if shape is None or asks_prompt_logprobs(batch, self._state):
            return None
        shape = self._mixed.choose(shape)
        return self._mixed.run(self._with_few_changes(batch, shape.num_changes), shape)

    def _with_few_changes(self, batch: ScheduledBatch, room: int) -> ScheduledBatch:
        """The step for a graph with room for so many block changes: more are applied now."""
        if len(batch.new_blocks) <= room:
            return batch
        self._state.apply_blocks(batch.new_blocks)
        return replace(batch, new_blocks=batch.new_blocks[:0])

    def _decode_step(self, packed: Tensor, size: int) -> StepLogits:
        starts = self._starts[: size + 1]
        return decode_step(self._model, self._state, packed, size, self._longest, starts)

    def _mixed_step(self, inputs: StepInputs) -> StepLogits | None:
        def cut(*_: object) -> None:
            self._recorder.cut()

        # Only while a step is captured: a model outlives its graphs.
        hooks = [layer.register_forward_pre_hook(cut) for layer in self._cut_layers]
        try:
            hidden = sampled_hidden(self._model, inputs)
        finally:
            for hook in hooks:
                hook.remove()
        if inputs.sample_index is None or len(inputs.sample_index) == 0:
            return None
        computed = self._model.compute_logits(hidden)
        # Shapes are many: their logits all go to one place.
        if self._logits is None:
            shape = (MAX_SEQS, self._logits_width)
            self._logits = torch.empty(shape, dtype=computed.dtype, device=computed.device)
        logits = self._logits[: len(computed)]
        logits.copy_(computed)
        return StepLogits(logits, inputs.sample_rows, inputs.sample_positions)

    def _sample(self, left: StepLogits, mode: SamplingMode, masked: bool) -> Tensor:
        if masked:
            self._masks().apply(left.logits)
        return self._choose(left.logits, left.rows, left.positions, mode)


def cut_layers(model: Model) -> tuple[nn.Module, ...]:
    """Before which the launch of a step with prompts is cut into parts: nothing else hides it, and
    a part takes about as long to launch as the device needs for those before. A model without a
    list of enough layers is launched whole."""
    layers = layers_of(model) if isinstance(model, nn.Module) else nn.ModuleList()
    return tuple(layers[place] for place in _CUTS if place < len(layers) - 1)


def decode_step(
    model: Model, state: RowState, packed: Tensor, size: int, longest: int, starts: Tensor
) -> StepLogits:
    """What a decode graph holds: a step that reads nothing but ``packed`` and the state."""
    inputs = decode_inputs(
        packed, state, size=size, num_changes=size, max_seq_len=longest, query_starts=starts
    )
    hidden = model.forward(inputs.ids, inputs.attention.positions, inputs.attention)
    logits = model.compute_logits(hidden)
    return StepLogits(logits, inputs.sample_rows, inputs.sample_positions)


def longest_captured(plan: WorkerPlan) -> int:
    """The longest context of a step that goes through a graph."""
    return min(plan.max_model_len, plan.max_graph_seq_len or plan.max_model_len)


def decode_sizes(plan: WorkerPlan) -> tuple[int, ...]:
    """Batch sizes of decode graphs."""
    return graph_sizes(plan.max_num_seqs, plan.max_graph_batch, plan.graph_sizes)


def graph_bytes(plan: WorkerPlan, itemsize: int) -> int:
    """What graphs keep beside what steps without them use: the layers' activations in a memory of
    their own, and the logits they leave, each decode size in its own place."""
    rows = MAX_SEQS + sum(decode_sizes(plan))
    logits = rows * vocabulary_size(plan.config) * itemsize
    return layer_bytes(plan.config, plan.max_num_batched_tokens, itemsize) + logits
