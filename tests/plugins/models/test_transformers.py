"""Models that only transformers has, over our paged cache; and what is refused."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from tests.checkpoints import make, random_ids, reference
from tests.paged_steps import PagedModel, context, load

from jackfield.checkpoint import read_config
from jackfield.contracts.model import TensorParallelGroup
from jackfield.errors import CheckpointError, ConfigError
from jackfield_load_formats.auto import AutoLoadFormat
from jackfield_load_formats.dummy import DummyLoadFormat
from jackfield_models.own_layers import OwnLinear
from jackfield_models.transformers import TransformersForCausalLM

SERVED = (
    "Gemma2ForCausalLM",  # windows, soft caps, a scale of its own, a final soft cap
    "Gemma3ForCausalLM",  # RoPE by layer type
    "Phi3ForCausalLM",  # fused projections in the checkpoint
    "GPTNeoXForCausalLM",  # partial rotation, other module names
    "GPT2LMHeadModel",  # learned positions
    "OPTForCausalLM",
    "Olmo2ForCausalLM",
    "GraniteForCausalLM",  # scaled logits, residuals and attention
    "CohereForCausalLM",
    "MixtralForCausalLM",  # experts, which transformers fuses on loading
    "DeepseekV3ForCausalLM",  # latent attention, its values smaller than its keys
    "GptOssForCausalLM",  # sinks
    "Qwen3MoeForCausalLM",
    "Qwen3ForCausalLM",
)


@pytest.mark.parametrize("architecture", SERVED)
def test_logits_equal_transformers_own_attention_and_cache(architecture: str) -> None:
    directory = make(architecture)
    prompts = [random_ids(40, 1), random_ids(29, 2), random_ids(35, 3)]
    model = reference(directory)
    with torch.inference_mode():
        expected = [model(torch.tensor([prompt])).logits[0] for prompt in prompts]
    paged = PagedModel(load(TransformersForCausalLM, directory, AutoLoadFormat()))
    # Two prompts side by side, one cut in pieces; then one more token by token.
    first = paged.step({0: prompts[0], 1: prompts[1][:12]})
    torch.testing.assert_close(first[0], expected[0], atol=1e-4, rtol=1e-4)
    pieces = [first[1], paged.step({1: prompts[1][12:]})[1]]
    torch.testing.assert_close(torch.cat(pieces), expected[1], atol=1e-4, rtol=1e-4)
    single = [paged.step({2: [token]})[2] for token in prompts[2]]
    torch.testing.assert_close(torch.cat(single), expected[2], atol=1e-4, rtol=1e-4)


def test_linear_layers_are_ours_on_the_cpu() -> None:
    model = load(TransformersForCausalLM, make("Phi3ForCausalLM"), AutoLoadFormat())
    assert isinstance(model, torch.nn.Module)
    found = [name for name, layer in model.named_modules() if isinstance(layer, OwnLinear)]
    layers = ("qkv_proj", "o_proj", "gate_up_proj", "down_proj")
    assert len(found) == 3 * len(layers) + len(("lm_head",))


@pytest.mark.parametrize("stored", ["float32", "bfloat16"])
def test_weights_are_served_in_the_dtype_that_is_asked_for(stored: str) -> None:
    directory = make("Gemma2ForCausalLM", stored)
    model = load(TransformersForCausalLM, directory, AutoLoadFormat(), dtype=torch.bfloat16)
    assert isinstance(model, torch.nn.Module)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}


def test_another_architecture_of_a_known_model_type_is_refused() -> None:
    directory = make("Gemma2ForCausalLM")
    with pytest.raises(CheckpointError, match="NoSuchModel is unknown"):
        load(
            TransformersForCausalLM,
            directory,
            AutoLoadFormat(),
            overrides={"architectures": ["NoSuchModel"]},
        )


def test_the_specs_are_those_of_the_model() -> None:
    config = read_config(make("Gemma2ForCausalLM"))
    model = TransformersForCausalLM(config, context())
    assert [spec.layer for spec in model.attention_specs] == [0, 1, 2]
    assert [spec.sliding_window for spec in model.attention_specs] == [24, None, 24]
    spec = model.attention_specs[0]
    assert (spec.num_heads, spec.num_kv_heads, spec.head_dim) == (4, 2, 16)
    assert spec.scale == pytest.approx(256**-0.5) and spec.soft_cap == 50.0


@pytest.mark.parametrize("architecture", ["Gemma2ForCausalLM", "MixtralForCausalLM"])
def test_dummy_weights_fill_every_parameter(architecture: str, tmp_path: Path) -> None:
    config = make(architecture) / "config.json"
    (tmp_path / "config.json").write_text(config.read_text())
    model = load(TransformersForCausalLM, tmp_path, DummyLoadFormat())
    assert PagedModel(model).step({0: [5, 6, 7]})[0].isfinite().all()


@pytest.mark.parametrize(
    ("architecture", "reason"),
    [
        ("MambaForCausalLM", "attention interface"),
        ("BloomForCausalLM", "attention interface"),
        ("StableLmForCausalLM", "attention interface"),
    ],
)
def test_what_cannot_be_computed_is_refused_in_one_line(architecture: str, reason: str) -> None:
    config = read_config(make(architecture))
    with pytest.raises(ConfigError, match=reason) as caught:
        TransformersForCausalLM(config, context())
    assert architecture in str(caught.value) and "\n" not in str(caught.value)


def test_long_sequences_have_the_factors_of_long_ones() -> None:
    rope = {
        "rope_type": "longrope",
        "short_factor": [1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7],
        "long_factor": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0],
        "rope_theta": 10_000.0,
        "original_max_position_embeddings": 16,
    }
    directory = make("Phi3ForCausalLM", rope_parameters=rope, original_max_position_embeddings=16)
    prompt = random_ids(40)
    with torch.inference_mode():
        expected = reference(directory)(torch.tensor([prompt])).logits[0]
    paged = PagedModel(load(TransformersForCausalLM, directory, AutoLoadFormat()))
    # The first piece is short; its keys are what those of a long sequence are.
    pieces = [paged.step({0: part})[0] for part in (prompt[:10], prompt[10:])]
    torch.testing.assert_close(torch.cat(pieces), expected, atol=1e-4, rtol=1e-4)


def test_an_expert_that_is_missing_is_said_in_one_line(tmp_path: Path) -> None:
    directory = shutil.copytree(make("MixtralForCausalLM"), tmp_path / "model")
    tensors = load_file(directory / "model.safetensors")
    del tensors["model.layers.0.block_sparse_moe.experts.2.w1.weight"]
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="MixtralForCausalLM together: some are missing"):
        load(TransformersForCausalLM, directory, AutoLoadFormat())


def test_a_window_that_only_masks_know_of_is_refused() -> None:
    config = read_config(make("PhimoeForCausalLM"))
    with pytest.raises(ConfigError, match="not to a window of 24; give --max-model-len 24"):
        TransformersForCausalLM(config, context())
    TransformersForCausalLM(config, context(max_model_len=24))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"model_type": "of-the-future"}, "of-the-future"),
        ({"rope_parameters": {"rope_type": "dynamic", "factor": 2.0}}, "--max-model-len 100"),
        (
            {"layer_types": ["full_attention", "chunked_attention", "full_attention"]},
            "chunked_attention",
        ),
    ],
)
def test_a_configuration_that_needs_the_whole_batch_or_another_mask_is_refused(
    changes: Mapping[str, object], reason: str
) -> None:
    config = {
        **read_config(make("Qwen3ForCausalLM")),
        "max_position_embeddings": 100,
        **changes,
    }
    with pytest.raises(ConfigError, match=reason) as caught:
        TransformersForCausalLM(config, context(max_model_len=200))
    assert "\n" not in str(caught.value)


def test_tokens_that_reach_another_sequence_outside_of_attention_are_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from transformers.models.olmo2.modeling_olmo2 import Olmo2MLP

    plain = Olmo2MLP.forward
    # As a convolution over the tokens would.
    monkeypatch.setattr(
        Olmo2MLP, "forward", lambda self, x: plain(self, x) + x.roll(1, dims=1) * 0.1
    )
    with pytest.raises(ConfigError, match="outside of its attention"):
        load(TransformersForCausalLM, make("Olmo2ForCausalLM"), AutoLoadFormat())


def test_missing_and_unknown_tensors_are_named() -> None:
    directory = make("GraniteForCausalLM")
    config = read_config(directory)
    with pytest.raises(CheckpointError, match=r"lacks .*layers\.3\."):
        load(
            TransformersForCausalLM,
            directory,
            AutoLoadFormat(),
            overrides={"num_hidden_layers": 4, "layer_types": None},
        )
    model = TransformersForCausalLM(config, context())
    weights = {name: torch.ones(shape) for name, shape in model.weight_shapes().items()}
    with pytest.raises(CheckpointError, match=r"no place in the model for stranger\.weight"):
        model.load_weights([*weights.items(), ("stranger.weight", torch.ones(1))])


def test_a_group_of_several_workers_is_refused() -> None:
    config = read_config(make("Qwen3ForCausalLM"))
    with pytest.raises(ConfigError, match="one device"):
        TransformersForCausalLM(config, context(group=TensorParallelGroup(0, 2)))


def test_code_of_its_own_is_read_at_its_own_revision(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    class Asked(Exception):
        pass

    def note(*arguments: object, **options: object) -> None:
        asked.append(options["code_revision"])
        raise Asked

    code = {"AutoConfig": "o/r--c.C", "AutoModelForCausalLM": "o/r--m.M"}
    config = {**read_config(make("Qwen3ForCausalLM")), "auto_map": code}
    with monkeypatch.context() as patch:
        patch.setattr(transformers.AutoConfig, "from_pretrained", note)
        with pytest.raises(Asked):
            TransformersForCausalLM(
                config, replace(context(), trust_remote_code=True, code_revision="abc")
            )
    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_config", note)
    with pytest.raises(Asked):
        TransformersForCausalLM(config, replace(context(), code_revision="def"))
    assert asked == ["abc", "def"]
