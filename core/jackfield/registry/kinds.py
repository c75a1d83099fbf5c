"""The kinds of one-of-N plugins: what each is called, how it is chosen, what it must satisfy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class Kind:
    """One respect in which engines differ.

    ``flag`` chooses a plugin, ``plugin_flag`` adds one that was never packaged. ``contract`` is
    the Protocol (``module:Class``) that its classes satisfy, None where no plugin can be written
    yet; ``api_versions`` are the contract versions that this kernel accepts.
    """

    name: str
    flag: str
    plugin_flag: str
    contract: str | None
    imports_torch: bool = False
    api_versions: frozenset[int] = frozenset({1})

    @property
    def group(self) -> str:
        """The entry-point group."""
        return f"jackfield.{self.name}"


def _kind(
    name: str, flag: str, plugin_flag: str, contract: str | None, imports_torch: bool = False
) -> Kind:
    path = None if contract is None else f"jackfield.contracts.{contract}"
    return Kind(name, flag, plugin_flag, path, imports_torch)


_ALL = (
    _kind("tool_parsers", "--tool-call-parser", "--tool-parser-plugin", "text:ToolParser"),
    _kind(
        "reasoning_parsers",
        "--reasoning-parser",
        "--reasoning-parser-plugin",
        "text:ReasoningParser",
    ),
    _kind("grammars", "--guided-decoding-backend", "--grammar-plugin", None),
    _kind("schedulers", "--scheduling-policy", "--scheduler-plugin", "scheduling:Scheduler"),
    _kind("executors", "--distributed-executor-backend", "--executor-plugin", "work:Executor"),
    _kind("workers", "--worker-cls", "--worker-plugin", "work:Worker"),
    _kind("models", "--model-impl", "--model-plugin", "model:Model", True),
    _kind(
        "quantization",
        "--quantization",
        "--quantization-plugin",
        "model:QuantizationMethod",
        True,
    ),
    _kind("load_formats", "--load-format", "--load-format-plugin", "loading:LoadFormat"),
    _kind(
        "attention_backends",
        "--attention-backend",
        "--attention-backend-plugin",
        "attention:AttentionBackend",
        True,
    ),
    _kind("speculative", "--speculative-config", "--speculative-plugin", None),
    _kind("kv_connectors", "--kv-transfer-config", "--kv-connector-plugin", None),
    _kind("tokenizers", "--tokenizer-mode", "--tokenizer-plugin", "text:TokenizerMode"),
    _kind("config_formats", "--config-format", "--config-format-plugin", None),
    _kind("platforms", "--device", "--platform-plugin", "platform:Platform"),
)
KINDS: Mapping[str, Kind] = MappingProxyType({kind.name: kind for kind in _ALL})
