"""Tiny random checkpoints in the layout of Hugging Face, made when a test asks and kept until
the test run ends.

``make("Qwen3ForCausalLM")`` gives a directory with weights, configuration, a byte-level BPE
tokenizer of 400 tokens and a ChatML template. The weights are large enough that greedy output
varies, and no norm or bias is trivial.
"""

from __future__ import annotations

import json
import tempfile
from functools import cache
from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers, processors
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

VOCAB_SIZE = 512
"""Width of the logits; the tokenizer has fewer tokens, as padded vocabularies do."""
TOKENIZER_SIZE = 400
SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)

_DIRECTORY = tempfile.TemporaryDirectory(prefix="jackfield-checkpoints-")
_COMMON: dict[str, object] = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "initializer_range": 0.15,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
_MODEL_TYPES: dict[str, tuple[str, dict[str, object]]] = {
    "Qwen3ForCausalLM": ("qwen3", {"head_dim": 32, "tie_word_embeddings": True}),
    "Qwen2ForCausalLM": ("qwen2", {"tie_word_embeddings": True}),
    "LlamaForCausalLM": ("llama", {}),
    "MistralForCausalLM": ("mistral", {"head_dim": 32, "sliding_window": None}),
    "GemmaForCausalLM": ("gemma", {"head_dim": 16}),
    "Gemma2ForCausalLM": ("gemma2", {"head_dim": 16, "sliding_window": 24}),
    "Gemma3ForCausalLM": ("gemma3_text", {"head_dim": 16, "sliding_window": 24}),
    "Phi3ForCausalLM": ("phi3", {"sliding_window": None}),
    "GPTNeoXForCausalLM": ("gpt_neox", {"rotary_pct": 0.5}),
    "GPT2LMHeadModel": ("gpt2", {"n_embd": 64, "n_layer": 3, "n_head": 4, "n_positions": 512}),
    "OPTForCausalLM": ("opt", {"ffn_dim": 96, "word_embed_proj_dim": 64}),
    "Olmo2ForCausalLM": ("olmo2", {}),
    "StableLmForCausalLM": ("stablelm", {"partial_rotary_factor": 0.5}),
    "GraniteForCausalLM": ("granite", {"logits_scaling": 4.0, "embedding_multiplier": 3.0}),
    "CohereForCausalLM": ("cohere", {"logit_scale": 0.25}),
    "Starcoder2ForCausalLM": ("starcoder2", {"sliding_window": None}),
    "Qwen3MoeForCausalLM": (
        "qwen3_moe",
        {"head_dim": 16, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32},
    ),
    "MixtralForCausalLM": (
        "mixtral",
        {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": None},
    ),
    "DeepseekV3ForCausalLM": (
        "deepseek_v3",
        {
            "num_key_value_heads": 4,
            "q_lora_rank": 24,
            "kv_lora_rank": 24,
            "qk_nope_head_dim": 16,
            "qk_rope_head_dim": 8,
            "v_head_dim": 16,
            "n_routed_experts": 4,
            "num_experts_per_tok": 2,
            "n_group": 1,
            "topk_group": 1,
            "moe_intermediate_size": 32,
            "first_k_dense_replace": 1,
        },
    ),
    "PhimoeForCausalLM": ("phimoe", {"num_local_experts": 4, "sliding_window": 24}),
    "MambaForCausalLM": ("mamba", {"state_size": 8}),
    "BloomForCausalLM": ("bloom", {"n_layer": 2, "n_head": 4}),
    "GptOssForCausalLM": (
        "gpt_oss",
        {"head_dim": 16, "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 24},
    ),
}


def make(
    architecture: str, dtype: str = "float32", *, sharded: bool = False, **config: object
) -> Path:
    """The directory of a checkpoint; the same arguments give the same one. ``config`` replaces
    values of ``config.json``."""
    return _make(architecture, dtype, sharded, json.dumps(config, sort_keys=True))


def reference(directory: Path, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """transformers' own model of a checkpoint, with its plain attention."""
    model = AutoModelForCausalLM.from_pretrained(
        directory, dtype=dtype, attn_implementation="eager"
    )
    return model.eval()


@cache
def _make(architecture: str, dtype: str, sharded: bool, config: str) -> Path:
    directory = Path(tempfile.mkdtemp(prefix=f"{architecture}-", dir=_DIRECTORY.name))
    model_type, own = _MODEL_TYPES[architecture]
    values = {**_COMMON, **own, **json.loads(config)}
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(
        AutoConfig.for_model(model_type, **values), dtype=torch.float32
    )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 1 or name.endswith("_bias"):
                parameter.add_(torch.randn_like(parameter) * 0.1)
    size = "100KB" if sharded else "1GB"
    model.to(getattr(torch, dtype)).save_pretrained(directory, max_shard_size=size)
    write_tokenizer(directory)
    return directory


def write_tokenizer(directory: Path) -> None:
    """tokenizer.json, its configuration, the chat template and generation_config.json."""
    tokenizer = _tokenizer()
    tokenizer.save(str(directory / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "clean_up_tokenization_spaces": False,
        "model_max_length": 512,
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(settings))
    (directory / "chat_template.jinja").write_text(CHAT_TEMPLATE)
    (directory / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, 0]}))


@cache
def _tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = BpeTrainer(
        vocab_size=TOKENIZER_SIZE,
        show_progress=False,
        special_tokens=[AddedToken(text, special=True) for text in SPECIAL_TOKENS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator([__doc__ or "", *_MODEL_TYPES, CHAT_TEMPLATE] * 4, trainer)
    return tokenizer


def random_ids(count: int, seed: int = 0) -> list[int]:
    """Ids that a prompt may have, none of them special."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(3, VOCAB_SIZE, (count,), generator=generator).tolist()
