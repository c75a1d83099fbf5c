"""Tables against transformers' own RoPE modules."""

from __future__ import annotations

import pytest
import torch
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from jackfield.compute.layers.rotary import make_rope
from jackfield.errors import CheckpointError

CPU = torch.device("cpu")
NUM_POSITIONS = 131_072
LLAMA3: dict[str, object] = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
KINDS: dict[str, dict[str, object]] = {
    "default": {"rope_type": "default"},
    "linear": {"rope_type": "linear", "factor": 3.0},
    "llama3": LLAMA3,
    "llama3-of-3.2": LLAMA3 | {"factor": 32.0},
    "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768},
    "yarn-betas": {
        "rope_type": "yarn",
        "factor": 16.0,
        "original_max_position_embeddings": 4096,
        "beta_fast": 24.0,
        "beta_slow": 2.0,
        "truncate": False,
    },
    "yarn-mscale": {
        "rope_type": "yarn",
        "factor": 40.0,
        "original_max_position_embeddings": 4096,
        "mscale": 0.707,
        "mscale_all_dim": 1.0,
    },
    "yarn-attention-factor": {
        "rope_type": "yarn",
        "factor": 4.0,
        "original_max_position_embeddings": 4096,
        "attention_factor": 0.75,
    },
}
FORMS = ("rope_parameters", "rope_scaling")


def config(form: str, kind: dict[str, object], theta: float) -> dict[str, object]:
    common: dict[str, object] = {
        "hidden_size": 256,
        "num_attention_heads": 4,
        "max_position_embeddings": 131_072,
    }
    if form == "rope_parameters":
        return common | {form: kind | {"rope_theta": theta}}
    old = {"type" if key == "rope_type" else key: value for key, value in kind.items()}
    return common | {form: old, "rope_theta": theta}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", KINDS)
def test_tables_equal_transformers_up_to_long_contexts(kind: str, form: str) -> None:
    values = config(form, KINDS[kind], 500_000.0)
    check_table(values, values)


@pytest.mark.filterwarnings("ignore")
def test_attn_factor_multiplies_the_factor_of_yarn() -> None:
    """DeepSeek-R1-0528-Qwen3-8B's is 1 / (0.1 ln 4 + 1): nothing is left of the factor."""
    own = KINDS["yarn"] | {"attn_factor": 0.8782488562869419}
    same = KINDS["yarn"] | {"attention_factor": 1.0}
    check_table(*(config("rope_scaling", kind, 1_000_000.0) for kind in (own, same)))


def check_table(values: dict[str, object], of_theirs: dict[str, object]) -> None:
    rope = make_rope(values, head_dim=64, max_positions=NUM_POSITIONS, device=CPU)
    positions = torch.cat([torch.arange(300), torch.arange(300, NUM_POSITIONS, 997)])
    theirs = LlamaRotaryEmbedding(LlamaConfig(**of_theirs))
    cos, sin = theirs(torch.zeros(1), positions[None])
    expected = torch.cat([cos[0, :, :32], sin[0, :, :32]], dim=-1)
    torch.testing.assert_close(rope.cos_sin[positions], expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("position", [0, 100, 4095, 4096, 5000, 9001, 20_000])
def test_dynamic_scaling_gives_a_position_the_frequencies_of_a_sequence_that_ends_there(
    position: int,
) -> None:
    values = config("rope_scaling", {"rope_type": "dynamic", "factor": 4.0}, 10_000.0)
    values["max_position_embeddings"] = 4096
    rope = make_rope(values, head_dim=64, max_positions=20_001, device=CPU)
    inverse, _ = ROPE_INIT_FUNCTIONS["dynamic"](LlamaConfig(**values), CPU, seq_len=position + 1)
    angles = position * inverse
    expected = torch.cat([angles.cos(), angles.sin()])
    # The angle itself is exact to one unit in the last place of its float32.
    tolerance = max(1e-6, float(position) * 2**-22)
    torch.testing.assert_close(rope.cos_sin[position], expected, atol=tolerance, rtol=0)


def test_partial_rotation_covers_the_first_dimensions_only() -> None:
    parameters = {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}
    inside = make_rope({"rope_parameters": parameters}, head_dim=64, max_positions=9, device=CPU)
    outside = make_rope(
        {"rope_theta": 1e4, "partial_rotary_factor": 0.5}, head_dim=64, max_positions=9, device=CPU
    )
    exponents = torch.arange(0, 32, 2, dtype=torch.float64) / 32
    angles = torch.arange(9, dtype=torch.float64)[:, None] / 1e4**exponents
    expected = torch.cat([angles.cos(), angles.sin()], dim=-1).float()
    for rope in (inside, outside):
        torch.testing.assert_close(rope.cos_sin, expected, atol=1e-6, rtol=0)


def test_an_override_in_the_old_form_keeps_the_base_of_the_new_one() -> None:
    new = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}
    linear = {"rope_scaling": {"rope_type": "linear", "factor": 1.0}}
    plain = make_rope(new, head_dim=16, max_positions=50, device=CPU)
    both = make_rope(new | linear, head_dim=16, max_positions=50, device=CPU)
    assert torch.equal(plain.cos_sin, both.cos_sin)


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"rope_scaling": {"rope_type": "longrope"}}, "longrope"),
        ({"rope_scaling": {"rope_type": "linear"}}, "factor"),
        ({"rope_parameters": {"full_attention": {"rope_theta": 1e4}}}, "layer type"),
    ],
)
def test_what_is_not_known_is_refused_by_name(values: dict[str, object], named: str) -> None:
    with pytest.raises(CheckpointError, match=named):
        make_rope(values, head_dim=16, max_positions=8, device=CPU)
