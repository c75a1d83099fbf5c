"""The kinds of one-of-N plugins: what each is called, how it is chosen, what it must satisfy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

API, ENGINE, WORKER = "API process", "engine process", "worker"
"""Where a plugin runs; a worker may be a thread of the engine process or a process of its own."""

HOOKS = "hooks"
"""The group ``jackfield.hooks``: every installed distribution takes part; no kind of ``KINDS``."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One respect in which engines differ.

    ``flag`` chooses a plugin, or several; ``plugin_flag`` adds one that was never packaged.
    ``contract`` is the Protocol (``module:Class``) that its classes satisfy, None where no plugin
    can be written yet; ``process`` is where they run; ``default`` is who answers where neither
    an option nor the checkpoint says; ``api_versions`` are the contract versions that this kernel
    accepts.
    """

    name: str
    flag: str
    plugin_flag: str
    contract: str | None
    imports_torch: bool = False
    process: str = WORKER
    default: str | None = None
    api_versions: frozenset[int] = frozenset({1})

    @property
    def group(self) -> str:
        """The entry-point group."""
        return f"jackfield.{self.name}"

    @property
    def contract_name(self) -> str:
        """The Protocol's name; empty where there is none yet."""
        return (self.contract or "").partition(":")[2]


def _kind(
    name: str,
    flag: str,
    plugin_flag: str,
    contract: str | None,
    imports_torch: bool = False,
    process: str = WORKER,
    default: str | None = None,
) -> Kind:
    path = None if contract is None else f"jackfield.contracts.{contract}"
    return Kind(name, flag, plugin_flag, path, imports_torch, process, default)


_ALL = (
    _kind(
        "tool_parsers",
        "--tool-call-parser",
        "--tool-parser-plugin",
        "text:ToolParser",
        process=API,
    ),
    _kind(
        "reasoning_parsers",
        "--reasoning-parser",
        "--reasoning-parser-plugin",
        "text:ReasoningParser",
        process=API,
    ),
    _kind(
        "grammars",
        "--guided-decoding-backend",
        "--grammar-plugin",
        "grammar:GrammarBackend",
        process=ENGINE,
    ),
    _kind(
        "schedulers",
        "--scheduler-cls",
        "--scheduler-plugin",
        "scheduling:Scheduler",
        process=ENGINE,
        default="fcfs",
    ),
    _kind(
        "queue_policies",
        "--scheduling-policy",
        "--queue-policy-plugin",
        "scheduling:QueuePolicy",
        process=ENGINE,
    ),
    _kind(
        "executors",
        "--distributed-executor-backend",
        "--executor-plugin",
        "work:Executor",
        process=ENGINE,
        default="uni",
    ),
    _kind("workers", "--worker-cls", "--worker-plugin", "work:Worker", default="device"),
    _kind("models", "--model-impl", "--model-plugin", "model:Model", True),
    _kind(
        "quantization",
        "--quantization",
        "--quantization-plugin",
        "model:QuantizationMethod",
        True,
    ),
    _kind(
        "load_formats",
        "--load-format",
        "--load-format-plugin",
        "loading:LoadFormat",
        default="auto",
    ),
    _kind(
        "attention_backends",
        "--attention-backend",
        "--attention-backend-plugin",
        "attention:AttentionBackend",
        True,
    ),
    _kind("speculative", "--speculative-config", "--speculative-plugin", None),
    _kind("kv_connectors", "--kv-transfer-config", "--kv-connector-plugin", None),
    _kind(
        "tokenizers",
        "--tokenizer-mode",
        "--tokenizer-plugin",
        "text:TokenizerMode",
        process=API,
        default="auto",
    ),
    _kind(
        "config_formats",
        "--config-format",
        "--config-format-plugin",
        "config_format:ConfigFormat",
        process=API,
        default="auto",
    ),
    _kind("platforms", "--device", "--platform-plugin", "platform:Platform"),
    _kind(
        "response_stores",
        "--response-store",
        "--response-store-plugin",
        "response_store:ResponseStore",
        process=API,
        default="memory",
    ),
    _kind(
        "logits_processors",
        "--logits-processors",
        "--logits-processor-plugin",
        "logits:LogitsProcessor",
        True,
    ),
    _kind(
        "bundled_models",
        "--model",
        "--bundled-model-plugin",
        "bundled_models:BundledModel",
        process=API,
        default="jackfield-mini",
    ),
    _kind("middleware", "--middleware", "--middleware-plugin", "serving:Middleware", process=API),
)
KINDS: Mapping[str, Kind] = MappingProxyType({kind.name: kind for kind in _ALL})
