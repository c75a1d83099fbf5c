"""Configurations of both dialects describe the same model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, ClassVar

import pytest
from tests.checkpoints import make, reference

from jackfield.config.settings import make_settings
from jackfield.contracts.config_format import ConfigFormat
from jackfield.errors import CheckpointError
from jackfield.planning import make_plan
from jackfield.registry import Registry
from jackfield.testing import ConfigFormatContract
from jackfield_config_formats.auto import AutoConfigFormat
from jackfield_config_formats.hf import HfConfigFormat
from jackfield_config_formats.mistral import MistralConfigFormat

# Mistral 7B v0.3, as published.
PARAMS: dict[str, Any] = {
    "dim": 4096,
    "n_layers": 32,
    "head_dim": 128,
    "hidden_dim": 14336,
    "n_heads": 32,
    "n_kv_heads": 8,
    "norm_eps": 1e-05,
    "vocab_size": 32768,
    "rope_theta": 1000000.0,
}


def write_params(directory: Path, **changes: Any) -> None:
    (directory / "params.json").write_text(json.dumps({**PARAMS, **changes}))


def read_params(directory: Path, **changes: Any) -> dict[str, object]:
    write_params(directory, **changes)
    return MistralConfigFormat().read(directory)


class TestHf(ConfigFormatContract):
    config_format: ClassVar[type[ConfigFormat]] = HfConfigFormat

    def write(self, directory: Path) -> None:
        shutil.copy(make("Qwen3ForCausalLM") / "config.json", directory)


class TestAuto(TestHf):
    config_format: ClassVar[type[ConfigFormat]] = AutoConfigFormat


class TestMistral(ConfigFormatContract):
    config_format = MistralConfigFormat

    def write(self, directory: Path) -> None:
        write_params(directory)


def test_a_published_file_is_what_hugging_face_says_of_the_same_model(tmp_path: Path) -> None:
    # config.json of mistralai/Mistral-7B-v0.3, without what params.json does not say.
    assert read_params(tmp_path, max_position_embeddings=32768) == {
        "architectures": ["MistralForCausalLM"],
        "head_dim": 128,
        "hidden_act": "silu",
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "max_position_embeddings": 32768,
        "model_type": "mistral",
        "num_attention_heads": 32,
        "num_hidden_layers": 32,
        "num_key_value_heads": 8,
        "rms_norm_eps": 1e-05,
        "rope_theta": 1000000.0,
        "sliding_window": None,
        "tie_word_embeddings": False,
        "vocab_size": 32768,
    }


def test_windows_experts_and_scaling_have_their_names(tmp_path: Path) -> None:
    assert read_params(tmp_path, sliding_window=4096)["sliding_window"] == 4096
    assert read_params(tmp_path, sliding_window=[1024, 1024])["sliding_window"] == 1024
    mixture = read_params(tmp_path, moe={"num_experts": 8, "num_experts_per_tok": 2})
    assert mixture["architectures"] == ["MixtralForCausalLM"]
    assert (mixture["num_local_experts"], mixture["num_experts_per_tok"]) == (8, 2)
    yarn = {"factor": 8, "original_max_position_embeddings": 1024, "beta": 32, "alpha": 1}
    assert read_params(tmp_path, yarn={**yarn, "apply_scale": False})["rope_scaling"] == {
        "rope_type": "yarn",
        "factor": 8,
        "original_max_position_embeddings": 1024,
        "beta_fast": 32,
        "beta_slow": 1,
        "attention_factor": 1.0,
    }


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"multimodal": {"whisper_model_args": {"dim": 1}}}, "'multimodal' (more than text)"),
        ({"quantization": {"qformat_weight": "fp8_e4m3"}}, "quantized weights"),
        ({"model_type": "mamba"}, "type 'mamba'"),
        ({"sliding_window": [None, 4096]}, "with and without"),
        ({"sliding_window": [1, 4096]}, "several sizes"),
        ({"moe": {"num_shared_experts": 1}}, "shared experts"),
        ({"dim": None}, "lacks dim"),
    ],
)
def test_another_model_is_refused_in_one_line(
    tmp_path: Path, changes: dict[str, Any], part: str
) -> None:
    values = {name: value for name, value in {**PARAMS, **changes}.items() if value is not None}
    (tmp_path / "params.json").write_text(json.dumps(values))
    with pytest.raises(CheckpointError) as error:
        MistralConfigFormat().read(tmp_path)
    assert part in str(error.value) and "\n" not in str(error.value)


def test_of_a_model_that_sees_images_the_text_model_is_described(tmp_path: Path) -> None:
    assert read_params(tmp_path, vision_encoder={"hidden_size": 1024}) == read_params(tmp_path)


def test_auto_takes_config_json_where_there_are_both(tmp_path: Path) -> None:
    write_params(tmp_path)
    assert AutoConfigFormat().read(tmp_path)["hidden_size"] == 4096
    shutil.copy(make("MistralForCausalLM") / "config.json", tmp_path)
    assert AutoConfigFormat().read(tmp_path)["hidden_size"] == 64


def test_the_plan_takes_the_format_that_is_named_and_lays_overrides_over_it(
    tmp_path: Path,
) -> None:
    shutil.copytree(make("MistralForCausalLM"), tmp_path, dirs_exist_ok=True)
    config = reference(tmp_path).config
    write_params(tmp_path, vocab_size=config.vocab_size)
    settings = make_settings(
        {
            "model": str(tmp_path),
            "device": "cpu",
            "config_format": "mistral",
            "hf_overrides": {"max_position_embeddings": 300},
        }
    )
    plan = make_plan(settings, Registry())
    assert plan.config["hidden_size"] == 4096
    assert plan.engine.worker.max_model_len == 300
    (chosen,) = [each for each in plan.choices if each.kind == "config_formats"]
    assert (chosen.name, chosen.reason) == ("mistral", "--config-format")
