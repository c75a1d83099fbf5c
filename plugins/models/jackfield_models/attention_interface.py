"""Our attention behind transformers' attention interface.

transformers calls one registered function for every attention layer of every model. Ours hands
the call to the *step* that came down with it: the paged one, or one that looks at a model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jackfield.contracts.attention import AttentionBackend, AttentionBatch, AttentionSpec, KVLayer
from jackfield.errors import ConfigError

IMPLEMENTATION = "jackfield"

# What models pass beside what we handle, and what changes no result here.
_HARMLESS = frozenset(
    {"cache", "cache_position", "is_causal", "jackfield_hidden", "past_key_values"}
    | {"output_attentions", "output_hidden_states", "output_router_logits", "position_embeddings"}
    | {"position_ids", "return_dict", "use_cache"}
)


class Step(Protocol):
    """What an attention call is handed to."""

    def attend(
        self, spec: AttentionSpec, q: Tensor, k: Tensor, v: Tensor, sinks: Tensor | None
    ) -> Tensor:
        """q [T, H, D], k and v [T, K, D], sinks [H] -> [T, H, D]."""
        ...


def register() -> None:
    """Makes ``attn_implementation="jackfield"`` known to transformers; no mask is made for it."""
    from transformers import AttentionInterface

    AttentionInterface.register(IMPLEMENTATION, _attention)


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    dropout: float = 0.0,
    jackfield_step: Step | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """query [1, H, T, D], key [1, K, T, D], value [1, K, T, V] -> ([1, T, H, V], no weights).

    Values smaller than keys (DeepSeek's latent attention) are cached with zeros behind them.
    """
    if jackfield_step is None:
        raise ConfigError("the model does not hand keyword arguments down to its attention")
    head_dim = query.shape[-1]
    spec = AttentionSpec(
        layer=module.layer_idx,  # type: ignore[arg-type]
        num_heads=query.shape[1],
        num_kv_heads=key.shape[1],
        head_dim=head_dim,
        scale=head_dim**-0.5 if scaling is None else float(scaling),
        sliding_window=sliding_window,
        soft_cap=softcap,
        sinks=s_aux is not None,
    )
    if isinstance(jackfield_step, Recorder):
        jackfield_step.look_at(module, attention_mask, others)
    size = value.shape[-1]
    if size < head_dim:
        value = F.pad(value, (0, head_dim - size))
    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))
    return jackfield_step.attend(spec, q, k, v, s_aux)[None, ..., :size], None


class PagedStep:
    """A step over the paged cache."""

    def __init__(
        self,
        backend: AttentionBackend,
        kv: Mapping[int, KVLayer],
        batch: AttentionBatch,
    ) -> None:
        self._backend, self._kv, self._batch = backend, kv, batch

    def attend(
        self, spec: AttentionSpec, q: Tensor, k: Tensor, v: Tensor, sinks: Tensor | None
    ) -> Tensor:
        q, k, v = q.contiguous(), k.contiguous(), v.contiguous()
        kv = self._kv[spec.layer]
        self._backend.write(k, v, kv, self._batch)
        attend: Callable[..., Tensor] = self._backend.attend
        given = () if sinks is None else (sinks.float(),)
        return attend(q, k, v, kv, spec, self._batch, *given)


class SeparateSequences:
    """A step of sequences of ``length`` tokens each, attended plainly."""

    def __init__(self, length: int) -> None:
        self._length = length

    def attend(
        self, spec: AttentionSpec, q: Tensor, k: Tensor, v: Tensor, sinks: Tensor | None
    ) -> Tensor:
        n, size, dtype = self._length, spec.num_heads // spec.num_kv_heads, q.dtype
        q, k, v = (x.float().reshape(-1, n, *x.shape[1:]).transpose(1, 2) for x in (q, k, v))
        k, v = k.repeat_interleave(size, 1), v.repeat_interleave(size, 1)
        scores = q @ k.transpose(-1, -2) * spec.scale
        if spec.soft_cap is not None:
            scores = torch.tanh(scores / spec.soft_cap) * spec.soft_cap
        hidden = torch.ones(n, n, dtype=torch.bool, device=q.device).triu(1)
        scores = scores.masked_fill(hidden, -torch.inf)
        if sinks is not None:
            column = sinks.float()[:, None, None].expand(*scores.shape[:-1], 1)
            scores = torch.cat([scores, column], -1)
        attended = scores.softmax(-1)[..., :n] @ v
        return attended.transpose(1, 2).flatten(0, 1).to(dtype)


class Recorder:
    """Collects the specs of a model's attention layers, and refuses what we cannot compute."""

    def __init__(self, model: str, *, num_layers: int) -> None:
        self._model = model
        self._num_layers = num_layers
        self._specs: dict[int, AttentionSpec] = {}

    def specs(self) -> tuple[AttentionSpec, ...]:
        """One a layer, in the order of the layers."""
        return tuple(self._specs[layer] for layer in sorted(self._specs))

    def look_at(
        self,
        module: nn.Module,
        attention_mask: Tensor | None,
        others: Mapping[str, Any],
    ) -> None:
        """One call of the attention function, beyond what is in the spec."""
        if attention_mask is not None:
            raise self._refusal("it makes an attention mask of its own")
        if not getattr(module, "is_causal", True) or others.get("is_causal") is False:
            raise self._refusal("its attention is not causal")
        unknown = [k for k, v in others.items() if v is not None and k not in _HARMLESS]
        if unknown:
            raise self._refusal(f"its attention needs {', '.join(sorted(unknown))}")

    def attend(
        self, spec: AttentionSpec, q: Tensor, k: Tensor, v: Tensor, sinks: Tensor | None
    ) -> Tensor:
        if v.shape[-1] != spec.head_dim:
            raise self._refusal("its values are larger than its keys")
        if spec.layer in self._specs:
            raise self._refusal(f"layer {spec.layer} attends twice")
        self._specs[spec.layer] = spec
        return torch.empty_like(q)

    def check(self, config: Any) -> None:
        """After the pass: every layer attended, with the window that ``config`` gives it."""
        if sorted(self._specs) != list(range(self._num_layers)):
            raise self._refusal(
                f"{len(self._specs)} of its {self._num_layers} layers use the attention interface"
            )
        if getattr(config, "num_kv_shared_layers", 0):
            raise self._refusal("its layers share keys and values")
        kinds: Sequence[str] = getattr(config, "layer_types", None) or ()
        for layer, kind in enumerate(kinds):
            if kind not in ("full_attention", "sliding_attention"):
                raise self._refusal(f"layer {layer} has {kind}")
            if (kind == "sliding_attention") != (self._specs[layer].sliding_window is not None):
                raise self._refusal(f"the sliding window of layer {layer} is not handed down")

    def _refusal(self, reason: str) -> ConfigError:
        return ConfigError(f"{self._model} cannot be served through transformers: {reason}")
