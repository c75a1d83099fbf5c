"""Options whose effect only a running engine shows: the tokens are the same, the work is not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.checkpoints import VOCAB_SIZE, make, reference

from jackfield import LLM, SamplingParams
from jackfield.checkpoint import read_config
from jackfield.errors import ConfigError

PROMPTS = [[start, 7, 9, 11, start + 1, 30] for start in range(3, 9)]
NUM_TOKENS = 40


def greedy(directory: Path, prompts: list[list[int]], num_tokens: int) -> list[list[int]]:
    """What transformers says."""
    model = reference(directory)
    outputs = []
    with torch.inference_mode():
        for prompt in prompts:
            ids = torch.tensor([prompt])
            made = model.generate(
                ids, do_sample=False, max_new_tokens=num_tokens, min_new_tokens=num_tokens
            )
            outputs.append(made[0, len(prompt) :].tolist())
    return outputs


def generated(llm: LLM, num_tokens: int) -> list[list[int]]:
    params = SamplingParams(temperature=0, max_tokens=num_tokens, min_tokens=num_tokens)
    return [list(made.outputs[0].token_ids) for made in llm.generate(PROMPTS, params)]


@pytest.mark.parametrize("mode", ["recompute", "swap"])
def test_preempted_requests_go_on_as_if_nothing_had_been(mode: str) -> None:
    directory = make("Qwen3ForCausalLM")
    options: dict[str, object] = {"swap_space": 0.01} if mode == "swap" else {}
    with LLM(
        str(directory),
        device="cpu",
        max_model_len=64,
        block_size=8,
        num_gpu_blocks_override=14,
        preemption_mode=mode,
        stream_interval=3,
        enable_prefix_caching=False,
        scheduler_delay_factor=0.1,
        **options,
    ) as llm:
        outputs = generated(llm, NUM_TOKENS)
        stats = llm._llm.stats
    assert outputs == greedy(directory, PROMPTS, NUM_TOKENS)
    assert stats is not None and stats.num_preemptions > 0


def test_a_checkpoint_in_mistrals_own_form_is_served(tmp_path: Path) -> None:
    """params.json and consolidated.safetensors alone, as mistral-inference reads them."""
    directory = make("MistralForCausalLM")
    config = read_config(directory)
    ours = load_file(directory / "model.safetensors")
    names = {
        "model.embed_tokens.weight": "tok_embeddings.weight",
        "model.norm.weight": "norm.weight",
        "lm_head.weight": "output.weight",
    }
    layer_names = {
        "input_layernorm": "attention_norm",
        "post_attention_layernorm": "ffn_norm",
        **{f"self_attn.{each}_proj": f"attention.w{each}" for each in "qkvo"},
        "mlp.gate_proj": "feed_forward.w1",
        "mlp.down_proj": "feed_forward.w2",
        "mlp.up_proj": "feed_forward.w3",
    }
    head_dim = config["head_dim"]
    assert isinstance(head_dim, int)
    theirs = {}
    for name, weight in ours.items():
        _, _, number, rest = (*name.split(".", 3), "", "")[:4]
        new = names.get(name) or f"layers.{number}.{layer_names[rest[: -len('.weight')]]}.weight"
        if new.endswith(("wq.weight", "wk.weight")):
            halves = weight.view(-1, 2, head_dim // 2, weight.shape[1])
            weight = halves.transpose(1, 2).reshape(weight.shape)
        theirs[new] = weight.contiguous()
    save_file(theirs, tmp_path / "consolidated.safetensors")
    params = {
        "dim": config["hidden_size"],
        "n_layers": config["num_hidden_layers"],
        "head_dim": head_dim,
        "hidden_dim": config["intermediate_size"],
        "n_heads": config["num_attention_heads"],
        "n_kv_heads": config["num_key_value_heads"],
        "norm_eps": config["rms_norm_eps"],
        "vocab_size": VOCAB_SIZE,
        "max_position_embeddings": 512,
        "dtype": "float32",
    }
    (tmp_path / "params.json").write_text(json.dumps(params))
    with LLM(str(tmp_path), device="cpu", skip_tokenizer_init=True, load_format="mistral") as llm:
        outputs = generated(llm, 12)
    assert outputs == greedy(directory, PROMPTS, 12)


def test_a_program_is_told_of_flags_without_effect(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ConfigError, match="there is no directory /no/such"):
        LLM.from_arguments(["/no/such", "--use-v2-block-manager"])
    assert "--use-v2-block-manager has no effect" in caplog.text
