"""The decoder that Llama, Mistral and Qwen share: pre-norm blocks of attention and gated MLP.

Module names are those of the checkpoints, so that a tensor's name is the path to its place.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

from torch import Tensor, nn

from jackfield.compute.kernels.scaled_rows import PassedRows
from jackfield.compute.layers.attention import Attention, Sinks
from jackfield.compute.layers.embedding import LMHead, VocabParallelEmbedding
from jackfield.compute.layers.linear import QKVParallelLinear, RowParallelLinear
from jackfield.compute.layers.mlp import GatedMLP
from jackfield.compute.layers.model_config import ModelConfig
from jackfield.compute.layers.moe import ExpertsConfig, SparseMLP
from jackfield.compute.layers.norm import RMSNorm
from jackfield.compute.layers.rotary import Rope, make_rope
from jackfield.compute.weights import load_weights, weight_shapes
from jackfield.contracts.attention import AttentionBatch, AttentionSpec, KVLayer, Selection
from jackfield.contracts.model import BuildContext


@dataclass(frozen=True, slots=True)
class DecoderConfig:
    """What the shared decoder is made from. ``sliding_windows`` has one entry a layer;
    ``sparse_layers`` have ``experts`` in the place of the gated block."""

    vocab_size: int
    hidden: int
    intermediate: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    norm_eps: float
    activation: str
    tie_word_embeddings: bool
    sliding_windows: tuple[int | None, ...]
    qkv_bias: bool = False
    output_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False
    sinks: bool = False
    experts: ExpertsConfig | None = None
    sparse_layers: frozenset[int] = frozenset()

    @classmethod
    def read(
        cls,
        config: ModelConfig,
        *,
        head_dim: int | None = None,
        sliding_windows: tuple[int | None, ...] | None = None,
        qkv_bias: bool = False,
        output_bias: bool = False,
        mlp_bias: bool = False,
        qk_norm: bool = False,
    ) -> DecoderConfig:
        """From the keys that all these models have, and what differs between them."""
        num_heads = config.integer("num_attention_heads")
        hidden = config.integer("hidden_size")
        return cls(
            vocab_size=config.integer("vocab_size"),
            hidden=hidden,
            intermediate=config.integer("intermediate_size"),
            num_heads=num_heads,
            num_kv_heads=config.integer("num_key_value_heads", num_heads),
            head_dim=head_dim or config.integer("head_dim", hidden // num_heads),
            norm_eps=config.number("rms_norm_eps", 1e-6),
            activation=config.text("hidden_act", "silu"),
            tie_word_embeddings=config.flag("tie_word_embeddings", False),
            sliding_windows=sliding_windows or (None,) * config.integer("num_hidden_layers"),
            qkv_bias=qkv_bias,
            output_bias=output_bias,
            mlp_bias=mlp_bias,
            qk_norm=qk_norm,
        )


class DecoderAttention(nn.Module):
    """Self-attention with grouped KV heads."""

    def __init__(
        self, config: DecoderConfig, layer: int, rope: Rope, context: BuildContext, prefix: str
    ) -> None:
        super().__init__()
        width = config.num_heads * config.head_dim
        self.qkv_proj = QKVParallelLinear(
            config.hidden,
            config.head_dim,
            config.num_heads,
            config.num_kv_heads,
            bias=config.qkv_bias,
            context=context,
            prefix=f"{prefix}.qkv_proj",
        )
        self.o_proj = RowParallelLinear(
            width,
            config.hidden,
            bias=config.output_bias,
            context=context,
            prefix=f"{prefix}.o_proj",
        )
        self.q_norm: RMSNorm | None = None
        self.k_norm: RMSNorm | None = None
        if config.qk_norm:
            self.q_norm = RMSNorm(config.head_dim, eps=config.norm_eps, context=context)
            self.k_norm = RMSNorm(config.head_dim, eps=config.norm_eps, context=context)
        spec = AttentionSpec(
            layer=layer,
            num_heads=self.qkv_proj.num_heads,
            num_kv_heads=self.qkv_proj.num_kv_heads,
            head_dim=config.head_dim,
            scale=config.head_dim**-0.5,
            sliding_window=config.sliding_windows[layer],
            sinks=config.sinks,
        )
        self.sinks = Sinks(config.num_heads, context) if config.sinks else None
        self.attention = Attention(spec, context, rope, self.q_norm, self.k_norm, self.sinks)

    def forward(
        self,
        x: Tensor | PassedRows,
        positions: Tensor,
        batch: AttentionBatch,
        selection: Selection | None = None,
    ) -> Tensor:
        """[T, hidden] -> what ``o_proj`` takes, [T, heads * head_dim], or the selected rows."""
        heads: Tensor = self.attention(self.qkv_proj(x), positions, batch, selection)
        return heads


class DecoderLayer(nn.Module):
    """One block; the residual travels beside the normalized stream."""

    def __init__(
        self, config: DecoderConfig, layer: int, rope: Rope, context: BuildContext, prefix: str
    ) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden, eps=config.norm_eps, context=context)
        self.self_attn = DecoderAttention(config, layer, rope, context, f"{prefix}.self_attn")
        self.post_attention_layernorm = RMSNorm(config.hidden, eps=config.norm_eps, context=context)
        self.mlp = _feed_forward(config, layer, context, f"{prefix}.mlp")

    def forward(
        self,
        x: Tensor | PassedRows,
        residual: Tensor | None,
        positions: Tensor,
        batch: AttentionBatch,
        selection: Selection | None = None,
        following: DecoderLayer | None = None,
    ) -> tuple[Tensor | PassedRows, Tensor]:
        """What the block adds, and the sum of all before, both [T, hidden]; of the selected tokens
        [N, hidden], while keys and values of all are kept.

        Where one kernel can do it, what it adds is in the sum already and normalized for the block
        ``following``: ``PassedRows``.
        """
        if not isinstance(x, Tensor):
            assert residual is not None
            normed: Tensor | PassedRows = x
        elif residual is None:
            normed, residual = self.input_layernorm(x), x
        else:
            normed, residual = self.input_layernorm(x, residual)
        heads = self.self_attn(normed, positions, batch, selection)
        if selection is not None:
            residual = residual.index_select(0, selection.index)
            if len(residual) == 0:
                return residual, residual
        return self._fed_forward(heads, residual, following)

    def _fed_forward(
        self, heads: Tensor, residual: Tensor, following: DecoderLayer | None
    ) -> tuple[Tensor | PassedRows, Tensor]:
        o_proj, norm, mlp = self.self_attn.o_proj, self.post_attention_layernorm, self.mlp
        if not isinstance(mlp, GatedMLP):
            normed, residual = norm(o_proj(heads), residual)
            return mlp(normed), residual
        passed = None
        if mlp.takes_passed_rows:
            passed = o_proj.added(heads, residual, norm, mlp.gate_up_proj)
        if passed is None:
            normed, residual = norm(o_proj(heads), residual)
            return mlp(normed), residual
        inner = mlp.inner(passed)
        if following is not None:
            norm, qkv_proj = following.input_layernorm, following.self_attn.qkv_proj
            passed = mlp.down_proj.added(inner, residual, norm, qkv_proj)
            if passed is not None:
                return passed, residual
        return mlp.down_proj(inner), residual


def _feed_forward(
    config: DecoderConfig, layer: int, context: BuildContext, prefix: str
) -> GatedMLP | SparseMLP:
    if config.experts is not None and layer in config.sparse_layers:
        return SparseMLP(
            config.hidden,
            config.experts,
            activation=config.activation,
            context=context,
            prefix=prefix,
        )
    return GatedMLP(
        config.hidden,
        config.intermediate,
        bias=config.mlp_bias,
        activation=config.activation,
        context=context,
        prefix=prefix,
    )


def _layer(config: DecoderConfig, layer: int, rope: Rope, context: BuildContext) -> DecoderLayer:
    with context.placing(layer):
        return DecoderLayer(config, layer, rope, context, f"model.layers.{layer}")


class Decoder(nn.Module):
    """Embedding, blocks, final norm."""

    def __init__(
        self, config: DecoderConfig, values: Mapping[str, object], context: BuildContext
    ) -> None:
        super().__init__()
        rope = make_rope(
            values,
            head_dim=config.head_dim,
            max_positions=context.max_model_len,
            device=context.device,
        )
        self.embed_tokens = VocabParallelEmbedding(
            config.vocab_size, config.hidden, context=context, prefix="model.embed_tokens"
        )
        self.layers = nn.ModuleList(
            _layer(config, layer, rope, context) for layer in range(len(config.sliding_windows))
        )
        self.norm = RMSNorm(config.hidden, eps=config.norm_eps, context=context)

    def forward(
        self,
        ids: Tensor,
        positions: Tensor,
        batch: AttentionBatch,
        selection: Selection | None = None,
    ) -> Tensor:
        """int64 [T] -> [T, hidden], or [N, hidden] of the selected tokens."""
        x, residual = self.embed_tokens(ids), None
        for layer, following in pairwise(self.layers):
            x, residual = layer(x, residual, positions, batch, None, following)
        x, residual = self.layers[-1](x, residual, positions, batch, selection)
        normed: Tensor = x if len(x) == 0 else self.norm(x, residual)[0]
        return normed


class HeadlessDecoder(nn.Module, ABC):
    """All of ``Model`` but the head; a model class says which decoder it is."""

    api_version: ClassVar[int] = 1

    # Old checkpoints store the frequencies, which follow from config.json.
    _ignorable: tuple[str, ...] = (r"\.rotary_emb\.inv_freq$",)

    def __init__(self, config: Mapping[str, object], context: BuildContext) -> None:
        super().__init__()
        self.described = self.describe(ModelConfig(config))
        self.model = Decoder(self.described, config, context)
        self._attentions = [m for m in self.model.modules() if isinstance(m, Attention)]
        self.attention_specs = tuple(attention.spec for attention in self._attentions)

    @staticmethod
    @abstractmethod
    def describe(config: ModelConfig) -> DecoderConfig:
        """The decoder that ``config.json`` asks for."""

    def weight_shapes(self) -> Mapping[str, tuple[int, ...]]:
        return weight_shapes(self)

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        load_weights(self, weights, ignorable=self._ignorable)

    def bind_kv(self, layers: tuple[KVLayer, ...]) -> None:
        for attention, kv in zip(self._attentions, layers, strict=True):
            attention.bind_kv(kv)

    def forward(self, ids: Tensor, positions: Tensor, attention: AttentionBatch) -> Tensor:
        hidden: Tensor = self.model(ids, positions, attention)
        return hidden

    def forward_selected(
        self, ids: Tensor, positions: Tensor, attention: AttentionBatch, selection: Selection
    ) -> Tensor:
        hidden: Tensor = self.model(ids, positions, attention, selection)
        return hidden


class DecoderForCausalLM(HeadlessDecoder):
    """Implements ``Model`` with a language model's head."""

    def __init__(self, config: Mapping[str, object], context: BuildContext) -> None:
        super().__init__(config, context)
        tied = self.described.tie_word_embeddings
        self.lm_head = LMHead(
            self.described.vocab_size,
            self.described.hidden,
            context=context,
            prefix="lm_head",
            tied=self.model.embed_tokens if tied else None,
        )
        if tied:
            # Some tied checkpoints have the head's copy too.
            self._ignorable = (*self._ignorable, r"^lm_head\.weight$")

    def compute_logits(self, hidden: Tensor) -> Tensor:
        logits: Tensor = self.lm_head(hidden)
        return logits


def qwen_windows(config: ModelConfig) -> tuple[int | None, ...]:
    """Qwen's windows: off unless ``use_sliding_window``; then by ``layer_types``, or from layer
    ``max_window_layers`` on."""
    num_layers = config.integer("num_hidden_layers")
    if not config.flag("use_sliding_window", False):
        return (None,) * num_layers
    window = config.integer("sliding_window", 4096)
    kinds = config.texts("layer_types")
    if kinds is None:
        first = config.integer("max_window_layers", 28)
        return tuple(window if layer >= first else None for layer in range(num_layers))
    return tuple(window if kind == "sliding_attention" else None for kind in kinds)
