"""Plugins that were never packaged: one option a kind, each a ``.py`` file or a module."""

from __future__ import annotations

from pydantic import Field

from jackfield.config.plan import PluginSource
from jackfield.config.values import OptionGroup, StringList

_HELP = "file (.py) or module that offers one; may be repeated"


class PluginOptions(OptionGroup):
    """Plugins"""

    safe_mode: bool = Field(False, description="bundled plugins only")
    tool_parser_plugin: StringList = Field((), description=f"tool parsers: {_HELP}")
    reasoning_parser_plugin: StringList = Field((), description=f"reasoning parsers: {_HELP}")
    scheduler_plugin: StringList = Field((), description=f"schedulers: {_HELP}")
    executor_plugin: StringList = Field((), description=f"executors: {_HELP}")
    worker_plugin: StringList = Field((), description=f"workers: {_HELP}")
    model_plugin: StringList = Field((), description=f"models: {_HELP}")
    quantization_plugin: StringList = Field((), description=f"quantization methods: {_HELP}")
    load_format_plugin: StringList = Field((), description=f"load formats: {_HELP}")
    attention_backend_plugin: StringList = Field((), description=f"attention backends: {_HELP}")
    tokenizer_plugin: StringList = Field((), description=f"tokenizer modes: {_HELP}")
    platform_plugin: StringList = Field((), description=f"platforms: {_HELP}")

    @property
    def plugin_sources(self) -> tuple[PluginSource, ...]:
        """What these options name, with the kind it is for."""
        return tuple(
            PluginSource(kind, source)
            for kind, option in PLUGIN_OPTIONS.items()
            for source in getattr(self, option)
        )


PLUGIN_OPTIONS = {
    "tool_parsers": "tool_parser_plugin",
    "reasoning_parsers": "reasoning_parser_plugin",
    "schedulers": "scheduler_plugin",
    "executors": "executor_plugin",
    "workers": "worker_plugin",
    "models": "model_plugin",
    "quantization": "quantization_plugin",
    "load_formats": "load_format_plugin",
    "attention_backends": "attention_backend_plugin",
    "tokenizers": "tokenizer_plugin",
    "platforms": "platform_plugin",
}
