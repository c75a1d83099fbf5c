"""vLLM's flags that are no options here: none is taken and ignored without a word."""

from __future__ import annotations

from pathlib import Path

import pytest

from jackfield.config.command_line import parse_arguments
from jackfield.config.foreign import FOREIGN_FLAGS, Standing
from jackfield.config.settings import Settings, flag_of, make_settings
from jackfield.errors import ConfigError

# The help of `vllm serve` of early 2025.
REFERENCE = """
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
hf-overrides enforce-eager served-model-name download-dir load-format
model-loader-extra-config ignore-patterns use-tqdm-on-load max-parallel-loading-workers
qlora-adapter-name-or-path kv-cache-dtype block-size enable-prefix-caching
prefix-caching-hash-algo use-v2-block-manager swap-space cpu-offload-gb
gpu-memory-utilization num-gpu-blocks-override calculate-kv-scales preemption-mode
kv-transfer-config enable-sleep-mode disable-cascade-attn max-num-batched-tokens max-num-seqs
max-num-partial-prefills max-long-partial-prefills long-prefill-token-threshold
num-lookahead-slots num-scheduler-steps multi-step-stream-outputs scheduler-delay-factor
enable-chunked-prefill disable-async-output-proc scheduling-policy scheduler-cls
max-seq-len-to-capture compilation-config distributed-executor-backend
pipeline-parallel-size tensor-parallel-size data-parallel-size enable-expert-parallel
ray-workers-use-nsight disable-custom-all-reduce device override-neuron-config
additional-config worker-cls worker-extension-cls tokenizer-pool-size tokenizer-pool-type
tokenizer-pool-extra-config limit-mm-per-prompt mm-processor-kwargs
disable-mm-preprocessor-cache enable-lora enable-lora-bias max-loras max-lora-rank
lora-extra-vocab-size lora-dtype long-lora-scaling-factors max-cpu-loras fully-sharded-loras
enable-prompt-adapter max-prompt-adapters max-prompt-adapter-token guided-decoding-backend
logits-processor-pattern reasoning-parser generation-config override-generation-config
override-pooler-config speculative-config speculative-model speculative-model-quantization
num-speculative-tokens speculative-disable-mqa-scorer
speculative-draft-tensor-parallel-size speculative-max-model-len
speculative-disable-by-batch-size ngram-prompt-lookup-max ngram-prompt-lookup-min
spec-decoding-acceptance-method typical-acceptance-sampler-posterior-threshold
typical-acceptance-sampler-posterior-alpha disable-logprobs-during-spec-decoding
disable-log-stats show-hidden-metrics-for-version otlp-traces-endpoint
collect-detailed-traces
""".split()


def test_every_flag_of_the_reference_is_an_option_or_has_its_line() -> None:
    options = set(map(flag_of, Settings.model_fields))
    flags = {f"--{name}" for name in REFERENCE}
    assert len(flags) == 147
    assert flags - options - set(FOREIGN_FLAGS) == set()
    assert options & set(FOREIGN_FLAGS) == set()


@pytest.mark.parametrize("flag", FOREIGN_FLAGS)
def test_a_foreign_flag_is_refused_by_name_or_noted_and_says_what_to_do(flag: str) -> None:
    foreign = FOREIGN_FLAGS[flag]
    words = [flag] if foreign.is_switch else [flag, "7"]
    if foreign.standing is Standing.ACCEPTED:
        _, (note,) = parse_arguments(["M", *words])
        assert note == f"{flag} has no effect: {foreign.reason}; {foreign.instead}"
    else:
        with pytest.raises(ConfigError) as error:
            parse_arguments(["M", *words])
        text = f"{flag} is {foreign.standing.value}: {foreign.reason}; {foreign.instead}"
        assert str(error.value) == text


@pytest.mark.parametrize(
    "words",
    [
        ["--tensor-parallel-size", "1", "M"],
        ["-tp", "1", "-pp", "1", "M"],
        ["--kv_cache_dtype=auto", "M"],
        ["--task", "generate", "M"],
        ["--swap-space", "0", "M"],
        ["--no-enable-lora", "M"],
        ["--enable-lora=false", "M"],
        ["M", "--worker-extension-cls", ""],
    ],
)
def test_asking_for_what_is_so_anyway_is_taken(words: list[str]) -> None:
    settings, notes = parse_arguments(words)
    assert settings.model == "M" and notes == []


@pytest.mark.parametrize(
    ("words", "flag"),
    [
        (["-tp", "2"], "--tensor-parallel-size"),
        (["--speculative-config.method", "ngram"], "--speculative-config"),
        (["-sc.method", "ngram"], "--speculative-config"),
        (["--speculative_config.method=ngram"], "--speculative-config"),
        (["--lora-modules", "a=b", "c=d"], "--lora-modules"),
    ],
)
def test_short_and_dotted_forms_are_refused_by_name(words: list[str], flag: str) -> None:
    with pytest.raises(ConfigError, match=f"^{flag} is not built yet"):
        parse_arguments(["M", *words])


def test_programs_say_the_same_and_are_told_the_same(caplog: pytest.LogCaptureFixture) -> None:
    values = {"tensor_parallel_size": 1, "enable_lora": False, "speculative_model": None}
    make_settings({"model": "M", **values})
    assert not caplog.messages
    make_settings({"model": "M", "use_v2_block_manager": True})
    assert caplog.messages == [
        "--use-v2-block-manager has no effect: there is one block manager; leave it out"
    ]
    with pytest.raises(ConfigError, match=r"^--enable-lora is not built yet: LoRA adapters"):
        make_settings({"model": "M", "enable_lora": True})


def test_a_file_and_a_variable_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "options.yaml"
    file.write_text("enable-lora: false\ntensor-parallel-size: 1\nuse-v2-block-manager: true\n")
    (note,) = parse_arguments(["M", "--config", str(file)])[1]
    assert note.startswith(f"--use-v2-block-manager in {file} has no effect")
    file.write_text("tensor_parallel_size: 2\n")
    with pytest.raises(ConfigError, match=f"^--tensor-parallel-size in {file} is not built yet"):
        parse_arguments(["M", "--config", str(file)])
    monkeypatch.setenv("JACKFIELD_ENABLE_LORA", "1")
    with pytest.raises(ConfigError, match=r"^JACKFIELD_ENABLE_LORA is not built yet"):
        parse_arguments(["M"])
