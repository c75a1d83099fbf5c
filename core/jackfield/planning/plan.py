"""The plan of a server: made once from the settings, then never changed."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from jackfield.config.paths import given_path
from jackfield.config.plan import EnginePlan, WorkerPlan
from jackfield.config.settings import Settings
from jackfield.contracts.text import CheckpointText
from jackfield.errors import ConfigError
from jackfield.planning import device, generation, kernels, model
from jackfield.planning.choices import Choice, check_options, choices
from jackfield.planning.graphs import graph_plan
from jackfield.planning.kv_cache import choose_kv_dtype
from jackfield.planning.parsers import (
    checkpoint_text,
    choose_reasoning_parser,
    choose_tool_parser,
)
from jackfield.planning.pooling import PoolingPlan, plan_pooling
from jackfield.planning.quantization import choose_quantization
from jackfield.planning.scheduling import choose_scheduler
from jackfield.registry import Registry
from jackfield.registry.lookup import is_class_path
from jackfield.text.chat_template import RESERVED

if TYPE_CHECKING:
    from jackfield.hooks import Hooks

log = logging.getLogger(__name__)

_DEFAULT_WORKER = "device"
_GIB = 1 << 30
_ALL = 2**31 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingPlan:
    """All that the API process needs to know, and the plan it hands to its engine.

    ``generation_defaults`` has the names of ``SamplingParams``. ``tokenizer_mode`` is ``none``
    where there is no text. ``chat_template`` is a file's path or the template itself.
    """

    engine: EnginePlan
    directory: Path
    tokenizer_directory: Path
    tokenizer_mode: str
    config: Mapping[str, object]
    generation_defaults: Mapping[str, object]
    eos_token_ids: tuple[int, ...]
    served_model_names: tuple[str, ...]
    max_logprobs: int
    chat_template: str | None
    chat_template_content_format: str
    tool_parser: str | None
    reasoning_parser: str | None
    template_defaults: Mapping[str, object] = field(default_factory=dict)
    """``chat_template_kwargs`` of requests that do not say them."""
    pooling: PoolingPlan | None = None
    """Set where requests end in a vector: nothing is generated then."""
    checkpoint_text: CheckpointText = field(default_factory=CheckpointText)
    choices: tuple[Choice, ...] = ()
    """The plugins in use, and why."""


def make_plan(
    settings: Settings,
    registry: Registry,
    hooks: Hooks | None = None,
    *,
    check_weights: bool = True,
) -> ServingPlan:
    """Reads the checkpoint's small files and decides everything that torch is not needed for.

    Raises ``ConfigError`` and its kind for what cannot work: no such model, damaged weights,
    options that contradict each other, plugins that are not there. ``hooks`` are the installed
    ones.
    """
    files = model.find_files(settings, registry, hooks)
    pooling, files = plan_pooling(settings, files, registry)
    _check_text_plugins(settings, registry)
    text = checkpoint_text(settings, files)
    tool_parser = choose_tool_parser(settings, files, text, registry)
    reasoning_parser = choose_reasoning_parser(settings, files, text, registry)
    said = generation.read_generation(settings, files.directory)
    engine = _engine_plan(settings, files, registry, pooling)
    parsers = (tool_parser, reasoning_parser)
    chosen = choices(settings, engine, files, registry, *parsers)
    check_options(chosen, registry)
    plan = ServingPlan(
        engine=engine,
        directory=files.directory,
        tokenizer_directory=files.tokenizer,
        tokenizer_mode="none" if settings.skip_tokenizer_init else settings.tokenizer_mode,
        config=files.config,
        generation_defaults=generation.sampling_defaults(settings, said),
        eos_token_ids=generation.eos_token_ids(settings, said, files.config),
        served_model_names=settings.served_model_name or (files.name,),
        max_logprobs=_ALL if settings.max_logprobs < 0 else settings.max_logprobs,
        chat_template=_chat_template(settings.chat_template),
        chat_template_content_format=settings.chat_template_content_format,
        template_defaults=_template_defaults(settings),
        checkpoint_text=text,
        tool_parser=tool_parser,
        reasoning_parser=reasoning_parser,
        pooling=pooling,
        choices=chosen,
    )
    if check_weights:
        # Last, because it reads the most: the header of every shard.
        model.check_weights(settings, files.directory)
    return plan


def _engine_plan(
    settings: Settings, files: model.ModelFiles, registry: Registry, pooling: PoolingPlan | None
) -> EnginePlan:
    scheduler, queue_policy = choose_scheduler(settings, registry)
    whole_prompts = pooling is not None and pooling.whole_prompts
    platform, defaults = device.choose_platform(settings.device, registry)
    return EnginePlan(
        worker=_worker_plan(settings, files, registry, pooling, platform, defaults),
        scheduler=scheduler,
        queue_policy=queue_policy,
        enable_prefix_caching=settings.enable_prefix_caching
        and (pooling is None or pooling.keeps_prefixes),
        prefix_caching_hash_algo=settings.prefix_caching_hash_algo,
        enable_chunked_prefill=settings.enable_chunked_prefill and not whole_prompts,
        long_prefill_token_threshold=settings.long_prefill_token_threshold,
        max_num_partial_prefills=settings.max_num_partial_prefills,
        max_long_partial_prefills=settings.max_long_partial_prefills,
        stream_interval=_stream_interval(settings),
        scheduler_delay_factor=settings.scheduler_delay_factor,
        grammar_backend=settings.grammar_backend,
        json_whitespace=settings.json_whitespace,
        tokenizer_mode="none" if settings.skip_tokenizer_init else settings.tokenizer_mode,
        tokenizer=str(files.tokenizer),
        loads_grammars_early=defaults.loads_grammars_early,
        log_level="debug" if settings.verbose else settings.log_level,
    )


def _worker_plan(
    settings: Settings,
    files: model.ModelFiles,
    registry: Registry,
    pooling: PoolingPlan | None,
    platform: str,
    defaults: device.DeviceDefaults,
) -> WorkerPlan:
    trained = None if pooling is None else pooling.max_tokens
    max_model_len = model.context_length(settings, files.config, trained)
    whole_prompts = pooling is not None and pooling.whole_prompts
    limits = device.step_limits(
        settings,
        defaults,
        max_model_len,
        whole_prompts=whole_prompts,
        most_tokens=None if pooling is None else pooling.max_step_tokens,
    )
    block_size = device.block_size(settings, defaults)
    num_blocks = settings.num_gpu_blocks_override
    if whole_prompts:
        # An encoder has no KV: blocks cost nothing, and there are enough for all rows.
        num_blocks = 1 + limits.max_num_seqs * -(-max_model_len // block_size)
    graphs = graph_plan(settings)
    worker = _DEFAULT_WORKER if settings.worker_cls == "auto" else settings.worker_cls
    executor = kernels.choose_executor(settings, registry)
    attention = kernels.choose_attention(settings, registry)
    quantization = choose_quantization(settings, files.config, registry)
    load_format = model.choose_load_format(settings, quantization)
    registry.find("workers", worker)
    registry.find("load_formats", load_format)
    for name in settings.logits_processors:
        registry.find("logits_processors", name)
    dtype = model.choose_dtype(settings, files, defaults)
    kv_dtype = choose_kv_dtype(settings, files.config, dtype)
    return WorkerPlan(
        model=str(files.directory),
        config=dict(files.config),
        device=platform,
        dtype=dtype,
        max_model_len=max_model_len,
        limit_context=settings.max_model_len is None,
        max_num_seqs=limits.max_num_seqs,
        max_num_batched_tokens=limits.max_num_batched_tokens,
        max_num_lone_tokens=limits.max_num_lone_tokens,
        block_size=block_size,
        num_blocks_override=num_blocks,
        gpu_memory_utilization=settings.gpu_memory_utilization,
        cpu_offload_bytes=device.offload_bytes(settings, platform, defaults),
        kv_dtype=kv_dtype.name,
        calculate_kv_scales=kv_dtype.measured,
        cpu_kv_cache_bytes=_cpu_kv_cache_bytes(settings),
        kv_cache_bytes=settings.kv_cache_memory_bytes,
        swap_bytes=_swap_bytes(settings) if pooling is None or pooling.keeps_prefixes else 0,
        load_format=load_format,
        model_impl=model.choose_model(settings, files.config, registry),
        quantization=quantization,
        pooler=None if pooling is None else pooling.pooler,
        logits_processors=settings.logits_processors,
        attention_backend=attention,
        worker=worker,
        worker_extension=_worker_extension(settings),
        executor=executor,
        enforce_eager=graphs.enforce_eager or pooling is not None,
        max_graph_batch=graphs.max_batch,
        graph_sizes=graphs.sizes,
        max_graph_seq_len=graphs.max_seq_len,
        steps_in_flight=_steps_in_flight(settings),
        num_threads=settings.num_threads,
        seed=settings.seed,
        trust_remote_code=settings.trust_remote_code,
        code_revision=settings.code_revision,
        show_progress=settings.use_tqdm_on_load,
        max_parallel_loading=settings.max_parallel_loading_workers,
        max_compilers=defaults.max_compilers,
        plugins=registry.setup,
    )


def _template_defaults(settings: Settings) -> Mapping[str, object]:
    defaults = settings.default_chat_template_kwargs
    if taken := RESERVED & defaults.keys():
        raise ConfigError(
            f"--default-chat-template-kwargs cannot set {min(taken)}: each request has its own"
        )
    return defaults


def _cpu_kv_cache_bytes(settings: Settings) -> int | None:
    size = settings.cpu_kv_cache_gib
    return None if size is None else int(size * _GIB)


def _worker_extension(settings: Settings) -> str | None:
    path = settings.worker_extension_cls
    if path and not is_class_path(path):
        raise ConfigError(f"--worker-extension-cls {path}: give a class as module:Class")
    return path or None


def _steps_in_flight(settings: Settings) -> int:
    """0: as many as the device needs."""
    return 1 if settings.disable_async_output_proc else settings.num_scheduler_steps or 0


def _stream_interval(settings: Settings) -> int:
    at_once = 1 if settings.multi_step_stream_outputs else settings.num_scheduler_steps or 2
    return max(settings.stream_interval, at_once)


def _swap_bytes(settings: Settings) -> int:
    if settings.preemption_mode != "swap":
        if "swap_space" in settings.model_fields_set and settings.swap_space:
            log.warning("--swap-space has no effect without --preemption-mode swap")
        return 0
    if not settings.swap_space:
        raise ConfigError("--preemption-mode swap needs a --swap-space above 0")
    return int(settings.swap_space * _GIB)


def _check_text_plugins(settings: Settings, registry: Registry) -> None:
    """These are only found: the tokenizer is loaded when the engine is under way."""
    if not settings.skip_tokenizer_init:
        registry.find("tokenizers", settings.tokenizer_mode)
    registry.find("grammars", settings.grammar_backend)


def _chat_template(given: str | None) -> str | None:
    """The path of a file that is there, or a template: templates have braces."""
    if given is None or "{" in given:
        return given
    path = given_path(given)
    if not path.is_file():
        raise ConfigError(f"--chat-template {given}: there is no such file, and it is no template")
    return str(path)
