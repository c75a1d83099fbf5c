"""Conformance kits for plugin authors; they need ``jackfield[testing]``.

Subclass a kit in a test file and name the plugin; pytest finds the kit's tests. A kit is
imported when it is asked for, because each brings what it needs.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jackfield.testing.logits_processors import LogitsProcessorContract
    from jackfield.testing.plugins import PluginContract
    from jackfield.testing.queue_policies import QueuePolicyContract
    from jackfield.testing.reasoning_parsers import ReasoningParserContract
    from jackfield.testing.response_stores import ResponseStoreContract
    from jackfield.testing.schedulers import SchedulerContract
    from jackfield.testing.tool_parsers import ToolParserContract

__all__ = [
    "LogitsProcessorContract",
    "PluginContract",
    "QueuePolicyContract",
    "ReasoningParserContract",
    "ResponseStoreContract",
    "SchedulerContract",
    "ToolParserContract",
]

_MODULES = {
    "LogitsProcessorContract": "logits_processors",
    "PluginContract": "plugins",
    "QueuePolicyContract": "queue_policies",
    "ReasoningParserContract": "reasoning_parsers",
    "ResponseStoreContract": "response_stores",
    "SchedulerContract": "schedulers",
    "ToolParserContract": "tool_parsers",
}


def __getattr__(name: str) -> object:
    """Imports a kit."""
    if name in _MODULES:
        return getattr(importlib.import_module(f"jackfield.testing.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
