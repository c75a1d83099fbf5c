"""Qwen3 for training: the weights are named as transformers names them."""

from __future__ import annotations

import json
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

CONFIG: dict[str, object] = {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "vocab_size": 5120,
    "hidden_size": 256,
    "intermediate_size": 704,
    "num_hidden_layers": 8,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "max_position_embeddings": 4096,
    "rope_theta": 10000.0,
    "rms_norm_eps": 1e-6,
    "hidden_act": "silu",
    "attention_bias": False,
    "attention_dropout": 0.0,
    "tie_word_embeddings": True,
    "use_sliding_window": False,
    "sliding_window": None,
    "initializer_range": 0.02,
    "use_cache": True,
}
HIDDEN, INNER, LAYERS, HEADS, KV_HEADS, HEAD_DIM, EPSILON = 256, 704, 8, 8, 2, 64, 1e-6


class Attention(nn.Module):
    """Grouped heads; queries and keys are normed per head before the rotation."""

    def __init__(self) -> None:
        super().__init__()
        self.q_proj = nn.Linear(HIDDEN, HEADS * HEAD_DIM, bias=False)
        self.k_proj = nn.Linear(HIDDEN, KV_HEADS * HEAD_DIM, bias=False)
        self.v_proj = nn.Linear(HIDDEN, KV_HEADS * HEAD_DIM, bias=False)
        self.o_proj = nn.Linear(HEADS * HEAD_DIM, HIDDEN, bias=False)
        self.q_norm = nn.RMSNorm(HEAD_DIM, EPSILON)
        self.k_norm = nn.RMSNorm(HEAD_DIM, EPSILON)

    def forward(self, x: Tensor, angles: tuple[Tensor, Tensor], mask: BlockMask | Tensor) -> Tensor:
        """x [B, S, H]; ``mask`` is a BlockMask on a GPU and [B, 1, S, S] bool on a CPU."""
        rows, length, _ = x.shape
        q = self.q_norm(self.q_proj(x).view(rows, length, HEADS, HEAD_DIM)).transpose(1, 2)
        k = self.k_norm(self.k_proj(x).view(rows, length, KV_HEADS, HEAD_DIM)).transpose(1, 2)
        v = self.v_proj(x).view(rows, length, KV_HEADS, HEAD_DIM).transpose(1, 2)
        q, k = _rotated(q, angles).to(v.dtype), _rotated(k, angles).to(v.dtype)
        if isinstance(mask, BlockMask):
            mixed = flex_attention(q, k, v, block_mask=mask, enable_gqa=True)
        else:
            mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True)
        assert isinstance(mixed, Tensor)
        out: Tensor = self.o_proj(mixed.transpose(1, 2).reshape(rows, length, HEADS * HEAD_DIM))
        return out


class Feedforward(nn.Module):
    """Gated, with SiLU."""

    def __init__(self) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(HIDDEN, INNER, bias=False)
        self.up_proj = nn.Linear(HIDDEN, INNER, bias=False)
        self.down_proj = nn.Linear(INNER, HIDDEN, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))
        return out


class Layer(nn.Module):
    """Attention and feed-forward, each behind a norm and beside the residual."""

    def __init__(self) -> None:
        super().__init__()
        self.self_attn = Attention()
        self.mlp = Feedforward()
        self.input_layernorm = nn.RMSNorm(HIDDEN, EPSILON)
        self.post_attention_layernorm = nn.RMSNorm(HIDDEN, EPSILON)

    def forward(self, x: Tensor, angles: tuple[Tensor, Tensor], mask: BlockMask | Tensor) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), angles, mask)
        out: Tensor = x + self.mlp(self.post_attention_layernorm(x))
        return out


class Stack(nn.Module):
    """The parts between ids and logits; a level of its own for the names' sake."""

    def __init__(self) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(int(str(CONFIG["vocab_size"])), HIDDEN)
        self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))
        self.norm = nn.RMSNorm(HIDDEN, EPSILON)


class Qwen3(nn.Module):
    """Ids to the weighted loss of the next ids."""

    def __init__(self) -> None:
        super().__init__()
        self.model = Stack()
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                # Residual branches begin small: 2 * LAYERS of them add up.
                last = name.endswith(("o_proj.weight", "down_proj.weight"))
                nn.init.normal_(parameter, std=0.02 / (2 * LAYERS) ** 0.5 if last else 0.02)

    def compile_parts(self) -> None:
        """One layer and the loss are compiled: the layers share the code."""
        for layer in self.model.layers:
            layer.compile(dynamic=False)
        self.loss = torch.compile(self.loss, dynamic=False)  # type: ignore[method-assign]

    def forward(
        self, ids: Tensor, positions: Tensor, mask: BlockMask | Tensor, weights: Tensor
    ) -> Tensor:
        """ids [B, S] int64, positions [B, S], weights [B, S] f32 of the tokens to be predicted
        (that of a row's first one is not used); the mean loss by weight, a scalar."""
        # As it is served: what the layers add up is bfloat16.
        x = self.model.embed_tokens(ids).to(torch.bfloat16)
        angles = _angles(positions)
        for layer in self.model.layers:
            x = layer(x, angles, mask)
        return self.loss(x, ids, weights)

    def loss(self, x: Tensor, ids: Tensor, weights: Tensor) -> Tensor:
        """From the last layer's [B, S, H] on."""
        logits = F.linear(self.model.norm(x), self.model.embed_tokens.weight)
        losses = F.cross_entropy(
            logits[:, :-1].flatten(0, 1).float(), ids[:, 1:].flatten(), reduction="none"
        )
        wanted = weights[:, 1:].flatten()
        return (losses * wanted).sum() / wanted.sum()


def _angles(positions: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines and sines [B, 1, S, HEAD_DIM / 2] f32."""
    steps = torch.arange(0, HEAD_DIM, 2, device=positions.device, dtype=torch.float32)
    frequencies = float(str(CONFIG["rope_theta"])) ** (-steps / HEAD_DIM)
    angles = positions.float()[:, None, :, None] * frequencies
    return angles.cos(), angles.sin()


def _rotated(x: Tensor, angles: tuple[Tensor, Tensor]) -> Tensor:
    cos, sin = angles
    first, second = x.float().chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


def document_mask(documents: Tensor) -> BlockMask | Tensor:
    """Who may look at whom: earlier tokens of the same document. documents [B, S]."""
    rows, length = documents.shape
    if documents.device.type == "cpu":
        causal = torch.ones(length, length, dtype=torch.bool).tril()
        return (documents[:, None, :, None] == documents[:, None, None, :]) & causal

    def may_look(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (query >= key) & (documents[row, query] == documents[row, key])

    return create_block_mask(
        may_look, rows, None, length, length, device=documents.device, _compile=True
    )


def positions_of(documents: Tensor) -> Tensor:
    """Places within the document, from 0. documents [B, S]."""
    length = documents.shape[1]
    places = torch.arange(length, device=documents.device).expand_as(documents)
    begins = torch.ones_like(documents, dtype=torch.bool)
    begins[:, 1:] = documents[:, 1:] != documents[:, :-1]
    return places - torch.where(begins, places, 0).cummax(dim=1).values


def save(model: Qwen3, directory: Path, end_ids: list[int]) -> None:
    """The checkpoint in bfloat16, as transformers lays it out. ``end_ids`` end an answer."""
    directory.mkdir(parents=True, exist_ok=True)
    weights = {
        name: value.detach().to("cpu", torch.bfloat16).contiguous()
        for name, value in model.state_dict().items()
    }
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    config = {
        **CONFIG,
        "eos_token_id": end_ids[0],
        "pad_token_id": end_ids[-1],
        "dtype": "bfloat16",
    }
    (directory / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    generation = {"eos_token_id": end_ids, "do_sample": True, "temperature": 0.2, "top_k": 20}
    generation = {**generation, "top_p": 0.9, "pad_token_id": end_ids[-1]}
    (directory / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n")
