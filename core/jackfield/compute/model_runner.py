"""One step on the device: from the engine's batch to sampled ids, without waiting."""

from __future__ import annotations

import logging
from collections.abc import Callable
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch

from jackfield.compute.batch import (
    StepInputs,
    count_up,
    decode_inputs,
    is_decode,
    mixed_inputs,
    pack_decode,
    pack_mixed,
    pack_padding,
    padded_batch,
    sampled_hidden,
)
from jackfield.compute.cuda_graphs import CaptureError, CudaGraphRecorder, GraphRecorder
from jackfield.compute.kv_cache import LOGPROB_SLICE_BYTES, vocabulary_size
from jackfield.compute.kv_scales import Scales
from jackfield.compute.kv_store import KVStore
from jackfield.compute.layers.unquantized import has_products
from jackfield.compute.logits_processors import Failures, LoadProcessor, LogitsProcessors
from jackfield.compute.pending import CopiedStep
from jackfield.compute.prompt_logprobs import asks_prompt_logprobs, step_prompt_logprobs
from jackfield.compute.recorded_decodes import RecordedDecodes, recorded_decodes
from jackfield.compute.row_state import RARE, RowState
from jackfield.compute.sampler import GREEDY
from jackfield.compute.step import Step
from jackfield.compute.step_graphs import StepGraphs, decode_step
from jackfield.compute.step_sampler import StepSampler
from jackfield.compute.transfer import Uploads
from jackfield.config.plan import WorkerPlan
from jackfield.contracts.attention import AttentionBackend
from jackfield.contracts.logits import LogitsContext
from jackfield.contracts.model import Model
from jackfield.contracts.platform import Platform
from jackfield.contracts.work import (
    AdmittedRow,
    Int32Array,
    KVCapacity,
    PendingStep,
    ScheduledBatch,
    TokenMasks,
)

if TYPE_CHECKING:
    from jackfield.compute.kernels.precompile import Precompiler

log = logging.getLogger(__name__)
_Answer = TypeVar("_Answer")

_DECODE_SIZES = (1, 2, 32, 64, 96, 256, 288)
_PREFILL_LENGTHS = (2, 16, 64, 1024, 32768)
_PREFIX = 8
"""Steps that between them launch every variant of the kernels: decodes, and prompts with and
without a cached prefix of some tokens, unless the attention has warmed itself up."""


class ModelRunner:
    """Runs a loaded model over the batch state of one device. Called from one thread."""

    def __init__(
        self,
        plan: WorkerPlan,
        platform: Platform,
        model: Model,
        backend: AttentionBackend,
        device: torch.device,
        recorder: GraphRecorder | None = None,
        load_processor: LoadProcessor | None = None,
        kv_scales: Scales = MappingProxyType({}),
    ) -> None:
        self._plan, self._platform, self._model, self._backend = plan, platform, model, backend
        self._device = device
        self._on_host = device.type == "cpu"
        self._dtype = getattr(torch, plan.dtype)
        # A model without KV fills whole prompts up to rectangles itself.
        self._pads = self._on_host and has_products(self._dtype) and bool(model.attention_specs)
        self._recorder = recorder
        self._uploads = Uploads(device)
        self._state = RowState(
            max_num_seqs=plan.max_num_seqs,
            max_model_len=plan.max_model_len,
            block_size=plan.block_size,
            device=device,
            uploads=self._uploads,
        )
        self._sampler = StepSampler(self._state, self._uploads, self._dtype)
        self._load_processor = load_processor
        self._query_starts = count_up(plan.max_num_seqs, device)
        self._graphs: StepGraphs | None = None
        self._recorded: RecordedDecodes | None = None
        self._kv_scales = kv_scales
        self._store: KVStore | None = None
        self._logits_width = 0
        self._begun: Step | None = None

    @torch.inference_mode()
    def start(self, precompiler: Precompiler | None = None) -> KVCapacity:
        """Sizes and allocates the KV cache, runs one token, captures the first graphs.

        ``precompiler`` has traced the backend's ``warm_up``; without it the kernels are compiled
        already, as after a sleep. Raises ``ConfigError`` where the KV cache cannot hold one
        sequence.
        """
        self._store = store = KVStore(
            self._plan,
            self._platform,
            self._model,
            self._backend,
            self._device,
            self._uploads,
            self._kv_scales,
        )
        if precompiler is not None:
            with precompiler.tracing():
                self._trace()
        store.measure(self._run_alone)
        notes = store.told()
        self._logits_width = self._run_dummy(1, 0)
        self._sampler.start(self._logits_width, self._processors())
        recorder = self._recorder
        if recorder is None and self._device.type == "cuda":
            recorder = CudaGraphRecorder(self._device)
        if recorder and self._backend.supports_graphs and not self._plan.enforce_eager:
            self._graphs = StepGraphs(
                self._plan,
                self._model,
                self._state,
                self._uploads,
                self._sampler.choose,
                recorder,
                self._logits_width,
                lambda: self._sampler.masks,
            )
            notes += self._by_graphs(lambda graphs: [graphs.capture()], [])
        if self._on_host:
            self._recorded = recorded_decodes(self._plan, self._model, self._backend)
        if precompiler is not None:
            # Prompts' kernels take the longest, and decodes have not waited for them.
            precompiler.finish()
        return KVCapacity(
            num_blocks=store.num_blocks,
            logits_width=self._logits_width,
            steps_in_flight=self._plan.steps_in_flight or self._platform.steps_in_flight,
            num_host_blocks=store.num_host_blocks,
            num_first_blocks=store.num_first_blocks,
            notes=tuple(notes),
        )

    @torch.inference_mode()
    def use_idle_time(self) -> bool:
        """Captures one graph more, if there is one that is likely to be needed."""
        return self._by_graphs(StepGraphs.capture_next, False)

    def give_back(self, blocks: Int32Array) -> None:
        """Lets the memory of KV blocks go that nobody needs."""
        assert self._store is not None, "start comes before it"
        self._store.give_back(blocks)

    @torch.inference_mode()
    def execute(self, batch: ScheduledBatch) -> PendingStep:
        """Enqueues one step. On the CPU the step is computed when this returns."""
        step = self._begin(batch)
        return self._sample_by_graph(step) or self._finish(step)

    @torch.inference_mode()
    def begin(self, batch: ScheduledBatch) -> None:
        """Enqueues one step up to its logits."""
        self._begun = self._begin(batch)

    @torch.inference_mode()
    def finish(self, masks: TokenMasks) -> PendingStep:
        """Enqueues the rest of the step that was begun."""
        step, self._begun = self._begun, None
        assert step is not None, "finish follows begin"
        masked = len(masks.places) > 0
        if masked:
            self._sampler.masks.put(masks, step.batch.samples)
        return self._sample_by_graph(step, masked) or self._finish(step, masked)

    def mask_room(self) -> Int32Array:
        """int32 [max_num_seqs, W]: where masks are best filled."""
        return self._sampler.masks.host

    # --- the parts of a step -----------------------------------------------------------

    def _step(self, batch: ScheduledBatch) -> Step:
        """Brings KV blocks to where they are needed and admits the new rows."""
        if batch.swaps is not None:
            assert self._store is not None, "start comes before a step"
            self._store.swap(batch.swaps)
        step = Step(batch, self._admit(batch.admitted), is_decode(batch))
        if batch.given is not None:
            self._state.write_given(batch.given)
        return step

    def _begin(self, batch: ScheduledBatch) -> Step:
        """Enqueues everything but the sampling. The host looks after that once the device is busy:
        a lone request waits for what comes before."""
        step = self._step(batch)
        step.graph = self._by_graphs(lambda graphs: graphs.replay(step), None)
        step.sampling = self._sampler.wanted(step)
        if step.graph is None:
            self._to_logits(step)
        return step

    def _by_graphs(self, ask: Callable[[StepGraphs], _Answer], otherwise: _Answer) -> _Answer:
        """``otherwise`` without graphs: where none are wanted, and from the first on that cannot be
        captured, which happens to models whose code is not ours."""
        if self._graphs is None:
            return otherwise
        try:
            return ask(self._graphs)
        except CaptureError as error:
            log.warning(
                "the model's steps cannot be CUDA graphs, and are launched kernel by kernel from "
                "now on, as with --enforce-eager: %s",
                error,
            )
            self._graphs = None
            return otherwise

    def _to_logits(self, step: Step) -> None:
        """The same without a graph."""
        batch, sampling = step.batch, step.sampling
        if len(batch.rows) == 0:
            if len(batch.new_blocks):
                self._state.apply_blocks(batch.new_blocks)
            return
        inputs = self._inputs(batch, step.is_decode)
        step.targets = (inputs.sample_rows, inputs.sample_positions)
        if step.is_decode and self._recorded is not None:
            step.logits = self._recorded.logits(inputs)
            if step.logits is not None:
                return
        if step.is_decode or not asks_prompt_logprobs(batch, self._state):
            hidden = sampled_hidden(self._model, inputs)
        else:
            every = self._model.forward(inputs.ids, inputs.attention.positions, inputs.attention)
            at_once = max(1, LOGPROB_SLICE_BYTES // (4 * self._logits_width))
            step.prompt = step_prompt_logprobs(
                batch, every, self._state, self._uploads, self._model.compute_logits, at_once
            )
            index = inputs.sample_index
            hidden = every if index is None else every.index_select(0, index)
        if sampling is not None:
            step.logits = self._model.compute_logits(hidden)

    def _sample_by_graph(self, step: Step, masked: bool = False) -> PendingStep | None:
        """Enqueues the sampling that is captured for the step, and the way to the host; None where
        there is none for what its rows ask for."""
        graph, sampling = step.graph, step.sampling
        if graph is None or sampling is None or sampling.flags & RARE:
            return None
        ids = graph.sample(sampling.mode, masked)[: len(sampling.rows)]
        return CopiedStep(step.batch, ids, failed=step.failed)

    def _finish(self, step: Step, masked: bool = False) -> PendingStep:
        """Enqueues the sampling and the way to the host."""
        if step.graph is not None and step.graph.left is not None and step.sampling is not None:
            left, n = step.graph.left, len(step.sampling.rows)
            step.logits = left.logits[:n]
            step.targets = (left.rows[:n], left.positions[:n])
        ids, output = None, None
        if step.sampling is not None:
            ids, output = self._sampler.sample(step, step.sampling, masked)
        return CopiedStep(step.batch, ids, output, step.prompt, step.failed)

    def _inputs(self, batch: ScheduledBatch, decode: bool) -> StepInputs:
        if not decode:
            if self._pads:
                batch = padded_batch(batch, self._state)
            packed = self._uploads.upload(pack_mixed(batch, self._state))
            return mixed_inputs(packed, batch, self._state, with_host_lens=self._on_host)
        size, num_changes = len(batch.rows), len(batch.new_blocks)
        seq_lens = batch.first_positions + 1
        packed = self._uploads.upload(pack_decode(batch, self._state, size, num_changes))
        return decode_inputs(
            packed,
            self._state,
            size=size,
            num_changes=num_changes,
            max_seq_len=int(seq_lens.max()),
            query_starts=self._query_starts[: size + 1],
            host_lens=tuple((1, n) for n in seq_lens.tolist()) if self._on_host else None,
        )

    # --- admission and start -----------------------------------------------------------

    def _admit(self, admitted: tuple[AdmittedRow, ...]) -> Failures:
        self._state.admit(admitted)
        return self._sampler.admit(admitted)

    def _processors(self) -> LogitsProcessors | None:
        if self._load_processor is None:
            return None
        return LogitsProcessors(
            self._plan.logits_processors,
            self._load_processor,
            LogitsContext(self._device, self._logits_width),
            self._state,
            self._uploads,
        )

    def _trace(self) -> None:
        """Launches what steps will launch, so that no request waits for a compiler."""
        plan = self._plan
        longest = min(plan.most_step_tokens, plan.max_model_len - _PREFIX)
        self._sampler.warm_up(vocabulary_size(plan.config))
        for size in sorted({min(n, plan.max_num_seqs) for n in _DECODE_SIZES}):
            packed = self._uploads.upload(pack_padding(self._state, size))
            starts = self._query_starts[: size + 1]
            left = decode_step(self._model, self._state, packed, size, 1, starts)
            self._sampler.choose(left.logits, left.rows, left.positions, GREEDY)
        # Only the attention's kernels may tell a cached prefix from none.
        prefixes = (0,) if hasattr(self._backend, "warm_up") else (0, _PREFIX)
        # Kernels of products go by rows, whether there may be so many decodes or not.
        lengths = (*_PREFILL_LENGTHS, *(n for n in _DECODE_SIZES if n > plan.max_num_seqs))
        for length in sorted({min(n, longest) for n in lengths}):
            for prefix in prefixes:
                self._run_dummy(length, prefix)

    def _run_dummy(self, num_tokens: int, first: int) -> int:
        """Runs tokens of the dummy row, so that what is lazy is ready. The logits' width."""
        batch = ScheduledBatch(
            step=0,
            admitted=(),
            rows=np.array([self._state.dummy_row], np.int32),
            num_tokens=np.array([num_tokens], np.int32),
            first_positions=np.array([first], np.int32),
            samples=np.ones(1, dtype=np.bool_),
            new_blocks=np.empty((0, 3), dtype=np.int32),
        )
        return self._run_alone(batch)

    def _run_alone(self, batch: ScheduledBatch) -> int:
        """Runs a step of one sequence that samples. The logits' width."""
        self._state.admit(batch.admitted)
        inputs = self._inputs(batch, is_decode(batch))
        logits = self._model.compute_logits(sampled_hidden(self._model, inputs))
        self._sampler.choose(logits, inputs.sample_rows, inputs.sample_positions, GREEDY)
        return int(logits.shape[-1])
