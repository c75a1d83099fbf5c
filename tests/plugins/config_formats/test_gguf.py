"""The configuration of a GGUF file describes the checkpoint that it was made of."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from tests.checkpoints import make
from tests.gguf_files import Stored, convert, write
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.llama import LlamaConfig

from jackfield.compute.layers.rotary import make_rope
from jackfield.contracts.config_format import ConfigFormat
from jackfield.errors import CheckpointError
from jackfield.testing import ConfigFormatContract
from jackfield_config_formats.auto import AutoConfigFormat
from jackfield_config_formats.gguf import GgufConfigFormat

ARCHITECTURES = ("LlamaForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM", "Qwen3MoeForCausalLM")
SAME = (
    *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "rms_norm_eps"),
    *("num_attention_heads", "num_key_value_heads", "max_position_embeddings", "model_type"),
    *("architectures", "hidden_act", "tie_word_embeddings", "num_experts_per_tok"),
    *("moe_intermediate_size",),
)


def write_file(
    path: Path,
    architecture: str = "LlamaForCausalLM",
    more: Mapping[str, object] | None = None,
) -> Path:
    metadata, tensors, _ = convert(make(architecture), lambda name: "F16", more)
    write(path, metadata, tensors)
    return path


class TestGguf(ConfigFormatContract):
    config_format: ClassVar[type[ConfigFormat]] = GgufConfigFormat

    def write(self, directory: Path) -> None:
        write_file(directory / "model.gguf")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_numbers_are_those_of_config_json(architecture: str, tmp_path: Path) -> None:
    found = AutoConfigFormat().read(write_file(tmp_path / "model.gguf", architecture))
    config = json.loads((make(architecture) / "config.json").read_text())
    assert {key: found.get(key) for key in SAME} == {key: config.get(key) for key in SAME}
    assert found["rope_theta"] == 10_000.0 and found["torch_dtype"] == "float16"
    # The end of a turn by its id, and another one by its name.
    assert found["eos_token_id"] == [2, 0]


def test_factors_of_rotary_frequencies_are_a_tensor(tmp_path: Path) -> None:
    scaling = {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
        "rope_theta": 10_000.0,
    }
    config = LlamaConfig(
        hidden_size=64, num_attention_heads=4, max_position_embeddings=512, rope_parameters=scaling
    )
    stretched, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
    plain = 1 / 10_000.0 ** (torch.arange(0, 16, 2) / 16)
    factors = (plain / stretched).float()
    metadata, tensors, _ = convert(make("LlamaForCausalLM"), lambda name: "F32")
    tensors["rope_freqs.weight"] = Stored("F32", (8,), factors.numpy())
    write(tmp_path / "model.gguf", metadata, tensors)
    found = GgufConfigFormat().read(tmp_path)
    rope = make_rope(found, head_dim=16, max_positions=64, device=torch.device("cpu"))
    angles = torch.arange(64)[:, None] * stretched
    torch.testing.assert_close(rope.cos_sin[:, :8], angles.cos(), atol=2e-5, rtol=0)
    torch.testing.assert_close(rope.cos_sin[:, 8:], angles.sin(), atol=2e-5, rtol=0)


def test_yarn_is_read(tmp_path: Path) -> None:
    path = write_file(
        tmp_path / "model.gguf",
        more={
            "llama.rope.scaling.type": "yarn",
            "llama.rope.scaling.factor": 4.0,
            "llama.rope.scaling.original_context_length": 128,
        },
    )
    assert GgufConfigFormat().read(path)["rope_scaling"] == {
        "rope_type": "yarn",
        "factor": 4.0,
        "original_max_position_embeddings": 128,
    }


def test_long_rope_of_phi_is_read(tmp_path: Path) -> None:
    source = make("Phi3ForCausalLM")
    said = {
        "phi3.context_length": 512,
        "phi3.rope.scaling.original_context_length": 128,
        "phi3.rope.scaling.attn_factor": 1.25,
        "phi3.attention.sliding_window": 512,
    }
    metadata, tensors, _ = convert(source, lambda name: "F32", said)
    factors = {"long": [2.0, 4.0], "short": [1.0, 1.5]}
    for name, numbers in factors.items():
        data = np.array(numbers, dtype=np.float32).view(np.uint8)
        tensors[f"rope_factors_{name}.weight"] = Stored("F32", (2,), data)
    write(tmp_path / "model.gguf", metadata, tensors)
    config = GgufConfigFormat().read(tmp_path)
    assert config["rope_scaling"] == {
        "rope_type": "longrope",
        "long_factor": [2.0, 4.0],
        "short_factor": [1.0, 1.5],
        "attention_factor": 1.25,
    }
    assert config["original_max_position_embeddings"] == 128
    assert config["max_position_embeddings"] == 512 and config["sliding_window"] is None


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"general.architecture": "falcon"}, "has the architecture 'falcon'"),
        ({"llama.expert_count": 8}, "a mixture of experts of the architecture llama"),
        ({"llama.attention.value_length": 64}, "values have another size"),
        ({"llama.rope.scaling.type": "longrope"}, "RoPE scaling 'longrope'"),
        ({"llama.logit_scale": 0.25}, r"llama\.logit_scale is not served"),
        ({"llama.attention.head_count": "many"}, "must be a whole number"),
        ({"llama.attention.head_count": 0}, "it has 0 attention heads"),
        ({"llama.block_count": 1 << 30}, r"has no tensor blk\.1073741823\.attn_q\.weight"),
        ({"llama.embedding_length": 1 << 30}, "token_embd.weight has the shape .512, 64., which"),
        ({"llama.attention.key_length": 1 << 20}, "not served|attn_q.weight has the shape"),
    ],
)
def test_what_is_not_served_is_named(more: dict[str, object], said: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=said) as error:
        GgufConfigFormat().read(write_file(tmp_path / "model.gguf", more=more))
    assert "\n" not in str(error.value) and "model.gguf" in str(error.value)


def test_codes_are_computed_with_in_bfloat16(tmp_path: Path) -> None:
    metadata, tensors, _ = convert(make("Qwen3ForCausalLM"), lambda name: "Q8_0")
    write(tmp_path / "model.gguf", metadata, tensors)
    assert GgufConfigFormat().read(tmp_path)["torch_dtype"] == "bfloat16"
