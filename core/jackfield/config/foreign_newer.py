"""Flags that ``vllm serve`` has got since early 2025 and that are no options here."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

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

_KERNELS = "kernels are chosen by the device and the checkpoint"
_NO_STATE = "models with such a state are not served"
_OFFLOADING = "a choice of what is offloaded"
_DEBUGGING = "metrics for debugging"
_NUMA = "binding to NUMA nodes"

NEWER_FLAGS: Mapping[str, ForeignFlag] = MappingProxyType(
    {
        **later(
            PARALLEL,
            "-n/nnodes -dpl/data-parallel-size-local -dcp/decode-context-parallel-size "
            "-pcp/prefill-context-parallel-size",
            harmless="1",
        ),
        **later(
            PARALLEL,
            "-r/node-rank -dpn/data-parallel-rank -dpr/data-parallel-start-rank",
            harmless="0",
        ),
        **later(
            PARALLEL,
            "headless -dph/data-parallel-hybrid-lb -dpe/data-parallel-external-lb enable-eplb "
            "enable-dbo enable-elastic-ep",
            is_switch=True,
        ),
        **accepted_value(
            ONE_DEVICE,
            "master-addr master-port -dpa/data-parallel-address -dpp/data-parallel-rpc-port "
            "-dpb/data-parallel-backend distributed-timeout-seconds all2all-backend "
            "dcp-comm-backend dcp-kv-cache-interleave-size cp-kv-cache-interleave-size "
            "eplb-config expert-placement-strategy ubatch-size dbo-decode-token-threshold "
            "dbo-prefill-token-threshold",
        ),
        **accepted(
            ONE_DEVICE,
            "aggregate-engine-logging disable-nccl-for-dp-synchronization enable-ep-weight-filter",
        ),
        **later(_NUMA, "numa-bind", "start it with numactl", is_switch=True),
        **later(_NUMA, "numa-bind-nodes numa-bind-cpus", "start it with numactl"),
        **later(MEDIA, "allowed-media-domains"),
        **later(MEDIA, "media-io-kwargs", harmless="{}"),
        **later(MEDIA, "enable-mm-embeds mm-encoder-only", is_switch=True),
        **accepted_value(
            NO_MEDIA,
            "mm-processor-cache-gb mm-processor-cache-type mm-shm-cache-max-object-size-mb "
            "mm-encoder-tp-mode mm-encoder-attn-backend mm-encoder-attn-dtype mm-tensor-ipc "
            "video-pruning-rate",
        ),
        **accepted(
            NO_MEDIA,
            "skip-mm-profiling interleave-mm-strings disable-chunked-mm-input "
            "enable-multimodal-encoder-data-parallel",
        ),
        **accepted_value(ABOUT_LORA, "lora-target-modules default-mm-loras"),
        **accepted(ABOUT_LORA, "enable-tower-connector-lora specialize-active-lora"),
        **later("speculative decoding", "spec-method spec-model spec-tokens"),
        **accepted_value(
            "attention kernels are chosen by --attention-backend", "-ac/attention-config"
        ),
        **accepted_value(
            _KERNELS, "moe-backend linear-backend kernel-config ir-op-priority gdn-prefill-backend"
        ),
        **accepted(_KERNELS, "enable-flashinfer-autotune"),
        **accepted_value("one schedule serves latency and throughput", "performance-mode"),
        **accepted_value(
            _NO_STATE,
            "mamba-cache-dtype mamba-ssm-cache-dtype mamba-block-size mamba-cache-mode "
            "mamba-backend",
        ),
        **later("a KV cache of several dtypes", "kv-cache-dtype-skip-layers"),
        **later("keys and values shared by layers", "kv-sharing-fast-prefill", is_switch=True),
        **later("KV blocks in the host's memory", "kv-offloading-size kv-offloading-backend"),
        **later("KV events", "kv-events-config", harmless="{}"),
        **accepted("there is one KV cache manager", "disable-hybrid-kv-cache-manager"),
        **accepted("a request gets KV blocks as it needs them", "scheduler-reserve-full-isl"),
        **later("transfers between engines", "ec-transfer-config weight-transfer-config"),
        **later(
            _OFFLOADING,
            "cpu-offload-params offload-group-size offload-num-in-group offload-prefetch-step "
            "offload-params",
            "--cpu-offload-gb spreads it over the model",
        ),
        **later(
            _OFFLOADING,
            "offload-backend",
            "--cpu-offload-gb spreads it over the model",
            harmless="auto",
        ),
        **accepted_value(
            "weights are read as --load-format likes",
            "safetensors-load-strategy pt-load-map-location",
        ),
        **refused(
            "command lines are seen by everybody on the machine",
            "hf-token",
            "set HF_TOKEN, or log in with `hf auth login`",
        ),
        **later("options of quantization methods", "quantization-config", harmless="{}"),
        **accepted("no method is called so here", "allow-deprecated-quantization"),
        **refused(
            "a request's own chat template is not allowed",
            "trust-request-chat-template",
            "give it by --chat-template",
            is_switch=True,
        ),
        **accepted_value(
            "--reasoning-parser knows the marks of thinking, and budgets need no more",
            "reasoning-config",
        ),
        **refused(
            "it is a key of --structured-outputs-config",
            "guided-decoding-disable-any-whitespace",
            "say --structured-outputs-config.disable_any_whitespace true",
            is_switch=True,
        ),
        **accepted(
            "objects that list their properties get no others",
            "guided-decoding-disable-additional-properties",
        ),
        **accepted(
            "a backend that is named is never replaced by another",
            "guided-decoding-disable-fallback",
        ),
        **later("prompts as embeddings", "enable-prompt-embeds", is_switch=True),
        **later("experts in answers", "enable-return-routed-experts", is_switch=True),
        **later("tokens without text", "tokens-only", is_switch=True),
        **later("tools that the server runs", "tool-server"),
        **later("plugins of inputs and outputs", "io-processor-plugin"),
        **later("metrics in answers", "enable-per-request-metrics", is_switch=True),
        **later("other logprobs than the model's own", "logprobs-mode", harmless="raw_logprobs"),
        **later("system_fingerprint in answers", "fingerprint-mode", harmless="none"),
        **later("system_fingerprint in answers", "fingerprint-value"),
        **later("logs of what is generated", "enable-log-outputs", is_switch=True),
        **accepted("what is generated is not logged", "enable-log-deltas"),
        **accepted("errors of the server are logged with their traceback", "log-error-stack"),
        **accepted_value(
            "requests are logged only with --no-disable-uvicorn-access-log",
            "disable-access-log-for-endpoints",
        ),
        **accepted("variables of vLLM are not read", "fail-on-environ-validation"),
        **accepted("GET /openapi.json needs no network", "enable-offline-docs"),
        **accepted("pairs are scored one way", "enable-flash-late-interaction"),
        **later("a choice of TLS ciphers", "ssl-ciphers"),
        **later("profiles over HTTP", "profiler-config", harmless="{}"),
        **later(
            _DEBUGGING,
            "kv-cache-metrics cudagraph-metrics enable-mfu-metrics enable-mm-processor-stats "
            "enable-layerwise-nvtx-tracing enable-logging-iteration-details",
            is_switch=True,
        ),
        **later(_DEBUGGING, "kv-cache-metrics-sample"),
    }
)
