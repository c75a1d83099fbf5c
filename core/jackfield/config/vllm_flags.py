"""The flags of ``vllm serve`` in early 2025, and what becomes of each here."""

from __future__ import annotations

from collections.abc import Mapping

from jackfield.config.foreign import FOREIGN_FLAGS
from jackfield.config.foreign_flag import Standing
from jackfield.config.settings import Settings, flag_of

VLLM_FLAGS = tuple(
    f"--{name}"
    for name in """
host port uvicorn-log-level disable-uvicorn-access-log allow-credentials allowed-origins
allowed-methods allowed-headers api-key lora-modules prompt-adapters chat-template
chat-template-content-format response-role ssl-keyfile ssl-certfile ssl-ca-certs
enable-ssl-refresh ssl-cert-reqs root-path middleware return-tokens-as-token-ids
disable-frontend-multiprocessing enable-request-id-headers enable-auto-tool-choice
tool-call-parser tool-parser-plugin disable-fastapi-docs enable-prompt-tokens-details
enable-server-load-tracking disable-log-requests max-log-len enable-reasoning model task
tokenizer hf-config-path skip-tokenizer-init revision code-revision tokenizer-revision
tokenizer-mode trust-remote-code allowed-local-media-path config-format dtype max-model-len
model-impl disable-sliding-window seed max-logprobs quantization rope-scaling rope-theta
hf-overrides enforce-eager served-model-name download-dir load-format model-loader-extra-config
ignore-patterns use-tqdm-on-load max-parallel-loading-workers qlora-adapter-name-or-path
kv-cache-dtype block-size enable-prefix-caching prefix-caching-hash-algo use-v2-block-manager
swap-space cpu-offload-gb gpu-memory-utilization num-gpu-blocks-override calculate-kv-scales
preemption-mode kv-transfer-config enable-sleep-mode disable-cascade-attn
max-num-batched-tokens max-num-seqs max-num-partial-prefills max-long-partial-prefills
long-prefill-token-threshold num-lookahead-slots num-scheduler-steps multi-step-stream-outputs
scheduler-delay-factor enable-chunked-prefill disable-async-output-proc scheduling-policy
scheduler-cls max-seq-len-to-capture compilation-config distributed-executor-backend
pipeline-parallel-size tensor-parallel-size data-parallel-size enable-expert-parallel
ray-workers-use-nsight disable-custom-all-reduce device override-neuron-config
additional-config worker-cls worker-extension-cls tokenizer-pool-size tokenizer-pool-type
tokenizer-pool-extra-config limit-mm-per-prompt mm-processor-kwargs
disable-mm-preprocessor-cache enable-lora enable-lora-bias max-loras max-lora-rank
lora-extra-vocab-size lora-dtype long-lora-scaling-factors max-cpu-loras fully-sharded-loras
enable-prompt-adapter max-prompt-adapters max-prompt-adapter-token guided-decoding-backend
logits-processor-pattern reasoning-parser generation-config override-generation-config
override-pooler-config speculative-config speculative-model speculative-model-quantization
num-speculative-tokens speculative-disable-mqa-scorer speculative-draft-tensor-parallel-size
speculative-max-model-len speculative-disable-by-batch-size ngram-prompt-lookup-max
ngram-prompt-lookup-min spec-decoding-acceptance-method
typical-acceptance-sampler-posterior-threshold typical-acceptance-sampler-posterior-alpha
disable-logprobs-during-spec-decoding disable-log-stats show-hidden-metrics-for-version
otlp-traces-endpoint collect-detailed-traces
""".split()
)


def standings() -> Mapping[str, Standing | None]:
    """Each of them and what becomes of it; None: it is an option and does what it says."""
    options = set(map(flag_of, Settings.model_fields))
    return {flag: None if flag in options else FOREIGN_FLAGS[flag].standing for flag in VLLM_FLAGS}
