"""Multi-modal checkpoints: their text model gives the logprobs of transformers' whole one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.checkpoints import write_tokenizer
from tests.plugins.quantization.checkpoints import LINEARS
from tests.plugins.quantization.test_methods import ALL, expected, logprobs, worker_plan
from torch import nn
from transformers import AutoConfig, AutoModelForImageTextToText

from jackfield.errors import ConfigError

TEXT: Mapping[str, object] = {
    "vocab_size": 512,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 512,
    "initializer_range": 0.15,
}
VISION = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
    "depth": 2,
    "num_heads": 2,
    "out_hidden_size": 64,
}
BY_PLACE = {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [2, 3, 3]}


def make(directory: Path, model_type: str, text: Mapping[str, object], **own: object) -> nn.Module:
    """The checkpoint of a model with random weights, and the model."""
    config = AutoConfig.for_model(
        model_type, text_config=dict(text), vision_config=dict(VISION), **own
    )
    torch.manual_seed(0)
    model = AutoModelForImageTextToText.from_config(
        config, dtype=torch.float32, attn_implementation="eager"
    )
    model.save_pretrained(directory)
    write_tokenizer(directory)
    whole: nn.Module = model.eval()
    return whole


@pytest.mark.parametrize(
    ("model_type", "own"),
    [
        ("gemma3", {"model_type": "gemma3_text", "sliding_window": 24}),
        ("gemma4", {"model_type": "gemma4_text", "sliding_window": 24}),
        ("llava", {"model_type": "llama"}),
        ("mistral3", {"model_type": "mistral"}),
        ("mistral3", {"model_type": "mistral", "tie_word_embeddings": True}),
        ("mistral3", {"model_type": "ministral3"}),
        ("qwen2_vl", {"rope_parameters": BY_PLACE}),
        ("qwen2_5_vl", {"rope_parameters": BY_PLACE}),
        ("qwen3_vl", {"rope_parameters": BY_PLACE}),
    ],
)
def test_texts_have_the_logprobs_of_the_whole_model(
    model_type: str, own: dict[str, object], tmp_path: Path
) -> None:
    model = make(tmp_path, model_type, {**TEXT, **own})
    torch.testing.assert_close(logprobs(worker_plan(tmp_path)), expected(model), atol=1e-4, rtol=0)


@pytest.mark.parametrize("outside", [False, True])
@pytest.mark.parametrize("inside", [False, True])
def test_the_head_is_tied_where_the_whole_model_ties_it(
    inside: bool, outside: bool, tmp_path: Path
) -> None:
    text = {**TEXT, "rope_parameters": BY_PLACE, "tie_word_embeddings": inside}
    model = make(tmp_path, "qwen3_vl", text, tie_word_embeddings=outside)
    torch.testing.assert_close(logprobs(worker_plan(tmp_path)), expected(model), atol=1e-4, rtol=0)


@pytest.mark.parametrize("head", ["lm_head", "language_model.lm_head", "re:.*lm_head"])
@pytest.mark.parametrize(("model_type", "own"), [("gemma3", "gemma3_text"), ("llava", "llama")])
def test_a_quantized_text_model_is_served(
    model_type: str, own: str, head: str, tmp_path: Path
) -> None:
    config, pack = ALL["floats-channel"]
    make(tmp_path / "plain", model_type, {**TEXT, "hidden_size": 128, "model_type": own})
    directory = shutil.copytree(tmp_path / "plain", tmp_path / "quantized")
    numbers = load_file(directory / "model.safetensors")
    stored = dict(numbers)
    for name in numbers:
        if name.startswith("language_model.model.layers") and name.endswith(LINEARS):
            packed, numbers[name] = pack(stored.pop(name))
            prefix = name.removesuffix("weight")
            stored |= {prefix + part: value for part, value in packed.items()}
    save_file(stored, directory / "model.safetensors", metadata={"format": "pt"})
    save_file(numbers, tmp_path / "plain" / "model.safetensors", metadata={"format": "pt"})
    described = json.loads((directory / "config.json").read_text())
    quantization = config | {"ignore": ["re:vision_tower.*", "re:multi_modal_projector.*", head]}
    described["quantization_config"] = quantization
    (directory / "config.json").write_text(json.dumps(described))
    model = AutoModelForImageTextToText.from_pretrained(
        tmp_path / "plain", dtype=torch.float32, attn_implementation="eager"
    )
    found = logprobs(worker_plan(directory))
    torch.testing.assert_close(found, expected(model.eval()), atol=1e-4, rtol=0)


def test_a_configuration_of_older_kind_has_the_text_model_in_itself(tmp_path: Path) -> None:
    model = make(tmp_path, "qwen2_5_vl", {**TEXT, "rope_parameters": BY_PLACE})
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    text = config.pop("text_config")
    rope = text.pop("rope_parameters")
    scaling = {"type": "mrope", "mrope_section": rope["mrope_section"]}
    flat = text | config | {"rope_theta": rope["rope_theta"], "rope_scaling": scaling}
    path.write_text(json.dumps(flat))
    torch.testing.assert_close(logprobs(worker_plan(tmp_path)), expected(model), atol=1e-4, rtol=0)


def test_what_gemma_leaves_out_is_known(tmp_path: Path) -> None:
    said = {"model_type": "gemma3_text", "hidden_size": 64, "intermediate_size": 96}
    layers = {"num_hidden_layers": 2, "sliding_window": 24}
    model = make(tmp_path, "gemma3", said | layers)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"text_config": said | layers}))
    plan = worker_plan(tmp_path, max_model_len=None)
    assert plan.max_model_len == 131_072
    torch.testing.assert_close(logprobs(worker_plan(tmp_path)), expected(model), atol=1e-4, rtol=0)


def test_a_wrapper_of_another_kind_is_refused_in_one_line(tmp_path: Path) -> None:
    make(tmp_path, "gemma3", {**TEXT, "model_type": "gemma3_text"})
    plan = worker_plan(tmp_path, model_impl="transformers")
    with pytest.raises(ConfigError, match="holds others, as that of a multi-modal model does"):
        logprobs(plan)
