"""Which plugin answers for what, and why: the part of a plan that people ask about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jackfield import checkpoint
from jackfield.config.plan import EnginePlan
from jackfield.config.settings import Settings, flag_of
from jackfield.errors import ConfigError
from jackfield.planning.model import ANY_MODEL, ModelFiles
from jackfield.registry import HOOKS, KINDS, Registry


@dataclass(frozen=True, slots=True)
class Choice:
    """A plugin in use, by the name it is found by, and why it is."""

    kind: str
    name: str
    reason: str


def choices(
    settings: Settings,
    engine: EnginePlan,
    files: ModelFiles,
    registry: Registry,
    tool_parser: str | None,
    reasoning_parser: str | None,
) -> tuple[Choice, ...]:
    """Every plugin in use, hooks included, in the order in which a request meets them."""
    worker = engine.worker
    option = _Options(settings)
    found: list[Choice] = []
    if files.bundled is not None:
        reason = "default" if settings.model is None else "--model"
        found.append(Choice("bundled_models", files.bundled.name, reason))
    found += [Choice("middleware", name, "--middleware") for name in settings.middleware]
    found += [Choice(HOOKS, entry.name, "every installed one") for entry in registry.list(HOOKS)]
    if tool_parser is not None:
        found.append(_parser("tool_parsers", tool_parser, settings.tool_call_parser))
    if reasoning_parser is not None:
        found.append(_parser("reasoning_parsers", reasoning_parser, settings.reasoning_parser))
    found.append(option.choice("config_formats", "config_format"))
    if not settings.skip_tokenizer_init:
        found.append(option.choice("tokenizers", "tokenizer_mode"))
        found.append(option.choice("grammars", "guided_decoding_backend", settings.grammar_backend))
    if settings.response_store != "none":
        found.append(option.choice("response_stores", "response_store"))
    found.append(_scheduler(settings, engine))
    if engine.queue_policy is not None:
        found.append(Choice("queue_policies", engine.queue_policy, "--scheduling-policy"))
    found += [
        option.choice("executors", "distributed_executor_backend", worker.executor),
        option.choice("workers", "worker_cls", worker.worker),
        option.choice("platforms", "device", worker.device, "the first that this machine has"),
        _attention(worker.attention_backend, worker.device, registry),
        _model(settings, worker.model_impl, files.config, registry),
        option.choice("load_formats", "load_format", worker.load_format),
    ]
    if worker.quantization is not None:
        said = settings.quantization not in (None, "none")
        reason = "--quantization" if said else "the checkpoint's quant_method"
        found.append(Choice("quantization", worker.quantization, reason))
    found += [
        Choice("logits_processors", name, "--logits-processors")
        for name in settings.logits_processors
    ]
    return tuple(found)


def check_options(found: Sequence[Choice], registry: Registry) -> None:
    """Raises ``ConfigError`` where an option is for a plugin that is not in use."""
    known = {_plain(name) for each in found for name in (each.name, f"{each.kind}.{each.name}")}
    for name in registry.setup.options:
        if _plain(name) not in known:
            names = ", ".join(dict.fromkeys(each.name for each in found))
            raise ConfigError(
                f"--plugin-option {name}: no plugin in use is called so (in use: {names}); choose "
                "the plugin, or leave the option out"
            )


class _Options:
    """Choices that an option makes, or its default."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def choice(
        self, kind: str, option: str, name: str | None = None, otherwise: str = "default"
    ) -> Choice:
        given = getattr(self._settings, option)
        is_said = option in self._settings.model_fields_set and given != "auto"
        return Choice(kind, name or str(given), flag_of(option) if is_said else otherwise)


def _parser(kind: str, name: str, given: str | None) -> Choice:
    flag = KINDS[kind].flag
    if given is None:
        return Choice(kind, name, "the bundled model's")
    return Choice(kind, name, flag if name == given else f"the checkpoint, by {flag} {given}")


def _scheduler(settings: Settings, engine: EnginePlan) -> Choice:
    if settings.scheduler_cls == engine.scheduler:
        return Choice("schedulers", engine.scheduler, "--scheduler-cls")
    if engine.queue_policy is not None:
        return Choice("schedulers", engine.scheduler, "it takes a queue policy")
    is_said = "scheduling_policy" in settings.model_fields_set
    return Choice("schedulers", engine.scheduler, "--scheduling-policy" if is_said else "default")


def _attention(chosen: str, device: str, registry: Registry) -> Choice:
    if chosen != "auto":
        return Choice("attention_backends", chosen, "--attention-backend")
    name: str = registry.load("platforms", device).default_attention_backend
    return Choice("attention_backends", name, f"the default of platform {device}")


def _model(
    settings: Settings, model_impl: str, config: Mapping[str, object], registry: Registry
) -> Choice:
    if settings.model_impl == model_impl and model_impl != "auto":
        return Choice("models", model_impl, "--model-impl")
    architectures = checkpoint.architectures(config)
    if model_impl == ANY_MODEL:
        return Choice("models", ANY_MODEL, f"no plugin for {' or '.join(architectures) or 'it'}")
    for name in architectures:
        if registry.offers("models", name):
            return Choice("models", name, "the checkpoint's architecture")
    return Choice("models", model_impl, "the checkpoint's architecture")


def _plain(name: str) -> str:
    return name.replace("-", "_")
