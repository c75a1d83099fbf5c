"""The kinds of one-of-N plugins: what each is called, how it is chosen, what it must satisfy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

API, ENGINE, WORKER = "API process", "engine process", "worker"
"""Where a plugin runs; a worker may be a thread of the engine process or a process of its own."""

HOOKS = "hooks"
"""The group ``jackfield.hooks``: every installed distribution takes part; no kind of ``KINDS``."""


def singular(kind: str) -> str:
    """``tool_parser`` of ``tool_parsers``, ``queue_policy`` of ``queue_policies``."""
    return kind[:-3] + "y" if kind.endswith("ies") else kind.removesuffix("s")


@dataclass(frozen=True, slots=True)
class Kind:
    """One respect in which engines differ.

    ``flag`` chooses a plugin, or several. ``contract`` is the Protocol (``module:Class``) that its
    classes satisfy, None where no plugin can be written yet; ``process`` is where they run;
    ``default`` is who answers where neither an option nor the checkpoint says; ``api_versions``
    are the contract versions that this kernel accepts.
    """

    name: str
    flag: str
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
    def plugin_flag(self) -> str:
        """The flag that adds a plugin which was never packaged."""
        return f"--{singular(self.name).replace('_', '-')}-plugin"

    @property
    def contract_name(self) -> str:
        """The Protocol's name; empty where there is none yet."""
        return (self.contract or "").partition(":")[2]


_PATH = "jackfield.contracts"
_ALL = (
    Kind("tool_parsers", "--tool-call-parser", f"{_PATH}.text:ToolParser", process=API),
    Kind("reasoning_parsers", "--reasoning-parser", f"{_PATH}.text:ReasoningParser", process=API),
    Kind(
        "grammars", "--guided-decoding-backend", f"{_PATH}.grammar:GrammarBackend", process=ENGINE
    ),
    Kind(
        "schedulers",
        "--scheduler-cls",
        f"{_PATH}.scheduling:Scheduler",
        process=ENGINE,
        default="fcfs",
    ),
    Kind(
        "queue_policies", "--scheduling-policy", f"{_PATH}.scheduling:QueuePolicy", process=ENGINE
    ),
    Kind(
        "executors",
        "--distributed-executor-backend",
        f"{_PATH}.work:Executor",
        process=ENGINE,
        default="uni",
    ),
    Kind("workers", "--worker-cls", f"{_PATH}.work:Worker", default="device"),
    Kind("models", "--model-impl", f"{_PATH}.model:Model", imports_torch=True),
    Kind("quantization", "--quantization", f"{_PATH}.model:QuantizationMethod", imports_torch=True),
    Kind("load_formats", "--load-format", f"{_PATH}.loading:LoadFormat", default="auto"),
    Kind(
        "attention_backends",
        "--attention-backend",
        f"{_PATH}.attention:AttentionBackend",
        imports_torch=True,
    ),
    Kind("speculative", "--speculative-config", None),
    Kind("kv_connectors", "--kv-transfer-config", None),
    Kind(
        "tokenizers", "--tokenizer-mode", f"{_PATH}.text:TokenizerMode", process=API, default="auto"
    ),
    Kind(
        "config_formats",
        "--config-format",
        f"{_PATH}.config_format:ConfigFormat",
        process=API,
        default="auto",
    ),
    Kind("platforms", "--device", f"{_PATH}.platform:Platform"),
    Kind(
        "response_stores",
        "--response-store",
        f"{_PATH}.response_store:ResponseStore",
        process=API,
        default="memory",
    ),
    Kind(
        "logits_processors",
        "--logits-processors",
        f"{_PATH}.logits:LogitsProcessor",
        imports_torch=True,
    ),
    Kind(
        "bundled_models",
        "--model",
        f"{_PATH}.bundled_models:BundledModel",
        process=API,
        default="jackfield-mini",
    ),
    Kind("middleware", "--middleware", f"{_PATH}.serving:Middleware", process=API),
)
KINDS: Mapping[str, Kind] = MappingProxyType({kind.name: kind for kind in _ALL})
