"""Every flag of vLLM's help of early 2025: what to type, and what it changes or how it ends.

``Works.place`` is where the effect is seen: ``worker``, ``engine``, ``plan``, ``server`` (what the
server is built from), ``config`` (the model's), ``kind`` (the chosen plugin of a kind) or ``hub``
(what is asked of it), with a name behind the dot. ``before`` are words without which a flag makes
no difference. ``{...}`` are paths that the test makes.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Works:
    words: str
    place: str
    value: object
    before: str = ""


@dataclass(frozen=True)
class Accepted:
    words: str


@dataclass(frozen=True)
class Refused:
    words: str


@dataclass(frozen=True)
class Later:
    words: str
    taken: str = ""
    """Words that ask for what is so anyway."""


Walked = Works | Accepted | Refused | Later

HTTP: dict[str, Walked] = {
    "--host": Works("--host 127.0.0.1", "server.host", "127.0.0.1"),
    "--port": Works("--port 1234", "server.port", 1234),
    "--uvicorn-log-level": Works("--uvicorn-log-level debug", "server.uvicorn_log_level", "debug"),
    "--disable-uvicorn-access-log": Works(
        "--disable-uvicorn-access-log", "server.access_log", False, "--uvicorn-log-level debug"
    ),
    "--allow-credentials": Works(
        "--allow-credentials", "server.allow_credentials", True, "--allowed-origins http://a"
    ),
    "--allowed-origins": Works(
        """--allowed-origins '["http://a"]'""", "server.allowed_origins", ("http://a",)
    ),
    "--allowed-methods": Works(
        """--allowed-methods '["GET"]'""", "server.allowed_methods", ("GET",)
    ),
    "--allowed-headers": Works("""--allowed-headers '["x"]'""", "server.allowed_headers", ("x",)),
    "--api-key": Works("--api-key one two", "server.api_keys", ("one", "two")),
    "--lora-modules": Later("--lora-modules a=b c=d"),
    "--prompt-adapters": Later("--prompt-adapters a=b"),
    "--chat-template": Works("--chat-template '{{{{x}}}}'", "plan.chat_template", "{{x}}"),
    "--chat-template-content-format": Works(
        "--chat-template-content-format openai", "plan.chat_template_content_format", "openai"
    ),
    "--response-role": Works("--response-role bot", "server.response_role", "bot"),
    "--ssl-keyfile": Works("--ssl-keyfile k --ssl-certfile c", "server.ssl_keyfile", "k"),
    "--ssl-certfile": Works("--ssl-certfile c --ssl-keyfile k", "server.ssl_certfile", "c"),
    "--ssl-ca-certs": Works("--ssl-ca-certs a", "server.ssl_ca_certs", "a"),
    "--enable-ssl-refresh": Works("--enable-ssl-refresh", "server.enable_ssl_refresh", True),
    "--ssl-cert-reqs": Works("--ssl-cert-reqs 2", "server.ssl_cert_reqs", 2),
    "--root-path": Works("--root-path /x", "server.root_path", "/x"),
    "--middleware": Works("--middleware a.B --middleware c:d", "server.middleware", ("a.B", "c:d")),
    "--return-tokens-as-token-ids": Works(
        "--return-tokens-as-token-ids", "server.return_tokens_as_token_ids", True
    ),
    "--disable-frontend-multiprocessing": Accepted("--disable-frontend-multiprocessing"),
    "--enable-request-id-headers": Works(
        "--enable-request-id-headers", "server.enable_request_id_headers", True
    ),
    "--enable-auto-tool-choice": Accepted("--enable-auto-tool-choice --tool-call-parser hermes"),
    "--tool-call-parser": Works("--tool-call-parser hermes", "plan.tool_parser", "hermes"),
    "--tool-parser-plugin": Works(
        "--tool-parser-plugin {parser} --tool-call-parser mine", "plan.tool_parser", "mine"
    ),
    "--disable-fastapi-docs": Works("--disable-fastapi-docs", "server.enable_docs", False),
    "--enable-prompt-tokens-details": Works(
        "--enable-prompt-tokens-details", "server.enable_prompt_tokens_details", True
    ),
    "--enable-server-load-tracking": Accepted("--enable-server-load-tracking"),
    "--disable-log-requests": Accepted("--disable-log-requests"),
    "--max-log-len": Works("--max-log-len 5", "server.max_log_len", 5),
    "--enable-reasoning": Accepted("--enable-reasoning --reasoning-parser qwen3"),
}
MODEL: dict[str, Walked] = {
    "--model": Works("--model {other}", "worker.model", "{other}"),
    "--task": Works("--task embed", "worker.pooler.kind", "last"),
    "--tokenizer": Works("--tokenizer {other}", "engine.tokenizer", "{other}"),
    "--hf-config-path": Works("--hf-config-path {other}", "worker.max_model_len", 77),
    "--skip-tokenizer-init": Works("--skip-tokenizer-init", "plan.tokenizer_mode", "none"),
    "--revision": Works("--revision v2", "hub.revision", "v2"),
    "--code-revision": Works("--code-revision v2", "worker.code_revision", "v2"),
    "--tokenizer-revision": Works("--tokenizer-revision v2", "hub.tokenizer_revision", "v2"),
    "--tokenizer-mode": Works("--tokenizer-mode slow", "engine.tokenizer_mode", "slow"),
    "--trust-remote-code": Works("--trust-remote-code", "worker.trust_remote_code", True),
    "--allowed-local-media-path": Later("--allowed-local-media-path /x"),
    "--config-format": Works("--config-format hf", "kind.config_formats", "hf"),
    "--dtype": Works("--dtype half", "worker.dtype", "float16"),
    "--max-model-len": Works("--max-model-len 1k", "worker.max_model_len", 1000),
    "--model-impl": Works("--model-impl transformers", "worker.model_impl", "transformers"),
    "--disable-sliding-window": Works(
        "--disable-sliding-window", "worker.max_model_len", 64, "--hf-overrides.sliding_window 64"
    ),
    "--seed": Works("--seed 7", "worker.seed", 7),
    "--max-logprobs": Works("--max-logprobs 5", "plan.max_logprobs", 5),
    "--quantization": Works("-q fp8", "worker.quantization", "fp8"),
    "--rope-scaling": Works(
        """--rope-scaling '{{"rope_type": "linear", "factor": 2.0}}'""",
        "worker.max_model_len",
        8192,
    ),
    "--rope-theta": Works("--rope-theta 5", "config.rope_theta", 5.0),
    "--hf-overrides": Works(
        "--hf-overrides.max_position_embeddings 128", "worker.max_model_len", 128
    ),
    "--enforce-eager": Works("--enforce-eager", "worker.enforce_eager", True),
    "--served-model-name": Works("--served-model-name a b", "plan.served_model_names", ("a", "b")),
}
LOADING: dict[str, Walked] = {
    "--download-dir": Works("--download-dir /d", "hub.download_dir", "/d"),
    "--load-format": Works("--load-format dummy", "worker.load_format", "dummy"),
    "--model-loader-extra-config": Works(
        "--load-format runai_streamer --model-loader-extra-config.concurrency 4",
        "worker.plugins.options",
        {"load_formats.runai_streamer": {"concurrency": 4}},
    ),
    "--ignore-patterns": Works("--ignore-patterns '*.md' x", "hub.ignore_patterns", ("*.md", "x")),
    "--use-tqdm-on-load": Works("--no-use-tqdm-on-load", "worker.show_progress", False),
    "--max-parallel-loading-workers": Works(
        "--max-parallel-loading-workers 3", "worker.max_parallel_loading", 3
    ),
    "--qlora-adapter-name-or-path": Later("--qlora-adapter-name-or-path a"),
}
MEMORY: dict[str, Walked] = {
    "--kv-cache-dtype": Works("--kv-cache-dtype fp8_e4m3", "worker.kv_dtype", "float8_e4m3fn"),
    "--block-size": Works("--block-size 32", "worker.block_size", 32),
    "--enable-prefix-caching": Works(
        "--no-enable-prefix-caching", "engine.enable_prefix_caching", False
    ),
    "--prefix-caching-hash-algo": Works(
        "--prefix-caching-hash-algo builtin", "engine.prefix_caching_hash_algo", "builtin"
    ),
    "--use-v2-block-manager": Accepted("--use-v2-block-manager"),
    "--swap-space": Works("--swap-space 1", "worker.swap_bytes", 1 << 30, "--preemption-mode swap"),
    "--cpu-offload-gb": Works(
        "--cpu-offload-gb 2", "worker.cpu_offload_bytes", 2 << 30, "--device accelerator"
    ),
    "--gpu-memory-utilization": Works(
        "--gpu-memory-utilization 0.5", "worker.gpu_memory_utilization", 0.5
    ),
    "--num-gpu-blocks-override": Works(
        "--num-gpu-blocks-override 99", "worker.num_blocks_override", 99
    ),
    "--calculate-kv-scales": Works(
        "--calculate-kv-scales", "worker.calculate_kv_scales", True, "--kv-cache-dtype fp8"
    ),
    "--preemption-mode": Works("--preemption-mode swap", "worker.swap_bytes", 4 << 30),
    "--kv-transfer-config": Later("--kv-transfer-config.kv_role kv_both"),
    "--enable-sleep-mode": Works("--enable-sleep-mode", "server.enable_sleep_mode", True),
    "--disable-cascade-attn": Accepted("--disable-cascade-attn"),
}
SCHEDULING: dict[str, Walked] = {
    "--max-num-batched-tokens": Works(
        "--max-num-batched-tokens 8k", "worker.max_num_batched_tokens", 8000
    ),
    "--max-num-seqs": Works("--max-num-seqs 5", "worker.max_num_seqs", 5),
    "--max-num-partial-prefills": Works(
        "--max-num-partial-prefills 3", "engine.max_num_partial_prefills", 3
    ),
    "--max-long-partial-prefills": Works(
        "--max-long-partial-prefills 2",
        "engine.max_long_partial_prefills",
        2,
        "--max-num-partial-prefills 3",
    ),
    "--long-prefill-token-threshold": Works(
        "--long-prefill-token-threshold 100", "engine.long_prefill_token_threshold", 100
    ),
    "--num-lookahead-slots": Later("--num-lookahead-slots 2", "--num-lookahead-slots 0"),
    "--num-scheduler-steps": Works("--num-scheduler-steps 4", "worker.steps_in_flight", 4),
    "--multi-step-stream-outputs": Works(
        "--multi-step-stream-outputs false", "engine.stream_interval", 4, "--num-scheduler-steps 4"
    ),
    "--scheduler-delay-factor": Works(
        "--scheduler-delay-factor 0.5", "engine.scheduler_delay_factor", 0.5
    ),
    "--enable-chunked-prefill": Works(
        "--enable-chunked-prefill=False", "engine.enable_chunked_prefill", False
    ),
    "--disable-async-output-proc": Works(
        "--disable-async-output-proc", "worker.steps_in_flight", 1
    ),
    "--scheduling-policy": Works("--scheduling-policy priority", "engine.scheduler", "priority"),
    "--scheduler-cls": Works("--scheduler-cls a.b.C", "engine.scheduler", "a.b.C"),
    "--max-seq-len-to-capture": Works(
        "--max-seq-len-to-capture 100", "worker.max_graph_seq_len", 100
    ),
    "--compilation-config": Works("-O0", "worker.enforce_eager", True),
}
DEVICES: dict[str, Walked] = {
    "--distributed-executor-backend": Works(
        "--distributed-executor-backend a:B", "worker.executor", "a:B"
    ),
    "--pipeline-parallel-size": Later("-pp 2", "-pp 1"),
    "--tensor-parallel-size": Later("-tp 2", "-tp 1"),
    "--data-parallel-size": Later("-dp 2", "-dp 1"),
    "--enable-expert-parallel": Accepted("--enable-expert-parallel"),
    "--ray-workers-use-nsight": Later("--ray-workers-use-nsight"),
    "--disable-custom-all-reduce": Accepted("--disable-custom-all-reduce"),
    "--device": Works("--device accelerator", "worker.device", "accelerator"),
    "--override-neuron-config": Refused("--override-neuron-config.a 1"),
    "--additional-config": Works(
        "--load-format runai_streamer --additional-config.runai_streamer.concurrency 4",
        "worker.plugins.options",
        {"runai_streamer": {"concurrency": 4}},
    ),
    "--worker-cls": Works("--worker-cls a:B", "worker.worker", "a:B"),
    "--worker-extension-cls": Works("--worker-extension-cls a.B", "worker.worker_extension", "a.B"),
    "--tokenizer-pool-size": Works("--tokenizer-pool-size 3", "server.tokenizer_threads", 3),
    "--tokenizer-pool-type": Refused("--tokenizer-pool-type ray"),
    "--tokenizer-pool-extra-config": Refused("--tokenizer-pool-extra-config.a 1"),
}
MEDIA: dict[str, Walked] = {
    "--limit-mm-per-prompt": Later(
        "--limit-mm-per-prompt image=2", "--limit-mm-per-prompt image=0"
    ),
    "--mm-processor-kwargs": Later("--mm-processor-kwargs.a 1", "--mm-processor-kwargs {}"),
    "--disable-mm-preprocessor-cache": Accepted("--disable-mm-preprocessor-cache"),
}
ADAPTERS: dict[str, Walked] = {
    "--enable-lora": Later("--enable-lora", "--enable-lora=false"),
    "--enable-lora-bias": Later("--enable-lora-bias"),
    "--max-loras": Accepted("--max-loras 4"),
    "--max-lora-rank": Accepted("--max-lora-rank 16"),
    "--lora-extra-vocab-size": Accepted("--lora-extra-vocab-size 256"),
    "--lora-dtype": Accepted("--lora-dtype auto"),
    "--long-lora-scaling-factors": Later("--long-lora-scaling-factors 1.0 4.0"),
    "--max-cpu-loras": Accepted("--max-cpu-loras 8"),
    "--fully-sharded-loras": Accepted("--fully-sharded-loras"),
    "--enable-prompt-adapter": Later("--enable-prompt-adapter"),
    "--max-prompt-adapters": Later("--max-prompt-adapters 1"),
    "--max-prompt-adapter-token": Later("--max-prompt-adapter-token 8"),
}
OUTPUT: dict[str, Walked] = {
    "--guided-decoding-backend": Works(
        "--guided-decoding-backend guidance", "engine.grammar_backend", "guidance"
    ),
    "--logits-processor-pattern": Works(
        "--logits-processor-pattern a.*", "server.logits_processor_pattern", "a.*"
    ),
    "--reasoning-parser": Works("--reasoning-parser qwen3", "plan.reasoning_parser", "qwen3"),
    "--generation-config": Works("--generation-config vllm", "plan.generation_defaults", {}),
    "--override-generation-config": Works(
        "--override-generation-config.temperature 0.1",
        "plan.generation_defaults",
        {"temperature": 0.1},
    ),
    "--override-pooler-config": Works(
        """--override-pooler-config '{{"pooling_type": "MEAN"}}'""",
        "worker.pooler.kind",
        "mean",
        "--task embed",
    ),
}
SPECULATION: dict[str, Walked] = {
    "--speculative-config": Later("--speculative-config.method ngram"),
    "--speculative-model": Later("--speculative-model m"),
    "--speculative-model-quantization": Later("--speculative-model-quantization fp8"),
    "--num-speculative-tokens": Later("--num-speculative-tokens 3"),
    "--speculative-disable-mqa-scorer": Later("--speculative-disable-mqa-scorer"),
    "--speculative-draft-tensor-parallel-size": Later("-spec-draft-tp 1"),
    "--speculative-max-model-len": Later("--speculative-max-model-len 1k"),
    "--speculative-disable-by-batch-size": Later("--speculative-disable-by-batch-size 8"),
    "--ngram-prompt-lookup-max": Later("--ngram-prompt-lookup-max 4"),
    "--ngram-prompt-lookup-min": Later("--ngram-prompt-lookup-min 1"),
    "--spec-decoding-acceptance-method": Later(
        "--spec-decoding-acceptance-method rejection_sampler"
    ),
    "--typical-acceptance-sampler-posterior-threshold": Later(
        "--typical-acceptance-sampler-posterior-threshold 0.09"
    ),
    "--typical-acceptance-sampler-posterior-alpha": Later(
        "--typical-acceptance-sampler-posterior-alpha 0.3"
    ),
    "--disable-logprobs-during-spec-decoding": Later("--disable-logprobs-during-spec-decoding"),
}
OBSERVATION: dict[str, Walked] = {
    "--disable-log-stats": Works("--disable-log-stats", "server.log_stats", False),
    "--show-hidden-metrics-for-version": Accepted("--show-hidden-metrics-for-version 0.7"),
    "--otlp-traces-endpoint": Works(
        "--otlp-traces-endpoint http://c", "server.otlp_traces_endpoint", "http://c"
    ),
    "--collect-detailed-traces": Later("--collect-detailed-traces model"),
}
FLAGS: dict[str, Walked] = {
    **HTTP,
    **MODEL,
    **LOADING,
    **MEMORY,
    **SCHEDULING,
    **DEVICES,
    **MEDIA,
    **ADAPTERS,
    **OUTPUT,
    **SPECULATION,
    **OBSERVATION,
}
