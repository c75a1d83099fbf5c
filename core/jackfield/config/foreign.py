"""Flags of vLLM's command line that are no options here: not built yet, or no longer needed."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from jackfield.config.foreign_flag import (
    ABOUT_LORA,
    MEDIA,
    NO_MEDIA,
    ONE_DEVICE,
    PARALLEL,
    ForeignFlag,
    accepted,
    accepted_value,
    later,
    refused,
)
from jackfield.config.foreign_newer import NEWER_FLAGS

_LORA = "LoRA adapters"
_PROMPT_ADAPTERS = "prompt adapters"
_SPECULATION = "speculative decoding"

FOREIGN_FLAGS: Mapping[str, ForeignFlag] = MappingProxyType(
    {
        **later(
            PARALLEL,
            "-pp/--pp-size/pipeline-parallel-size -tp/--tp/--tp-size/tensor-parallel-size "
            "-dp/--dp/--dp-size/data-parallel-size",
            harmless="1",
        ),
        **later(PARALLEL, "ray-workers-use-nsight", is_switch=True),
        **later(_LORA, "lora-modules long-lora-scaling-factors qlora-adapter-name-or-path"),
        **later(_LORA, "enable-lora enable-lora-bias", is_switch=True),
        **accepted_value(
            ABOUT_LORA,
            "max-loras max-lora-rank lora-extra-vocab-size lora-dtype max-cpu-loras",
        ),
        **accepted(ABOUT_LORA, "fully-sharded-loras"),
        **later(_PROMPT_ADAPTERS, "prompt-adapters max-prompt-adapters max-prompt-adapter-token"),
        **later(_PROMPT_ADAPTERS, "enable-prompt-adapter", is_switch=True),
        **later(
            _SPECULATION,
            "-sc/speculative-config speculative-model speculative-model-quantization "
            "num-speculative-tokens -spec-draft-tp/speculative-draft-tensor-parallel-size "
            "speculative-max-model-len speculative-disable-by-batch-size ngram-prompt-lookup-max "
            "ngram-prompt-lookup-min spec-decoding-acceptance-method "
            "typical-acceptance-sampler-posterior-threshold "
            "typical-acceptance-sampler-posterior-alpha speculative-plugin",
        ),
        **later(
            _SPECULATION,
            "speculative-disable-mqa-scorer disable-logprobs-during-spec-decoding",
            is_switch=True,
        ),
        **later(_SPECULATION, "num-lookahead-slots", harmless="0"),
        **later(MEDIA, "allowed-local-media-path"),
        **later(MEDIA, "limit-mm-per-prompt", is_map=True, harmless="0"),
        **later(MEDIA, "mm-processor-kwargs", harmless="{}"),
        **accepted(NO_MEDIA, "disable-mm-preprocessor-cache"),
        **later("KV connectors", "kv-transfer-config kv-connector-plugin"),
        **accepted(
            "the engine has a process of its own, as in vLLM since V1",
            "disable-frontend-multiprocessing",
        ),
        **later("spans of single steps", "collect-detailed-traces"),
        **refused(
            "there is no platform for Neuron among the bundled ones",
            "override-neuron-config",
            "a plugin of the group jackfield.platforms takes its options by --plugin-option",
            harmless="{}",
        ),
        **accepted("there is one block manager", "use-v2-block-manager"),
        **accepted("requests are logged only with --enable-log-requests", "disable-log-requests"),
        **accepted("the load is always counted, see GET /load", "enable-server-load-tracking"),
        **accepted("--tool-call-parser implies it", "enable-auto-tool-choice"),
        **accepted("--reasoning-parser implies it", "enable-reasoning"),
        **accepted("a shared prefix is attended like any other", "disable-cascade-attn"),
        **accepted(ONE_DEVICE, "disable-custom-all-reduce -ep/enable-expert-parallel"),
        **accepted("the next step is always scheduled ahead of the device", "async-scheduling"),
        **accepted("text is all that models are served for", "language-model-only"),
        **accepted(
            "tools are never shown with tool_choice none", "exclude-tools-when-tool-choice-none"
        ),
        **accepted_value(
            "metrics are always there by their older names too", "show-hidden-metrics-for-version"
        ),
        **refused(
            "log lines go to standard error in one format",
            "log-config-file",
            "say by --log-level and --uvicorn-log-level how much is told",
        ),
        **refused(
            "tokenizers work in threads",
            "tokenizer-pool-type",
            "take thread, or leave it out",
            harmless="thread",
        ),
        **refused("threads need no options", "tokenizer-pool-extra-config", harmless="{}"),
        **NEWER_FLAGS,
    }
)


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
