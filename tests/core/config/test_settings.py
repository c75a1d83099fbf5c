"""Options: three places, one meaning; what is wrong is one line."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

import jackfield
from jackfield.config.command_line import parse_arguments
from jackfield.config.plugins import PLUGIN_OPTIONS
from jackfield.config.settings import GROUPS, Settings, flag_of, make_settings, variable_of
from jackfield.errors import ConfigError
from jackfield.server.options import ServerOptions


def parse(*words: str) -> Settings:
    return parse_arguments(words)[0]


def refusal(*words: str) -> str:
    with pytest.raises(ConfigError) as error:
        parse_arguments(words)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_the_command_line_goes_before_the_environment_and_that_before_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "options.yaml"
    file.write_text("port: 1\nmax-num-seqs: 2\nmax_model_len: 4k\nseed: 4\n")
    monkeypatch.setenv("JACKFIELD_PORT", "10")
    monkeypatch.setenv("JACKFIELD_MAX_NUM_SEQS", "20")
    settings = parse("M", "--config", str(file), "--port", "100")
    assert (settings.port, settings.max_num_seqs) == (100, 20)
    assert (settings.max_model_len, settings.seed, settings.block_size) == (4000, 4, None)


def test_the_config_file_may_be_named_by_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "options.yaml"
    file.write_text("model: /a/model\napi-key: [one, two]\nhf-overrides: {a: {b: 1}}\n")
    monkeypatch.setenv("JACKFIELD_CONFIG", str(file))
    settings = parse()
    assert settings.model == "/a/model"
    assert settings.api_key == ("one", "two")
    assert settings.hf_overrides == {"a": {"b": 1}}


@pytest.mark.parametrize(
    ("text", "option", "value"),
    [
        ("cuda-graph-sizes: [1, 2]", "cudagraph_capture_sizes", (1, 2)),
        ("cudagraph-capture-sizes: 8", "cudagraph_capture_sizes", (8,)),
        ("optimization_level: 2", "compilation_config", {"level": 2}),
        ("no-enable-prefix-caching: true", "enable_prefix_caching", False),
        ("no_enable_prefix_caching: false", "enable_prefix_caching", True),
        ("host:\nport: ~", "port", 8000),
        ("hf-overrides:", "hf_overrides", {}),
    ],
)
def test_the_config_file_takes_every_spelling_of_a_flag(
    tmp_path: Path, text: str, option: str, value: object
) -> None:
    file = tmp_path / "options.yaml"
    file.write_text(text)
    assert getattr(parse("M", "--config", str(file)), option) == value


@pytest.mark.parametrize(
    ("words", "option", "value"),
    [
        (["--max_model_len=32k"], "max_model_len", 32_000),
        (["--max-model-len", "32K"], "max_model_len", 32_768),
        (["--max-num-batched-tokens", "2.5k"], "max_num_batched_tokens", 2_500),
        (["--max-body-bytes", "1M"], "max_body_bytes", 1 << 20),
        (["--max-logprobs", "-1"], "max_logprobs", -1),
        (["--gpu-memory-utilization", "0.5"], "gpu_memory_utilization", 0.5),
        (["--gpu-memory-utilization", "20G"], "gpu_memory_utilization", 20.0 * (1 << 30)),
        (["--no-enable-prefix-caching"], "enable_prefix_caching", False),
        (["--no_enable_prefix_caching"], "enable_prefix_caching", False),
        (["--enable-chunked-prefill=False"], "enable_chunked_prefill", False),
        (["--enable-chunked-prefill", "true"], "enable_chunked_prefill", True),
        (["--enforce-eager"], "enforce_eager", True),
        (["-q", "gptq"], "quantization", "gptq"),
        (["-v"], "verbose", True),
        (["--allowed-origins", '["a", "b"]'], "allowed_origins", ("a", "b")),
        (["--api-key", "a", "b", "--api-key", "c"], "api_key", ("a", "b", "c")),
        (["--middleware", "a.B", "--middleware", "c:d"], "middleware", ("a.B", "c:d")),
        (["--served-model-name", "a", "b"], "served_model_name", ("a", "b")),
        (["--hf-overrides", '{"a": 1}'], "hf_overrides", {"a": 1}),
        (["--hf_overrides.a_b.c-d", "1e3"], "hf_overrides", {"a_b": {"c-d": 1000.0}}),
        (["--hf-overrides.a=x=y"], "hf_overrides", {"a": "x=y"}),
        (
            ["--hf-overrides.a.b=1", "--hf-overrides", '{"a": {"c": 2}}'],
            "hf_overrides",
            {"a": {"b": 1, "c": 2}},
        ),
        (
            ["--hf-overrides.a+", "x", "--hf-overrides.a+=1,y", "--hf-overrides.a+", "[1,2]"],
            "hf_overrides",
            {"a": ["x", 1, "y", [1, 2]]},
        ),
        (
            ["--hf-overrides", '{"a": [1]}', "--hf-overrides.a+", "2"],
            "hf_overrides",
            {"a": [1, 2]},
        ),
        (["--h11-max-incomplete-event-size", "4194304"], "max_header_bytes", 4 << 20),
        (["--h11-max-header-count", "256"], "max_headers", 256),
        (["--enable-force-include-usage"], "enable_force_include_usage", True),
        (["--model", "X"], "model", "X"),
        (["--pooler_config.normalize", "false"], "override_pooler_config", {"normalize": False}),
        (["--hf-overrides.a="], "hf_overrides", {"a": ""}),
        (["-cc.level=2"], "compilation_config", {"level": 2}),
        (
            ["-O3", "-cc.cudagraph_mode", "NONE"],
            "compilation_config",
            {"level": 3, "cudagraph_mode": "NONE"},
        ),
        (["--max-num-batched-tokens", "2.01k"], "max_num_batched_tokens", 2_010),
        (["--model-path", "X"], "model", "X"),
        (["--context-length", "4k"], "max_model_len", 4_000),
        (["--cuda_graph_sizes", "1", "2"], "cudagraph_capture_sizes", (1, 2)),
        (["--optimization-level", "2"], "compilation_config", {"level": 2}),
        (["--max-model-len", "auto"], "max_model_len", None),
        (["--max-model-len", "-1"], "max_model_len", None),
    ],
)
def test_vllms_spellings_are_understood(words: list[str], option: str, value: object) -> None:
    assert getattr(parse(*words), option) == value


def test_the_environment_has_the_spellings_of_the_command_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("JACKFIELD_MAX_MODEL_LEN", "8k")
    monkeypatch.setenv("JACKFIELD_API_KEY", "a key, with a comma")
    monkeypatch.setenv("JACKFIELD_ALLOWED_ORIGINS", '["a", "b"]')
    monkeypatch.setenv("JACKFIELD_HF_OVERRIDES", '{"a": 1}')
    monkeypatch.setenv("JACKFIELD_ENFORCE_EAGER", "true")
    settings = parse("M")
    assert settings.max_model_len == 8000
    assert settings.api_key == ("a key, with a comma",)
    assert settings.allowed_origins == ("a", "b")
    assert settings.hf_overrides == {"a": 1}
    assert settings.enforce_eager


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["--max-model-ln", "3"], "did you mean --max-model-len?"),
        (["--no-enable-prefix-cach"], "did you mean --no-enable-prefix-caching?"),
        (["--speculativ-config", "x"], "did you mean --speculative-config?"),
        (["M", "N"], "unexpected argument 'N'"),
        (["M", "--model", "N"], "two models"),
        (["--port"], "--port: expected one argument"),
        (["--port", "x"], "--port 'x'"),
        (["--port", "99999"], "65535"),
        (["--dtype", "int8"], "'bfloat16'"),
        (["--gpu-memory-utilization", "90"], "neither a share up to 1 nor 1 MiB or more"),
        (["--gpu-memory-utilization", "x"], "--gpu-memory-utilization 'x'"),
        (["--max-model-len", "1.5K"], "1.5k"),
        (["--hf-overrides", "{"], "not a JSON object"),
        (["--hf-overrides", "3"], "--hf-overrides"),
        (["--hf-overrides", "3", "--hf-overrides.a", "1"], "--hf-overrides is no JSON object: 3"),
        (["--hf-overrides.a", "1", "--hf-overrides.a.b", "2"], "--hf-overrides.a.b: a has the"),
        (["--hf-overrides.a", "1", "--hf-overrides.a+", "2"], "has the value 1, which is no list"),
        (["--hf-overrides.a", "--port", "1"], "--hf-overrides.a needs a value"),
        (["--max-model-len.a", "32"], "unknown option --max-model-len.a"),
        (["--enforce-eager.a"], "unknown option --enforce-eager.a"),
        (["--max-model-len", "0"], "--max-model-len '0' is refused"),
        (["--allowed-origins", "[1"], "not a JSON list"),
        (["--enforce-eager=3"], "switch"),
        (["--ssl-keyfile", "k"], "--ssl-certfile"),
        (["--allow-credentials"], "--allowed-origins"),
        (["--config", "/no/such/file"], "cannot read --config /no/such/file"),
    ],
)
def test_what_is_wrong_is_one_line_in_the_users_spelling(words: list[str], part: str) -> None:
    assert part in refusal(*words)


def test_only_a_switch_is_proposed_with_no_before_it() -> None:
    assert refusal("--no-max-num-batched-token") == "unknown option --no-max-num-batched-token"


def test_a_wrong_variable_is_named_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JACKFIELD_PORT", "x")
    assert refusal("M").startswith("JACKFIELD_PORT 'x' is refused")


def test_an_unknown_variable_gets_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JACKFIELD_PROT", "1")
    (note,) = parse_arguments(["M"])[1]
    assert "JACKFIELD_PROT" in note and "did you mean 'JACKFIELD_PORT'?" in note


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("prot: 1", "did you mean 'port'?"),
        ("config: other.yaml", "unknown option 'config'; did you mean 'config-format'?"),
        ("no-port: true", "unknown option 'no-port'"),
        ("api-key: 12", "--api-key (--config) is refused: input should be a valid string"),
        ("- port", "not a mapping"),
        ("a: [", "cannot read"),
        ("enable-lora: true", "not built yet"),
        ("port: x", "--port (--config) 'x' is refused"),
        ("prot:", "did you mean 'port'?"),
        ("enforce-eager:", "is empty; give a value, or leave it out"),
        ("api-key:", "is empty; give a value, or leave it out"),
    ],
)
def test_a_wrong_config_file_is_one_line(tmp_path: Path, text: str, part: str) -> None:
    file = tmp_path / "options.yaml"
    file.write_text(text)
    assert part in refusal("--config", str(file))


def test_a_key_is_in_no_message() -> None:
    assert "secret" not in refusal("--api-key", '["secret", 3]')
    assert "secret" not in repr(parse("--api-key", "secret"))
    for words in ([""], ["secret", ""], ['["secret", ""]']):
        shown = refusal("--api-key", *words)
        assert "a key is empty" in shown and "secret" not in shown


def test_settings_are_frozen_and_checked_by_name_in_programs() -> None:
    settings = make_settings({"model": "M", "max_model_len": "4k"})
    assert settings.max_model_len == 4000
    with pytest.raises(ValueError, match="frozen"):
        settings.port = 3
    with pytest.raises(ConfigError, match="did you mean 'max_model_len'"):
        make_settings({"max_model_lenght": 3})


def test_what_a_program_gives_as_none_is_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JACKFIELD_PORT", "9")
    options = ("seed", "port", "hf_overrides", "compilation_config", "dtype", "quantization")
    settings = make_settings({"model": "M", **dict.fromkeys(options)})
    assert (settings.seed, settings.port, settings.hf_overrides) == (0, 9, {})
    with pytest.raises(ConfigError, match="did you mean 'seed'"):
        make_settings({"sed": None})


def test_help_names_every_option_with_its_variable_and_default(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as ended:
        parse_arguments(["--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    for group in GROUPS:
        assert f"\n{group.__doc__}:\n" in text
    for option in Settings.model_fields:
        assert flag_of(option) in text and variable_of(option) in text
    assert "JACKFIELD_PORT = 8000" in text


def test_every_option_has_one_line_of_help() -> None:
    for field in Settings.model_fields.values():
        assert field.description is not None and "\n" not in field.description


def test_no_option_is_taken_and_ignored() -> None:
    """Each is read by the plan, the server, the command line or the settings themselves."""
    kernel = Path(jackfield.__file__).parent
    code = "".join(file.read_text(encoding="utf-8") for file in kernel.rglob("*.py"))
    read = set(re.findall(r"\b(?:settings|self)\.([a-z_]+)", code)) | set(PLUGIN_OPTIONS.values())
    of_the_server = {option.name for option in fields(ServerOptions)}
    assert of_the_server <= set(re.findall(r"\boptions\.([a-z_]+)", code))
    assert set(Settings.model_fields) - read - of_the_server <= {"config"}


def test_variables_that_kubernetes_makes_of_a_service_called_so_are_no_options(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in {
        "SERVICE_HOST": "10.0.0.1",
        "SERVICE_PORT": "80",
        "SERVICE_PORT_HTTP": "80",
        "PORT": "tcp://10.0.0.1:80",
        "PORT_80_TCP": "tcp://10.0.0.1:80",
        "PORT_80_TCP_ADDR": "10.0.0.1",
        "PORT_80_TCP_PORT": "80",
        "PORT_80_TCP_PROTO": "tcp",
    }.items():
        monkeypatch.setenv(f"JACKFIELD_{name}", value)
        monkeypatch.setenv(f"VLLM_{name}", value)
    settings, notes = parse_arguments(["M"])
    assert settings.port == 8000 and notes == []
    monkeypatch.setenv("JACKFIELD_PORT", "9")
    assert make_settings({"model": "M"}).port == 9
