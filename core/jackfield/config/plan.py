"""The resolved values that one engine is built from. Frozen; crosses the process border as JSON."""

from __future__ import annotations

import msgspec


class PluginSource(msgspec.Struct, frozen=True):
    """A ``--<kind>-plugin`` value: a ``.py`` file or a module, not installed as a distribution."""

    kind: str
    source: str


class PluginSetup(msgspec.Struct, frozen=True, kw_only=True):
    """Which plugins may be used, and what they are told; the same in every process.

    ``options``: plugin name (or ``kind.name``) to option to value. ``lock`` is a file's path.
    """

    sources: tuple[PluginSource, ...] = ()
    bundled_only: bool = False
    disabled: tuple[str, ...] = ()
    """Distributions whose plugins are taken for not installed."""
    lock: str | None = None
    options: dict[str, dict[str, object]] = {}


class PoolerPlan(msgspec.Struct, frozen=True, kw_only=True):
    """How the hidden states of a prompt become one vector: those of the ``last`` token, of the
    first one (``cls``), or the ``mean`` of all; or one vector for each token (``all``).

    With ``scores`` the vector is what the model's head makes of that; with ``token_ids`` too, of
    a language model's head, the logits of these tokens.
    """

    kind: str
    scores: bool = False
    token_ids: tuple[int, ...] = ()


class WorkerPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker needs. Names are plugin names or ``module:Class`` paths; each process looks
    them up for itself."""

    model: str
    """Directory of the checkpoint, on this machine."""
    config: dict[str, object]
    """``config.json`` with the overrides applied; of a multi-modal checkpoint the whole one."""
    device: str
    """Platform plugin: ``cpu``, ``cuda``, ..."""
    dtype: str
    """``bfloat16``, ``float16`` or ``float32``; resolved, never ``auto``."""
    max_model_len: int
    max_num_seqs: int
    max_num_batched_tokens: int
    block_size: int
    max_num_lone_tokens: int = 0
    """Of a step for a request that is alone, where that is more than ``max_num_batched_tokens``."""
    limit_context: bool = False
    """Whether the context may be cut to what the KV cache holds: nobody asked for a length."""
    num_blocks_override: int | None = None
    gpu_memory_utilization: float = 0.9
    """A share up to 1, or bytes."""
    cpu_kv_cache_bytes: int | None = None
    """None: as much as the machine's memory suggests."""
    kv_cache_bytes: int | None = None
    """Of the KV cache, on any device; goes before ``cpu_kv_cache_bytes`` and
    ``gpu_memory_utilization``."""
    cpu_offload_bytes: int = 0
    """Weights that stay in the host's memory, for each device."""
    kv_dtype: str | None = None
    """``float8_e4m3fn`` or ``float8_e5m2``: what keys and values are kept as; None: ``dtype``."""
    calculate_kv_scales: bool = False
    """Whether the scales of 8-bit keys and values are measured instead of read."""
    swap_bytes: int = 0
    """Host memory for the KV of preempted requests; 0: they are computed again."""
    load_format: str = "auto"
    model_impl: str = "auto"
    quantization: str | None = None
    pooler: PoolerPlan | None = None
    """Set where requests end in a vector instead of tokens."""
    logits_processors: tuple[str, ...] = ()
    attention_backend: str = "auto"
    worker: str = "device"
    worker_extension: str | None = None
    """``module:Class`` that is mixed into the worker's class."""
    executor: str = "uni"
    enforce_eager: bool = False
    max_graph_batch: int = 512
    """The largest decode batch that gets a CUDA graph."""
    graph_sizes: tuple[int, ...] = ()
    """Decode batches that get one; empty: the usual ones."""
    max_graph_seq_len: int | None = None
    """Steps with a longer sequence run without graphs."""
    steps_in_flight: int = 0
    """0: as the worker says."""
    num_threads: int = 0
    """Compute threads on the CPU; 0: the physical cores."""
    seed: int = 0
    trust_remote_code: bool = False
    code_revision: str | None = None
    show_progress: bool = False
    max_parallel_loading: int | None = None
    """Weight files that may be read at once; None: as the load format likes."""
    tensor_parallel_size: int = 1
    max_compilers: int = 0
    """Processes that may compile kernels during the start."""
    compilers: tuple[int, ...] = ()
    """Sockets (file descriptors of the engine's process) of those that do: set by the engine."""
    plugins: PluginSetup = PluginSetup()

    @property
    def most_step_tokens(self) -> int:
        """Tokens of the largest step."""
        return max(self.max_num_batched_tokens, self.max_num_lone_tokens)


class EnginePlan(msgspec.Struct, frozen=True, kw_only=True):
    """What an engine process needs: the worker's plan and its own choices."""

    worker: WorkerPlan
    scheduler: str = "fcfs"
    queue_policy: str | None = None
    """Queue policy plugin, for a scheduler that takes one."""
    enable_prefix_caching: bool = True
    prefix_caching_hash_algo: str = "sha256"
    enable_chunked_prefill: bool = True
    long_prefill_token_threshold: int = 0
    max_num_partial_prefills: int = 1
    max_long_partial_prefills: int = 1
    scheduler_delay_factor: float = 0.0
    stream_interval: int = 1
    """Steps whose tokens go out together."""
    grammar_backend: str = "auto"
    """Grammars plugin of requests that name none."""
    json_whitespace: str | None = None
    """As ``GrammarSpec.whitespace``, where a request says nothing."""
    tokenizer_mode: str = "none"
    """``none`` where there is no text: then no output can be held to a grammar."""
    tokenizer: str = ""
    """Directory of the tokenizer; read when the first grammar comes."""
    loads_grammars_early: bool = True
    """Whether an engine that has nothing to do loads what grammars need before one comes."""
    log_level: str = "info"
