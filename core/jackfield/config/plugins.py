"""Which plugins may be used, what they are told, and those that were never packaged."""

from __future__ import annotations

from pydantic import Field

from jackfield.config.plan import PluginSource
from jackfield.config.values import JsonObject, OptionGroup, StringList
from jackfield.errors import ConfigError

_HELP = "file (.py) or module that offers one; may be repeated"


class PluginOptions(OptionGroup):
    """Plugins"""

    safe_mode: bool = Field(False, description="bundled plugins only")
    disable_plugin: StringList = Field(
        (), description="distribution whose plugins are not used; may be repeated"
    )
    plugins_lock: str | None = Field(
        None, description="lock file of `jackfield plugins lock`; no other plugin code runs"
    )
    plugin_option: StringList = Field(
        (),
        description="NAME.key=value, an option of a plugin in use (--help=plugin:NAME shows "
        "them); KIND.NAME.key=value where two have the name; may be repeated",
    )
    additional_config: JsonObject = Field(
        default_factory=dict, description='the same as JSON: {"NAME": {"key": value}}'
    )
    tool_parser_plugin: StringList = Field((), description=f"tool parsers: {_HELP}")
    reasoning_parser_plugin: StringList = Field((), description=f"reasoning parsers: {_HELP}")
    grammar_plugin: StringList = Field((), description=f"grammar backends: {_HELP}")
    scheduler_plugin: StringList = Field((), description=f"schedulers: {_HELP}")
    executor_plugin: StringList = Field((), description=f"executors: {_HELP}")
    worker_plugin: StringList = Field((), description=f"workers: {_HELP}")
    model_plugin: StringList = Field((), description=f"models: {_HELP}")
    quantization_plugin: StringList = Field((), description=f"quantization methods: {_HELP}")
    load_format_plugin: StringList = Field((), description=f"load formats: {_HELP}")
    attention_backend_plugin: StringList = Field((), description=f"attention backends: {_HELP}")
    tokenizer_plugin: StringList = Field((), description=f"tokenizer modes: {_HELP}")
    config_format_plugin: StringList = Field((), description=f"configuration formats: {_HELP}")
    platform_plugin: StringList = Field((), description=f"platforms: {_HELP}")
    response_store_plugin: StringList = Field((), description=f"response stores: {_HELP}")
    queue_policy_plugin: StringList = Field((), description=f"queue policies: {_HELP}")
    logits_processor_plugin: StringList = Field((), description=f"logits processors: {_HELP}")
    bundled_model_plugin: StringList = Field((), description=f"bundled models: {_HELP}")
    middleware_plugin: StringList = Field((), description=f"middleware: {_HELP}")

    @property
    def plugin_sources(self) -> tuple[PluginSource, ...]:
        """What these options name, with the kind it is for."""
        return tuple(
            PluginSource(kind, source)
            for kind, option in PLUGIN_OPTIONS.items()
            for source in getattr(self, option)
        )

    @property
    def plugin_options(self) -> dict[str, dict[str, object]]:
        """Plugin name to option to value; ``ConfigError`` for what is written otherwise."""
        options: dict[str, dict[str, object]] = {}
        for name, values in self.additional_config.items():
            if not isinstance(values, dict):
                raise ConfigError(
                    f'--additional-config: {name} must be an object, {{"NAME": {{"key": value}}}}, '
                    f"not {values!r:.80}"
                )
            options[name] = dict(values)
        for text in self.plugin_option:
            place, equals, value = text.partition("=")
            name, dot, key = place.rpartition(".")
            if not (equals and dot and name and key):
                raise ConfigError(f"--plugin-option {text}: write NAME.key=value")
            options.setdefault(name, {})[key.replace("-", "_")] = value
        return options


PLUGIN_OPTIONS = {
    "tool_parsers": "tool_parser_plugin",
    "reasoning_parsers": "reasoning_parser_plugin",
    "grammars": "grammar_plugin",
    "schedulers": "scheduler_plugin",
    "executors": "executor_plugin",
    "workers": "worker_plugin",
    "models": "model_plugin",
    "quantization": "quantization_plugin",
    "load_formats": "load_format_plugin",
    "attention_backends": "attention_backend_plugin",
    "tokenizers": "tokenizer_plugin",
    "config_formats": "config_format_plugin",
    "platforms": "platform_plugin",
    "response_stores": "response_store_plugin",
    "queue_policies": "queue_policy_plugin",
    "logits_processors": "logits_processor_plugin",
    "bundled_models": "bundled_model_plugin",
    "middleware": "middleware_plugin",
}
