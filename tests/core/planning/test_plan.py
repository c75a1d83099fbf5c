"""What a plan takes from the checkpoint and the options, and what it refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from tests.core.planning.conftest import CONFIG, Plan, write_weights

from jackfield.config.plan import EnginePlan
from jackfield.errors import CheckpointError, ConfigError, PluginError, UnknownPluginError


def rewrite(directory: Path, **changes: object) -> None:
    (directory / "config.json").write_text(json.dumps({**CONFIG, **changes}))


def generation(directory: Path, **values: object) -> None:
    (directory / "generation_config.json").write_text(json.dumps(values))


# --- device, dtype, limits -------------------------------------------------------------


def test_limits_follow_the_device_unless_given(plan: Plan) -> None:
    host = plan().engine.worker
    assert (host.block_size, host.max_num_batched_tokens, host.max_num_seqs) == (16, 1024, 64)
    fast = plan(device="accelerator").engine.worker
    assert (fast.block_size, fast.max_num_batched_tokens, fast.max_num_seqs) == (64, 4096, 256)
    given = plan(block_size=8, max_num_batched_tokens=100, max_num_seqs=9).engine.worker
    assert (given.block_size, given.max_num_batched_tokens, given.max_num_seqs) == (8, 100, 9)


def test_a_limit_that_is_not_given_follows_from_the_one_that_is(plan: Plan) -> None:
    assert plan(max_num_batched_tokens=16).engine.worker.max_num_seqs == 16
    assert plan(max_num_seqs=3000).engine.worker.max_num_batched_tokens == 3000
    whole = plan(enable_chunked_prefill=False).engine.worker
    assert whole.max_num_batched_tokens == whole.max_model_len == 4096


@pytest.mark.parametrize(
    ("said", "asked", "host", "accelerator"),
    [
        ("float32", "auto", "float32", "bfloat16"),
        ("float16", "auto", "float16", "float16"),
        ("bfloat16", "auto", "bfloat16", "bfloat16"),
        ("bfloat16", "float", "float32", "float32"),
        ("float32", "half", "float16", "float16"),
    ],
)
def test_dtype_is_the_checkpoints_but_float32_stays_on_the_host(
    plan: Plan, checkpoint: Path, said: str, asked: str, host: str, accelerator: str
) -> None:
    rewrite(checkpoint, torch_dtype=said)
    assert plan(dtype=asked).engine.worker.dtype == host
    assert plan(dtype=asked, device="accelerator").engine.worker.dtype == accelerator


@pytest.mark.parametrize(
    ("stored", "dtype"), [("BF16", "bfloat16"), ("F16", "float16"), ("F32", "float32")]
)
def test_a_config_without_dtype_takes_that_of_the_weights(
    plan: Plan, checkpoint: Path, stored: str, dtype: str
) -> None:
    rewrite(checkpoint, torch_dtype=None)
    write_weights(checkpoint / "model.safetensors", stored)
    assert plan().engine.worker.dtype == dtype


def test_context_is_the_models_or_less(plan: Plan, checkpoint: Path) -> None:
    assert plan().engine.worker.max_model_len == 4096
    assert plan(max_model_len="1k").engine.worker.max_model_len == 1000
    with pytest.raises(ConfigError, match="--max-model-len 5000 is above the 4096 tokens"):
        plan(max_model_len=5000)
    rewrite(checkpoint, sliding_window=512)
    assert plan(disable_sliding_window=True).engine.worker.max_model_len == 512
    rewrite(checkpoint, max_position_embeddings=None)
    with pytest.raises(CheckpointError, match="--max-model-len"):
        plan()
    assert plan(max_model_len=77).engine.worker.max_model_len == 77


def test_rope_options_change_the_config_in_its_own_form(plan: Plan, checkpoint: Path) -> None:
    linear = {"rope_type": "linear", "factor": 2.0}
    old = plan(rope_scaling=linear, rope_theta=5.0)
    assert (old.config["rope_scaling"], old.config["rope_theta"]) == (linear, 5.0)
    assert old.engine.worker.max_model_len == 8192
    rewrite(checkpoint, rope_parameters={"rope_type": "default", "rope_theta": 3.0})
    assert plan(rope_scaling=linear).config["rope_parameters"] == {**linear, "rope_theta": 3.0}
    new = plan(rope_theta=5.0).config["rope_parameters"]
    assert new == {"rope_type": "default", "rope_theta": 5.0}


def test_overrides_reach_the_worker(plan: Plan) -> None:
    worker = plan(hf_overrides={"max_position_embeddings": 128}).engine.worker
    assert worker.max_model_len == 128
    assert worker.config["max_position_embeddings"] == 128


def test_the_plan_survives_the_process_border(plan: Plan) -> None:
    engine = plan(disable_async_output_proc=True, safe_mode=False, verbose=True).engine
    assert msgspec.json.decode(msgspec.json.encode(engine), type=EnginePlan) == engine
    assert (engine.worker.steps_in_flight, engine.log_level) == (1, "debug")


# --- plugins ---------------------------------------------------------------------------


def test_an_architecture_without_a_plugin_goes_to_transformers(
    plan: Plan, checkpoint: Path
) -> None:
    assert plan().engine.worker.model_impl == "auto"
    rewrite(checkpoint, architectures=["Gemma2ForCausalLM"])
    assert plan().engine.worker.model_impl == "transformers"
    for ours in ("jackfield", "vllm"):
        with pytest.raises(PluginError, match="'Gemma2ForCausalLM'"):
            plan(model_impl=ours)
    rewrite(checkpoint, architectures=None)
    with pytest.raises(CheckpointError, match="architectures"):
        plan()


def test_an_architecture_that_nobody_knows_is_refused_before_torch_is_imported(
    plan: Plan, checkpoint: Path
) -> None:
    rewrite(checkpoint, architectures=["NewForCausalLM"])
    with pytest.raises(CheckpointError, match="NewForCausalLM is unknown"):
        plan()
    assert plan(trust_remote_code=True).engine.worker.model_impl == "transformers"


def test_schedulers_are_chosen_by_policy_or_class(plan: Plan) -> None:
    assert plan().engine.scheduler == "fcfs"
    assert plan(scheduling_policy="priority").engine.scheduler == "priority"
    assert plan(scheduler_cls="a.b:C", scheduling_policy="fcfs").engine.scheduler == "a.b:C"
    old = plan(scheduler_cls="vllm.core.scheduler.Scheduler", scheduling_policy="priority")
    assert old.engine.scheduler == "priority"


@pytest.mark.parametrize(
    ("option", "kind"),
    [
        ("scheduler_cls", "schedulers"),
        ("worker_cls", "workers"),
        ("distributed_executor_backend", "executors"),
        ("load_format", "load_formats"),
        ("attention_backend", "attention_backends"),
        ("tokenizer_mode", "tokenizers"),
        ("tool_call_parser", "tool_parsers"),
        ("reasoning_parser", "reasoning_parsers"),
        ("quantization", "quantization"),
        ("model_impl", "models"),
        ("device", "platforms"),
    ],
)
def test_an_unknown_plugin_of_any_kind_is_refused(plan: Plan, option: str, kind: str) -> None:
    with pytest.raises(PluginError, match=f"there is no {kind} plugin 'nonsense'"):
        plan(**{option: "nonsense"})


def test_the_checkpoints_quantization_needs_its_plugin(plan: Plan, checkpoint: Path) -> None:
    rewrite(checkpoint, quantization_config={"quant_method": "some_bits"})
    with pytest.raises(PluginError, match="there is no quantization plugin 'some_bits'"):
        plan()


# --- generation ------------------------------------------------------------------------


def test_sampling_defaults_come_from_the_model_unless_refused(
    plan: Plan, checkpoint: Path, tmp_path: Path
) -> None:
    generation(checkpoint, temperature=0.6, top_k=20.0, max_new_tokens=9, do_sample=True)
    said = {"temperature": 0.6, "top_k": 20, "max_tokens": 9}
    assert plan().generation_defaults == said
    assert plan(generation_config="vllm").generation_defaults == {}
    overridden = plan(override_generation_config={"temperature": 0, "presence_penalty": 1})
    assert overridden.generation_defaults == {**said, "temperature": 0, "presence_penalty": 1}
    without = plan(override_generation_config={"max_new_tokens": None, "min_p": None})
    assert without.generation_defaults == {"temperature": 0.6, "top_k": 20}
    other = tmp_path / "other"
    other.mkdir()
    generation(other, min_p=0.5)
    assert plan(generation_config=str(other)).generation_defaults == {"min_p": 0.5}


def test_end_ids_come_from_generation_config_before_config(plan: Plan, checkpoint: Path) -> None:
    assert plan().eos_token_ids == (7,)
    generation(checkpoint, eos_token_id=[5, 6, 5])
    assert plan().eos_token_ids == (5, 6)
    assert plan(generation_config="vllm").eos_token_ids == (5, 6)
    assert plan(override_generation_config={"eos_token_id": 3}).eos_token_ids == (3,)


# --- text ------------------------------------------------------------------------------


def test_logprobs_may_be_those_of_the_whole_vocabulary(plan: Plan) -> None:
    assert plan(max_logprobs=7).max_logprobs == 7
    assert plan(max_logprobs=-1).max_logprobs >= 1 << 20


def test_names_and_text_options(plan: Plan, checkpoint: Path, tmp_path: Path) -> None:
    plain = plan()
    assert plain.served_model_names == (str(checkpoint),)
    assert plain.tokenizer_mode == "auto" and plain.tokenizer_directory == checkpoint
    assert plan(served_model_name=["a", "b"]).served_model_names == ("a", "b")
    assert plan(skip_tokenizer_init=True).tokenizer_mode == "none"
    assert plan(tokenizer=str(tmp_path)).tokenizer_directory == tmp_path
    file = tmp_path / "template.jinja"
    file.write_text("x")
    assert plan(chat_template=str(file)).chat_template == str(file)
    assert plan(chat_template="{{ messages }}").chat_template == "{{ messages }}"


# --- refusals --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"model": "/no/such/directory"}, "/no/such/directory"),
        ({"device": "absent"}, "no such device"),
        ({"block_size": 24}, "power of two"),
        ({"max_num_seqs": 10, "max_num_batched_tokens": 9}, "needs a token"),
        ({"enable_chunked_prefill": False, "max_num_batched_tokens": 100}, "one step"),
        ({"generation_config": "/no/such"}, "generation_config.json"),
        ({"override_generation_config": {"temprature": 1}}, "did you mean 'temperature'"),
        ({"override_generation_config": {"temperature": -1}}, "temperature must be"),
        ({"override_generation_config": {"temperature": "hot"}}, "must be a number"),
        ({"override_generation_config": {"top_k": 1.5}}, "whole number"),
        ({"chat_template": "/no/such"}, "--chat-template /no/such"),
    ],
)
def test_what_cannot_work_is_refused_in_one_line(
    plan: Plan, options: dict[str, object], part: str
) -> None:
    with pytest.raises(ConfigError) as error:
        plan(**options)
    assert part in str(error.value) and "\n" not in str(error.value)


def test_damaged_weights_are_refused_before_torch(plan: Plan, checkpoint: Path) -> None:
    file = checkpoint / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="truncated: tensor weight"):
        plan()
    file.unlink()
    with pytest.raises(CheckpointError, match="no weights"):
        plan()
    assert plan(load_format="dummy").engine.worker.load_format == "dummy"
    rewrite(checkpoint, torch_dtype=None)
    index = '{"weight_map": {"weight": "model-00001-of-00002.safetensors"}}'
    (checkpoint / "model.safetensors.index.json").write_text(index)
    with pytest.raises(CheckpointError, match=r"weights are missing: .*model-00001-of-00002"):
        plan()


def test_defaults_of_the_template_are_none_of_a_requests_own_fields(plan: Plan) -> None:
    off = {"enable_thinking": False}
    assert plan(default_chat_template_kwargs=off).template_defaults == off
    with pytest.raises(ConfigError, match="--default-chat-template-kwargs cannot set messages"):
        plan(default_chat_template_kwargs={"tools": [], "messages": []})


def test_a_template_that_is_no_text_is_refused_in_one_line(plan: Plan, tmp_path: Path) -> None:
    file = tmp_path / "template.jinja"
    file.write_bytes(b"\xff\xfe{")
    with pytest.raises(ConfigError, match=r"cannot read .*template\.jinja"):
        plan(chat_template=str(file))


def test_a_plan_is_made_without_torch(checkpoint: Path, platforms: Path) -> None:
    code = f"""
import sys
from jackfield.config.settings import make_settings
from jackfield.planning import make_plan
from jackfield.registry import Registry
settings = make_settings(dict(
    model={str(checkpoint)!r}, device="host", platform_plugin={str(platforms)!r},
    reasoning_parser="qwen3",
))
make_plan(settings, Registry(settings.plugin_sources))
heavy = {{"torch", "transformers", "huggingface_hub", "fastapi"}} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_policy_that_nobody_offers_is_looked_for_in_both_kinds(plan: Plan) -> None:
    with pytest.raises(PluginError, match="no queue policy or scheduler 'fcsf'; did you mean"):
        plan(scheduling_policy="fcsf")


def test_the_load_format_of_older_command_lines_goes_with_its_quantization(plan: Plan) -> None:
    made = plan(load_format="bitsandbytes", quantization="bitsandbytes").engine.worker
    assert (made.load_format, made.quantization) == ("auto", "bitsandbytes")
    with pytest.raises(ConfigError, match="needs --quantization bitsandbytes"):
        plan(load_format="bitsandbytes")
    with pytest.raises(
        PluginError, match=r"no load_formats plugin 'gguff'.*jackfield\.load_formats"
    ):
        plan(load_format="gguff")
    with pytest.raises(CheckpointError, match=r"has no \.gguf file"):
        plan(load_format="gguf")


def test_a_swap_space_without_swapping_says_so(
    plan: Plan, caplog: pytest.LogCaptureFixture
) -> None:
    assert plan(swap_space=4).engine.worker.swap_bytes == 0
    assert caplog.messages == ["--swap-space has no effect without --preemption-mode swap"]
    with pytest.raises(ConfigError, match="--swap-space above 0"):
        plan(preemption_mode="swap", swap_space=0)


def test_the_grammar_backend_has_two_spellings(plan: Plan) -> None:
    made = plan(structured_outputs_config={"backend": "guidance"})
    assert made.engine.grammar_backend == "guidance"
    with pytest.raises(ConfigError, match="'disable_fallback', which is not built"):
        plan(structured_outputs_config={"disable_fallback": True})
    silent = {"disable_fallback": True, "disable_any_whitespace": False, "enable_in_reasoning": ""}
    made = plan(structured_outputs_config={"backend": "guidance", **silent})
    assert made.engine.grammar_backend == "guidance"
    with pytest.raises(ConfigError, match="use --reasoning-parser"):
        plan(structured_outputs_config={"reasoning_parser": "qwen3"})


def test_what_vllm_wrote_behind_a_grammar_backend_is_no_class_of_a_module(plan: Plan) -> None:
    for said in ("xgrammar:no-fallback", "xgrammar:no-fallback,no-additional-properties"):
        assert plan(guided_decoding_backend=said).engine.grammar_backend == "xgrammar"
    assert plan(guided_decoding_backend="mine:Backend").engine.grammar_backend == "mine:Backend"
    compact = plan(guided_decoding_backend="xgrammar:disable-any-whitespace").engine
    assert (compact.grammar_backend, compact.json_whitespace) == ("xgrammar", "")
    compact = plan(structured_outputs_config={"disable_any_whitespace": True}).engine
    assert (compact.grammar_backend, compact.json_whitespace) == ("auto", "")
    assert plan().engine.json_whitespace is None


def test_names_of_vllm_for_what_is_so_anyway_are_told_of(
    plan: Plan, caplog: pytest.LogCaptureFixture
) -> None:
    made = plan(attention_backend="FLASH_ATTN", distributed_executor_backend="mp")
    worker = made.engine.worker
    assert (worker.attention_backend, worker.executor) == ("auto", "uni")
    executor, attention = caplog.messages
    assert executor.startswith("--distributed-executor-backend mp has no effect")
    assert attention.startswith("--attention-backend FLASH_ATTN has no effect")
    for options in ({"attention_backend": "FLASH"}, {"distributed_executor_backend": "ray"}):
        with pytest.raises(UnknownPluginError):
            plan(**options)
    assert plan(prefix_caching_hash_algo="sha256_cbor").engine.prefix_caching_hash_algo == "sha256"
