"""Conformance kits for plugin authors; they need ``jackfield[testing]``.

Subclass a kit in a test file and name the plugin; pytest finds the kit's tests. A kit is
imported when it is asked for, because each brings what it needs.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jackfield.testing.attention_backends import AttentionBackendContract
    from jackfield.testing.bundled_models import BundledModelContract
    from jackfield.testing.config_formats import ConfigFormatContract
    from jackfield.testing.grammars import GrammarContract
    from jackfield.testing.load_formats import LoadFormatContract
    from jackfield.testing.logits_processors import LogitsProcessorContract
    from jackfield.testing.middleware import MiddlewareContract
    from jackfield.testing.models import ModelContract
    from jackfield.testing.platforms import PlatformContract
    from jackfield.testing.plugins import PluginContract
    from jackfield.testing.quantization import QuantizationContract
    from jackfield.testing.queue_policies import QueuePolicyContract
    from jackfield.testing.reasoning_parsers import ReasoningParserContract
    from jackfield.testing.response_stores import ResponseStoreContract
    from jackfield.testing.schedulers import SchedulerContract
    from jackfield.testing.tokenizers import TokenizerContract
    from jackfield.testing.tool_parsers import ToolParserContract
    from jackfield.testing.workers import ExecutorContract, WorkerContract

__all__ = [
    "AttentionBackendContract",
    "BundledModelContract",
    "ConfigFormatContract",
    "ExecutorContract",
    "GrammarContract",
    "LoadFormatContract",
    "LogitsProcessorContract",
    "MiddlewareContract",
    "ModelContract",
    "PlatformContract",
    "PluginContract",
    "QuantizationContract",
    "QueuePolicyContract",
    "ReasoningParserContract",
    "ResponseStoreContract",
    "SchedulerContract",
    "TokenizerContract",
    "ToolParserContract",
    "WorkerContract",
]

_MODULES = {
    "AttentionBackendContract": "attention_backends",
    "BundledModelContract": "bundled_models",
    "ConfigFormatContract": "config_formats",
    "ExecutorContract": "workers",
    "GrammarContract": "grammars",
    "LoadFormatContract": "load_formats",
    "LogitsProcessorContract": "logits_processors",
    "MiddlewareContract": "middleware",
    "ModelContract": "models",
    "PlatformContract": "platforms",
    "PluginContract": "plugins",
    "QuantizationContract": "quantization",
    "QueuePolicyContract": "queue_policies",
    "ReasoningParserContract": "reasoning_parsers",
    "ResponseStoreContract": "response_stores",
    "SchedulerContract": "schedulers",
    "TokenizerContract": "tokenizers",
    "ToolParserContract": "tool_parsers",
    "WorkerContract": "workers",
}


def __getattr__(name: str) -> object:
    """Imports a kit."""
    if name in _MODULES:
        return getattr(importlib.import_module(f"jackfield.testing.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
