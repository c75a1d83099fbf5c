"""Flags of vLLM's command line that are no options here: not built yet, or no longer needed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from functools import partial
from types import MappingProxyType
from typing import Any

from jackfield.errors import ConfigError


class Standing(Enum):
    """What becomes of a flag that is no option."""

    LATER = "not built yet"
    REFUSED = "refused"
    ACCEPTED = "accepted"


@dataclass(frozen=True, slots=True)
class ForeignFlag:
    """``reason`` is the feature that it belongs to, or why there is no such option; ``instead``
    is what to do now. Values in ``harmless`` ask for what is so anyway and are taken. With
    ``is_switch`` it has no value."""

    standing: Standing
    reason: str
    instead: str = "leave it out"
    is_switch: bool = False
    harmless: tuple[str, ...] = ()
    short: tuple[str, ...] = ()

    def note(self, place: str, value: object) -> str | None:
        """Refuses what a place (a flag, a variable, a line of a file) says, or returns the line
        to print about it, if one is due."""
        if value is None or (self.is_switch and _is_off(value)):
            return None
        values = value if isinstance(value, list | tuple) else [value]
        taken = ("", *self.harmless)
        if values and all(str(each).strip().lower() in taken for each in values):
            return None
        if self.standing is Standing.ACCEPTED:
            return f"{place} has no effect: {self.reason}; {self.instead}"
        raise ConfigError(f"{place} is {self.standing.value}: {self.reason}; {self.instead}")


def take_foreign(values: dict[str, Any], place: str = "{flag}") -> list[str]:
    """Takes out of ``values``, by option name, what is no option; refuses or notes each.
    ``place`` says where it stands: ``{flag} in FILE``."""
    notes = []
    for option in list(values):
        flag = f"--{option.replace('_', '-')}"
        if flag not in FOREIGN_FLAGS:
            continue
        note = FOREIGN_FLAGS[flag].note(place.format(flag=flag), values.pop(option))
        if note is not None:
            notes.append(note)
    return notes


def _is_off(value: object) -> bool:
    return str(value).strip().lower() in ("false", "0", "no", "off")


_SHORT = {
    "pipeline-parallel-size": ("-pp",),
    "tensor-parallel-size": ("-tp",),
    "data-parallel-size": ("-dp",),
    "speculative-config": ("-sc",),
    "speculative-draft-tensor-parallel-size": ("-spec-draft-tp",),
}


def _flags(
    standing: Standing,
    reason: str,
    names: str,
    instead: str = "leave it out",
    *,
    is_switch: bool = False,
    harmless: str = "",
) -> dict[str, ForeignFlag]:
    taken = tuple(harmless.split())
    return {
        f"--{name}": ForeignFlag(standing, reason, instead, is_switch, taken, _SHORT.get(name, ()))
        for name in names.split()
    }


_later = partial(_flags, Standing.LATER)
_accepted = partial(_flags, Standing.ACCEPTED, is_switch=True)

_PARALLEL = "more than one device"
_LORA = "LoRA adapters"
_PROMPT_ADAPTERS = "prompt adapters"
_SPECULATION = "speculative decoding"
_MEDIA = "multimodal models"

FOREIGN_FLAGS: Mapping[str, ForeignFlag] = MappingProxyType(
    {
        **_later(
            _PARALLEL,
            "pipeline-parallel-size tensor-parallel-size data-parallel-size",
            harmless="1",
        ),
        **_later(_PARALLEL, "enable-expert-parallel ray-workers-use-nsight", is_switch=True),
        **_later(
            _LORA,
            "lora-modules max-loras max-lora-rank lora-extra-vocab-size lora-dtype "
            "long-lora-scaling-factors max-cpu-loras qlora-adapter-name-or-path",
        ),
        **_later(_LORA, "enable-lora enable-lora-bias fully-sharded-loras", is_switch=True),
        **_later(_PROMPT_ADAPTERS, "prompt-adapters max-prompt-adapters max-prompt-adapter-token"),
        **_later(_PROMPT_ADAPTERS, "enable-prompt-adapter", is_switch=True),
        **_later(
            _SPECULATION,
            "speculative-config speculative-model speculative-model-quantization "
            "num-speculative-tokens speculative-draft-tensor-parallel-size "
            "speculative-max-model-len speculative-disable-by-batch-size ngram-prompt-lookup-max "
            "ngram-prompt-lookup-min spec-decoding-acceptance-method "
            "typical-acceptance-sampler-posterior-threshold "
            "typical-acceptance-sampler-posterior-alpha speculative-plugin",
        ),
        **_later(
            _SPECULATION,
            "speculative-disable-mqa-scorer disable-logprobs-during-spec-decoding",
            is_switch=True,
        ),
        **_later(_SPECULATION, "num-lookahead-slots", harmless="0"),
        **_later(_MEDIA, "allowed-local-media-path limit-mm-per-prompt mm-processor-kwargs"),
        **_later(_MEDIA, "disable-mm-preprocessor-cache", is_switch=True),
        **_later("KV connectors", "kv-transfer-config kv-connector-plugin"),
        **_later(
            "the engine in the server's process", "disable-frontend-multiprocessing", is_switch=True
        ),
        **_later("spans of single steps", "collect-detailed-traces"),
        **_flags(
            Standing.REFUSED,
            "there is no platform for Neuron among the bundled ones",
            "override-neuron-config",
            "a plugin of the group jackfield.platforms takes its options by --plugin-option",
            harmless="{}",
        ),
        **_accepted("there is one block manager", "use-v2-block-manager"),
        **_accepted("requests are logged only with --enable-log-requests", "disable-log-requests"),
        **_accepted("the load is always counted, see GET /load", "enable-server-load-tracking"),
        **_accepted("--tool-call-parser implies it", "enable-auto-tool-choice"),
        **_accepted("--reasoning-parser implies it", "enable-reasoning"),
        **_accepted("a shared prefix is attended like any other", "disable-cascade-attn"),
        **_accepted("one device serves the model", "disable-custom-all-reduce"),
        **_accepted("the next step is always scheduled ahead of the device", "async-scheduling"),
        **_accepted("text is all that models are served for", "language-model-only"),
        **_accepted(
            "tools are never shown with tool_choice none", "exclude-tools-when-tool-choice-none"
        ),
        **_accepted(
            "metrics are always there by their older names too",
            "show-hidden-metrics-for-version",
            is_switch=False,
        ),
        **_flags(
            Standing.REFUSED,
            "log lines go to standard error in one format",
            "log-config-file",
            "say by --log-level and --uvicorn-log-level how much is told",
        ),
        **_flags(
            Standing.REFUSED,
            "tokenizers work in threads",
            "tokenizer-pool-type",
            "take thread, or leave it out",
            harmless="thread",
        ),
        **_flags(
            Standing.REFUSED,
            "threads need no options",
            "tokenizer-pool-extra-config",
            harmless="{}",
        ),
    }
)
