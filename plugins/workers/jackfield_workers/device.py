"""One device: finds the plugins by the plan's names, loads the model, runs its steps."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, cast

import msgspec
import torch
from torch import nn

from jackfield.checkpoint import architectures
from jackfield.compute.kv_cache import text_config
from jackfield.compute.kv_scales import Scales, ScalesAside
from jackfield.compute.layers.unquantized import products_of
from jackfield.compute.logits_processors import LoadProcessor
from jackfield.compute.model_runner import ModelRunner
from jackfield.compute.offload import CudaStreams, Offload
from jackfield.compute.pooling_runner import PoolingRunner
from jackfield.compute.warm_up import warm_up_attention
from jackfield.compute.weights import move_weights, read_weights
from jackfield.config.plan import WorkerPlan
from jackfield.contracts.attention import AttentionBackend, KVLayer
from jackfield.contracts.loading import CheckpointFiles, LoadFormat
from jackfield.contracts.logits import LogitsContext, LogitsProcessor
from jackfield.contracts.model import BuildContext, Model, QuantizationMethod, TensorParallelGroup
from jackfield.contracts.platform import Platform
from jackfield.contracts.work import Int32Array, KVCapacity, PendingStep, ScheduledBatch, TokenMasks
from jackfield.errors import CheckpointError, ConfigError, RequestError, UnknownPluginError
from jackfield.registry import Registry
from jackfield_workers.threads import threads_for

if TYPE_CHECKING:
    from jackfield.compute.kernels.precompile import Precompiler

_OUR_MODELS = ("auto", "jackfield", "vllm")
_ANY_MODEL = "transformers"


class DeviceWorker:
    """The worker of every platform that torch knows."""

    name: ClassVar[str] = "device"
    api_version: ClassVar[int] = 1

    def __init__(self) -> None:
        self._runner: ModelRunner | None = None
        self._make_runner: Callable[[], ModelRunner] | None = None
        self._plan: WorkerPlan | None = None
        self._model: Model | None = None
        self._device = torch.device("cpu")

    @torch.inference_mode()
    def start(self, plan: WorkerPlan) -> KVCapacity:
        """Loads the model and sizes the KV cache. Raises ``ConfigError`` for what cannot work."""
        story = _Story()
        registry = Registry.for_plan(plan)
        platform: Platform = registry.make("platforms", plan.device)
        device = platform.device(0)
        torch.manual_seed(plan.seed)
        dtype = _dtype(plan.dtype)
        backend_name = plan.attention_backend
        if backend_name == "auto":
            backend_name = platform.default_attention_backend
        backend: AttentionBackend = registry.make(
            "attention_backends", backend_name, device, dtype, plan.block_size
        )
        # Before the model is built: a plugin that is broken, or refuses its options, is known now.
        load_format: LoadFormat = registry.make("load_formats", plan.load_format)
        for name in plan.logits_processors:
            registry.factory("logits_processors", name)
        with story.phase("model built"):
            quantization = _quantization(plan, registry)
            offload = _offload(plan, device)
            model = _build_model(plan, registry, backend, device, dtype, quantization, offload)
        precompiler = _precompiler(plan, model, backend, device)
        if device.type == "cpu":
            torch.set_num_threads(plan.num_threads or threads_for(_num_bytes(model)))
        with story.phase("weights loaded"):
            files = CheckpointFiles(
                Path(plan.model),
                plan.config,
                plan.show_progress,
                max_parallel=plan.max_parallel_loading,
            )
            load_format.check(files)
            reader = ScalesAside(load_format)
            read_weights(
                model, reader, files, dtype=dtype, device=device, quantization=quantization
            )
            offloaded = () if offload is None else (offload.install(cast(nn.Module, model)),)
        with story.phase("model ready"):
            make_runner = partial(
                _runner,
                platform,
                model,
                backend,
                device,
                partial(_processor, registry),
                reader.scales,
            )
            runner = make_runner(plan)
            capacity = runner.start(precompiler)
        # As large again after a sleep; the compilers end with the start.
        plan = msgspec.structs.replace(plan, num_blocks_override=capacity.num_blocks, compilers=())
        self._plan, self._model, self._device, self._runner = plan, model, device, runner
        self._make_runner = lambda: make_runner(plan)
        what = (
            f"{type(model).__name__}, {plan.dtype} on {device}, attention: {backend_name}, "
            f"quantization: {plan.quantization or 'none'}"
        )
        if device.type == "cpu":
            what += f", matrix products: {products_of(dtype)}"
        return replace(capacity, notes=(what, story.told(), *offloaded, *capacity.notes))

    @property
    def model(self) -> Model | None:
        """The model, for what is mixed into the worker; None while it sleeps without weights."""
        return self._model

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self._device

    def execute(self, batch: ScheduledBatch) -> PendingStep:
        """Enqueues one step."""
        assert self._runner is not None, "the worker was not started"
        return self._runner.execute(batch)

    def begin(self, batch: ScheduledBatch) -> None:
        """Enqueues one step up to its logits."""
        assert self._runner is not None, "the worker was not started"
        self._runner.begin(batch)

    def finish(self, masks: TokenMasks) -> PendingStep:
        """Enqueues the rest of it."""
        assert self._runner is not None, "the worker was not started"
        return self._runner.finish(masks)

    def mask_room(self) -> Int32Array:
        """The runner's."""
        assert self._runner is not None, "the worker was not started"
        return self._runner.mask_room()

    def use_idle_time(self) -> bool:
        """The runner's."""
        assert self._runner is not None, "the worker was not started"
        return self._runner.use_idle_time()

    def give_back(self, blocks: Int32Array) -> None:
        """The runner's."""
        assert self._runner is not None, "the worker was not started"
        self._runner.give_back(blocks)

    @torch.inference_mode()
    def sleep(self, level: int) -> None:
        """Frees the KV cache, and moves the weights to the host (1) or forgets them (2)."""
        assert self._model is not None and self._plan is not None, "the worker was not started"
        if level == 1 and self._plan.cpu_offload_bytes:
            raise RequestError("with --cpu-offload-gb there is no sleep of level 1; take level 2")
        self._runner = None
        if level == 1:
            nothing = torch.empty(0)
            self._model.bind_kv(
                tuple(KVLayer(nothing, nothing) for _ in self._model.attention_specs)
            )
            move_weights(cast(nn.Module, self._model), torch.device("cpu"))
        else:
            self._model = self._make_runner = None
        # The engine has frozen what it was made of, and captured graphs hold each other.
        gc.unfreeze()
        gc.collect()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    @torch.inference_mode()
    def wake_up(self) -> None:
        """What the worker was before it slept, with an empty KV cache."""
        assert self._plan is not None, "the worker was not started"
        if self._model is None or self._make_runner is None:
            self.start(self._plan)
        else:
            move_weights(cast(nn.Module, self._model), self._device)
            self._runner = self._make_runner()
            self._runner.start()

    def stop(self) -> None:
        """Lets go of the model; the process ends soon, and the device's memory with it."""
        self._runner = self._model = self._make_runner = None


def _precompiler(
    plan: WorkerPlan, model: Model, backend: AttentionBackend, device: torch.device
) -> Precompiler | None:
    """On GPUs. The attention's kernels take the longest to compile: they are under way while the
    weights are loaded."""
    if device.type != "cuda":
        return None
    from jackfield.compute.kernels.precompile import Precompiler  # Triton: GPUs only

    precompiler = Precompiler(plan.compilers)
    with precompiler.tracing():
        warm_up_attention(model.attention_specs, backend, plan, device)
    return precompiler


def _runner(
    platform: Platform,
    model: Model,
    backend: AttentionBackend,
    device: torch.device,
    load_processor: LoadProcessor,
    kv_scales: Scales,
    plan: WorkerPlan,
) -> ModelRunner:
    if plan.pooler is not None:
        return PoolingRunner(plan, platform, model, backend, device, kv_scales)
    return ModelRunner(
        plan,
        platform,
        model,
        backend,
        device,
        load_processor=load_processor,
        kv_scales=kv_scales,
    )


def _offload(plan: WorkerPlan, device: torch.device) -> Offload | None:
    if not plan.cpu_offload_bytes:
        return None
    if device.type != "cuda":
        raise ConfigError(f"--cpu-offload-gb needs a CUDA device, not {device}")
    layers = text_config(plan.config).get("num_hidden_layers")
    num_layers = layers if isinstance(layers, int) else 0
    return Offload(plan.cpu_offload_bytes, num_layers, CudaStreams(device), device)


def _build_model(
    plan: WorkerPlan,
    registry: Registry,
    backend: AttentionBackend,
    device: torch.device,
    dtype: torch.dtype,
    quantization: QuantizationMethod | None,
    offload: Offload | None,
) -> Model:
    context = BuildContext(
        dtype=dtype,
        device=device,
        group=TensorParallelGroup(),
        attention_backend=backend,
        max_model_len=plan.max_model_len,
        max_num_batched_tokens=plan.most_step_tokens,
        quantization=quantization,
        trust_remote_code=plan.trust_remote_code,
        code_revision=plan.code_revision,
        directory=plan.model,
    )
    if offload is not None:
        context = replace(context, placing=offload.placing)
    model: Model = registry.make("models", _model_name(plan, registry), plan.config, context)
    return model


def _model_name(plan: WorkerPlan, registry: Registry) -> str:
    """By ``model_impl``: ours for the checkpoint's architecture, or the plugin of that name;
    ``auto`` falls back to transformers' own model."""
    if plan.model_impl not in _OUR_MODELS:
        return plan.model_impl
    names = architectures(plan.config)
    if not names:
        raise CheckpointError("config.json of the model names no architecture")
    unknown: UnknownPluginError | None = None
    for name in names:
        try:
            registry.load("models", name)
            return name
        except UnknownPluginError as error:
            unknown = unknown or error
    if plan.model_impl == "auto":
        return _ANY_MODEL
    assert unknown is not None
    raise unknown


def _num_bytes(model: Model) -> int:
    return sum(weight.nbytes for weight in cast(nn.Module, model).parameters())


def _quantization(plan: WorkerPlan, registry: Registry) -> QuantizationMethod | None:
    if plan.quantization is None:
        return None
    said = plan.config.get("quantization_config")
    config = said if isinstance(said, Mapping) else {}
    return cast(QuantizationMethod, registry.make("quantization", plan.quantization, config))


def _processor(
    registry: Registry, name: str, context: LogitsContext
) -> tuple[str, LogitsProcessor]:
    """Who it is, and one of it."""
    made: LogitsProcessor = registry.make("logits_processors", name, context)
    return registry.describe("logits_processors", name), made


def _dtype(name: str) -> torch.dtype:
    dtype = getattr(torch, name, None)
    if not isinstance(dtype, torch.dtype):
        raise ConfigError(f"dtype {name!r} is unknown; use bfloat16, float16 or float32")
    return dtype


class _Story:
    """How long each phase of the start took."""

    def __init__(self) -> None:
        self._phases: list[str] = []

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        start = time.monotonic()
        yield
        self._phases.append(f"{name} in {time.monotonic() - start:.2f} s")

    def told(self) -> str:
        return ", ".join(self._phases)
