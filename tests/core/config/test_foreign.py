"""vLLM's flags that are no options here: none is taken and ignored without a word."""

from __future__ import annotations

from pathlib import Path

import pytest

from jackfield.config.command_line import parse_arguments
from jackfield.config.foreign import FOREIGN_FLAGS
from jackfield.config.foreign_flag import Standing
from jackfield.config.settings import Settings, flag_of, make_settings, require_key_if_meant
from jackfield.errors import ConfigError

_MEDIA_LIMIT = "--limit-mm-per-prompt"


def test_no_option_is_a_foreign_flag() -> None:
    assert not set(map(flag_of, Settings.model_fields)) & set(FOREIGN_FLAGS)


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
        ["M", "--tp", "1", "--dp-size=1", "--nnodes", "1", "--node-rank", "0", "-dcp", "1"],
        ["M", "--limit-mm-per-prompt", '{"image": 0, "video": 0}'],
        ["M", "--limit-mm-per-prompt.image=0", "--limit_mm_per_prompt.video", "0"],
        ["M", "--limit-mm-per-prompt", "image=0,video=0"],
        ["M", "--mm-processor-kwargs", "{}", "--logprobs-mode", "raw_logprobs"],
        ["M", "--no-enable-flashinfer-autotune"],
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
        (["--max-lora-rank", "8", "--enable-lora"], "--enable-lora"),
        (["--limit-mm-per-prompt.image", "4", "--limit-mm-per-prompt.video=0"], _MEDIA_LIMIT),
        (["--limit-mm-per-prompt", '{"image": {"count": 0}}'], _MEDIA_LIMIT),
        (["--limit-mm-per-prompt", "image=0,video=1"], _MEDIA_LIMIT),
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


def test_dotted_keys_of_a_file_are_as_on_the_command_line(tmp_path: Path) -> None:
    file = tmp_path / "options.yaml"
    file.write_text(
        "limit-mm-per-prompt.image: 0\nlimit-mm-per-prompt.video: 0\n"
        "hf-overrides.a.b: 1\nhf_overrides.a.c: x\n"
    )
    settings, notes = parse_arguments(["M", "--config", str(file)])
    assert settings.hf_overrides == {"a": {"b": 1, "c": "x"}} and notes == []
    file.write_text("limit-mm-per-prompt.image: 0\nlimit-mm-per-prompt.video: 2\n")
    with pytest.raises(ConfigError, match=f"^--limit-mm-per-prompt in {file} is not built yet"):
        parse_arguments(["M", "--config", str(file)])
    file.write_text("hf-overrides: '{}'\nhf-overrides.a: 1\n")
    with pytest.raises(ConfigError, match=r"hf-overrides and hf-overrides\.a are both there"):
        parse_arguments(["M", "--config", str(file)])


def test_a_token_of_the_hub_is_refused_and_not_shown() -> None:
    for words in (["--hf-token"], ["--hf-token", "hf_secret"], ["--hf-token=hf_secret"]):
        with pytest.raises(ConfigError, match="set HF_TOKEN") as error:
            parse_arguments(["M", *words])
        assert "hf_secret" not in str(error.value)


def test_variables_of_vllm_are_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_USE_V1", "1")
    monkeypatch.setenv("VLLM_API_KEY", "secret")
    settings, notes = parse_arguments(["M", "--api-key", "mine"])
    told = "VLLM_API_KEY (JACKFIELD_API_KEY is), VLLM_USE_V1"
    assert notes == [f"variables of vLLM are not read: {told}"]
    require_key_if_meant(settings)
    settings, _ = parse_arguments(["M"])
    with pytest.raises(ConfigError, match="VLLM_API_KEY is not read") as error:
        require_key_if_meant(settings)
    assert "secret" not in str(error.value)
