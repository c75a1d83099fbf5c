"""Flags of vLLM's command line that are no options here: not built yet, or without effect."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType

from jackfield.errors import ConfigError


@dataclass(frozen=True, slots=True)
class ForeignFlag:
    """``reason`` says why it is refused or what it has no effect on. Values in ``harmless`` ask
    for what is so anyway and are taken. With ``is_switch`` it has no value."""

    reason: str
    is_refused: bool
    is_switch: bool = False
    harmless: tuple[str, ...] = ()
    short: tuple[str, ...] = ()

    def note(self, flag: str, values: list[str]) -> str | None:
        """Refuses the flag, or returns the line to print about it, if one is due."""
        if not self.is_refused:
            return f"{flag} has no effect: {self.reason}"
        if values and all(value.strip().lower() in self.harmless for value in values):
            return None
        raise ConfigError(f"{flag} is not built yet: {self.reason}; leave it out")


def _later(
    reason: str, flags: str, *harmless: str, is_switch: bool = False
) -> dict[str, ForeignFlag]:
    return {
        f"--{flag}": ForeignFlag(reason, True, is_switch, harmless, _SHORT.get(flag, ()))
        for flag in flags.split()
    }


def _without_effect(reason: str, *flags: str, is_switch: bool = True) -> dict[str, ForeignFlag]:
    return {f"--{flag}": ForeignFlag(reason, False, is_switch) for flag in flags}


_SHORT = {
    "pipeline-parallel-size": ("-pp",),
    "tensor-parallel-size": ("-tp",),
    "data-parallel-size": ("-dp",),
    "speculative-config": ("-sc",),
    "speculative-draft-tensor-parallel-size": ("-spec-draft-tp",),
}
_PARALLEL = "one device serves the model so far"
_LORA = "adapters are not served so far"
_SPECULATION = "speculative decoding"
_MEDIA = "only text models are served so far"
_POOL = "one thread pool tokenizes"

FOREIGN_FLAGS = MappingProxyType(
    {
        **_later(_PARALLEL, "pipeline-parallel-size tensor-parallel-size data-parallel-size", "1"),
        **_later(_PARALLEL, "enable-expert-parallel ray-workers-use-nsight", is_switch=True),
        **_later(
            _LORA,
            "lora-modules prompt-adapters max-loras max-lora-rank lora-extra-vocab-size lora-dtype "
            "long-lora-scaling-factors max-cpu-loras max-prompt-adapters max-prompt-adapter-token "
            "qlora-adapter-name-or-path",
        ),
        **_later(
            _LORA,
            "enable-lora enable-lora-bias fully-sharded-loras enable-prompt-adapter",
            is_switch=True,
        ),
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
        **_later(_SPECULATION, "num-lookahead-slots", "0"),
        **_later(_MEDIA, "allowed-local-media-path limit-mm-per-prompt mm-processor-kwargs"),
        **_later(_MEDIA, "disable-mm-preprocessor-cache", is_switch=True),
        **_later("structured output", "structured-outputs-config"),
        **_later("pooling models", "override-pooler-config pooler-config"),
        **_later("models that do not generate", "task runner convert", "auto", "generate", "none"),
        **_later("a revision of its own for remote code", "code-revision"),
        **_later("config files of other dialects", "config-format", "auto", "hf"),
        **_later("config files of other dialects", "config-format-plugin"),
        **_later("loading in parallel", "max-parallel-loading-workers"),
        **_later("another dtype for KV than the model's", "kv-cache-dtype", "auto"),
        **_later("8-bit KV", "calculate-kv-scales", is_switch=True),
        **_later("KV in the host's memory", "swap-space cpu-offload-gb", "0", "0.0"),
        **_later("preemption is by recompute", "preemption-mode", "recompute"),
        **_later("KV connectors", "kv-transfer-config kv-connector-plugin"),
        **_later("waiting before the next prompt", "scheduler-delay-factor", "0", "0.0"),
        **_later("mixing methods into the worker", "worker-extension-cls", ""),
        **_later("a platform plugin's own option", "override-neuron-config", "{}"),
        **_later(_POOL, "tokenizer-pool-size", "0"),
        **_later(_POOL, "tokenizer-pool-type tokenizer-pool-extra-config"),
        **_later(
            "the engine in the server's process", "disable-frontend-multiprocessing", is_switch=True
        ),
        **_later("old metrics", "show-hidden-metrics-for-version"),
        **_later("spans of single steps", "collect-detailed-traces"),
        **_without_effect("there is one block manager", "use-v2-block-manager"),
        **_without_effect("prompts are logged only if asked for", "disable-log-requests"),
        **_without_effect("the load is always counted", "enable-server-load-tracking"),
        **_without_effect("a tool parser implies it", "enable-auto-tool-choice"),
        **_without_effect("a reasoning parser implies it", "enable-reasoning"),
        **_without_effect("every step is streamed", "multi-step-stream-outputs"),
        **_without_effect("a shared prefix is attended like any other", "disable-cascade-attn"),
        **_without_effect("one device serves the model", "disable-custom-all-reduce"),
        **_without_effect(
            "CUDA graphs here serve every length", "max-seq-len-to-capture", is_switch=False
        ),
        "--compilation-config": ForeignFlag(
            "kernels are written by hand and nothing is compiled at the start",
            False,
            short=("-O", "-cc"),
        ),
    }
)
