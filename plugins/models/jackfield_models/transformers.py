"""Any causal language model of transformers, over our paged KV cache.

The model's own code runs as it is; only its attention is ours, through transformers' attention
interface. All tokens of a step are one sequence of a batch of one to it, with their positions;
which of them see each other is the attention backend's business. The step's ``AttentionBatch``
travels down as a keyword argument.

What cannot work this way is refused, not computed wrongly: the layers' parameters of attention
are read off a pass without data, and after loading three short sequences in one pass must come out
as three.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from typing import Any, ClassVar

import torch
import transformers
from torch import Tensor, nn
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from jackfield.compute.layers.attention import check_spec
from jackfield.compute.weights import weight_shapes
from jackfield.contracts.attention import AttentionBatch, KVLayer
from jackfield.contracts.model import BuildContext
from jackfield.errors import CheckpointError, ConfigError
from jackfield_models.attention_interface import (
    IMPLEMENTATION,
    PagedStep,
    Recorder,
    SeparateSequences,
    Step,
    register,
)
from jackfield_models.from_transformers import load_model, quiet, read_config
from jackfield_models.own_blocks import block_trial
from jackfield_models.own_layers import Watch, load_own, put, quantize, take_over, without
from jackfield_models.own_norms import norm_trial
from jackfield_models.own_rotation import RotationTrial
from jackfield_models.trial import Trial


class TransformersForCausalLM(nn.Module):
    """Implements ``Model``."""

    api_version: ClassVar[int] = 1

    def __init__(self, config: Mapping[str, object], context: BuildContext) -> None:
        super().__init__()
        if context.group.size > 1:
            raise ConfigError("--model-impl transformers runs on one device; tensor parallel is 1")
        register()
        self._context = context
        self._config = read_config(config, context)
        # With a padding token some models look for it in every batch, to warn, and wait for the
        # device to answer. Nothing here is padded.
        self._config.pad_token_id = None
        self.causal_lm = _build(self._config, context)
        _choose_factors(self.causal_lm, self._config, context)
        _check_config(self._config, context)
        with Watch(self.causal_lm) as self._replaceable:
            recorder, self._output_type = self._record()
        self.attention_specs = recorder.specs()
        for spec in self.attention_specs:
            check_spec(spec, context.attention_backend)
        self._check_window()
        self._quantized = quantize(self.causal_lm, self._replaceable, context)
        self._kv: dict[int, KVLayer] = {}

    def weight_shapes(self) -> Mapping[str, tuple[int, ...]]:
        elsewhere = tuple(f"{name}." for name in self._quantized)
        tied = self.causal_lm.all_tied_weights_keys
        return weight_shapes(self.causal_lm) | {
            name: tuple(tensor.shape)
            for name, tensor in self.causal_lm.state_dict().items()
            if name not in tied and not name.startswith(elsewhere)
        }

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """As the contract says; names and layouts are converted by transformers."""
        model_class = type(self.causal_lm)
        if self._quantized:
            weights = load_own(self.causal_lm, weights, self._context).items()
            model_class = without(model_class, self._quantized)
        model = load_model(model_class, self._config, weights, self._context, IMPLEMENTATION)
        put(model, self._quantized)
        self.causal_lm = model.eval().requires_grad_(False).to(self._context.device)
        if not self._quantized:
            take_over(self.causal_lm, self._replaceable, self._context)
        _choose_factors(self.causal_lm, self._config, self._context)
        _accept_hidden(self.causal_lm, self._output_type)
        self._replace_parts()

    def bind_kv(self, layers: tuple[KVLayer, ...]) -> None:
        pairs = zip(self.attention_specs, layers, strict=True)
        self._kv = {spec.layer: kv for spec, kv in pairs}

    def forward(self, ids: Tensor, positions: Tensor, attention: AttentionBatch) -> Tensor:
        step = PagedStep(self._context.attention_backend, self._kv, attention)
        hidden: Tensor = self._decode(ids, positions, step).last_hidden_state
        return hidden[0]

    def compute_logits(self, hidden: Tensor) -> Tensor:
        # The head with whatever the model does after it: scaling, soft cap.
        logits: Tensor = self.causal_lm(
            input_ids=hidden.new_zeros(1, hidden.shape[0], dtype=torch.int64),
            use_cache=False,
            jackfield_hidden=hidden[None],
        ).logits
        return logits[0]

    def _decode(self, ids: Tensor, positions: Tensor, step: Step) -> Any:
        return self.causal_lm.get_decoder()(
            input_ids=ids[None],
            position_ids=positions[None],
            attention_mask=None,
            use_cache=False,
            jackfield_step=step,
        )

    def _record(self) -> tuple[Recorder, Any]:
        """One token through the model without data; also the class of its decoder's output."""
        recorder = Recorder(self._name, num_layers=self._config.num_hidden_layers)
        nothing = torch.zeros(1, dtype=torch.int64, device="meta")
        try:
            output = self._decode(nothing, nothing, recorder)
        except ConfigError:
            raise
        except Exception as error:
            raise self._refusal(f"its code fails on the meta device ({error})") from error
        recorder.check(self._config)
        return recorder, type(output)

    def _replace_parts(self) -> None:
        """Ours in the place of all that computes the same in the pass of the last check."""
        trials: list[Trial | RotationTrial] = [norm_trial(self.causal_lm)]
        # On the CPU weights stay where they are.
        if self._context.device.type == "cuda":
            from jackfield.compute.kernels.rotation import rotate  # Triton: GPUs only

            trials.append(block_trial(self.causal_lm, self._context))
            trials.append(RotationTrial(self.causal_lm, rotate))
        with ExitStack() as running:
            for trial in trials:
                running.enter_context(trial)
            self._check_sequences_are_separate()
        for trial in trials:
            trial.use()

    @torch.inference_mode()
    def _check_sequences_are_separate(self) -> None:
        device = self._context.device
        # The same tokens at the start and at the end, others between.
        ids = torch.tensor([3, 1, 4, 2, 7, 6, 5, 8, 3, 1, 4, 2], device=device)
        positions = torch.arange(4, device=device).repeat(3)
        hidden = self._decode(ids, positions, SeparateSequences(4)).last_hidden_state[0]
        first, _, last = hidden.float().split(4)
        tolerance = 1e-4 if self._context.dtype == torch.float32 else 3e-2
        if (first - last).abs().max() > tolerance * first.abs().max():
            raise self._refusal("tokens of one sequence reach another outside of its attention")
        if self.compute_logits(hidden).dim() != 2:
            raise self._refusal("its head gives no logits of single tokens")

    def _check_window(self) -> None:
        """Refuses a window that only a mask would know of: no mask is made here. Where the layers
        have types the recorder has checked it."""
        window = getattr(self._config, "sliding_window", None)
        masks = hasattr(
            sys.modules[type(self.causal_lm).__module__], "create_sliding_window_causal_mask"
        )
        if not masks or not window or getattr(self._config, "layer_types", None):
            return
        told = all(spec.sliding_window is not None for spec in self.attention_specs)
        if not told and window < self._context.max_model_len:
            raise ConfigError(
                f"{self._name} through transformers attends to all tokens, not to a window of "
                f"{window}; give --max-model-len {window}"
            )

    @property
    def _name(self) -> str:
        return type(self.causal_lm).__name__

    def _refusal(self, reason: str) -> ConfigError:
        return ConfigError(f"{self._name} cannot be served through transformers: {reason}")


def _build(config: Any, context: BuildContext) -> Any:
    """The model on the meta device: shapes, no memory. In bfloat16, whatever it will be loaded
    as: some operations know no other dtype there."""
    try:
        with torch.device("meta"), quiet():
            model = transformers.AutoModelForCausalLM.from_config(
                config,
                dtype=torch.bfloat16,
                trust_remote_code=context.trust_remote_code,
                attn_implementation=IMPLEMENTATION,
                **_code_revision(config, context),
            )
    except ValueError as error:
        reason = str(error).strip().splitlines()[0]
        raise ConfigError(
            f"model_type {config.model_type!r} cannot be served through transformers: {reason}"
        ) from error
    if not hasattr(config, "num_hidden_layers"):
        raise ConfigError(
            f"{type(model).__name__} cannot be served through transformers: its configuration "
            "holds others, as that of a multi-modal model does"
        )
    if not model._supports_attention_backend:
        raise ConfigError(
            f"{type(model).__name__} cannot be served through transformers: "
            f"it does not use the attention interface"
        )
    named = getattr(config, "architectures", None) or []
    if named and type(model).__name__ not in named:
        raise CheckpointError(
            f"architecture {', '.join(map(str, named))} is unknown: no models plugin has it, and "
            f"transformers makes {type(model).__name__} of model_type {config.model_type!r}"
        )
    return model.eval()


def _code_revision(config: Any, context: BuildContext) -> dict[str, str]:
    """For the checkpoint's own code: transformers' models do not know the argument."""
    own = getattr(config, "auto_map", None) or {}
    if context.code_revision is None or "AutoModelForCausalLM" not in own:
        return {}
    return {"code_revision": context.code_revision}


def _check_config(config: Any, context: BuildContext) -> None:
    """Refuses what depends on a whole batch: frequencies that follow its longest sequence."""
    if _rope_kind(config) == "dynamic" and context.max_model_len > _trained_length(config):
        raise ConfigError(
            f"RoPE scaling 'dynamic' through transformers works up to {_trained_length(config)} "
            f"tokens; give --max-model-len {_trained_length(config)}"
        )


def _choose_factors(model: Any, config: Any, context: BuildContext) -> None:
    """LongRoPE (arXiv 2402.13753) has factors for short sequences and for long ones, which
    transformers chooses for a whole batch, in every step. Here they are chosen once: where long
    sequences may come all have theirs."""
    if _rope_kind(config) != "longrope":
        return
    is_long = context.max_model_len > _trained_length(config)
    for module in model.modules():
        if getattr(module, "rope_type", None) != "longrope":
            continue
        module.rope_type = "chosen"
        if is_long:
            buffer, seq_len = module.inv_freq, _trained_length(config) + 1
            module.inv_freq, _ = ROPE_INIT_FUNCTIONS["longrope"](config, buffer.device, seq_len)


def _rope_kind(config: Any) -> object:
    return (getattr(config, "rope_parameters", None) or {}).get("rope_type")


def _trained_length(config: Any) -> int:
    """Of a configuration whose RoPE is scaled."""
    trained: int = config.rope_parameters.get(
        "original_max_position_embeddings", config.max_position_embeddings
    )
    return trained


def _accept_hidden(causal_lm: Any, output_type: Any) -> None:
    """Lets ``causal_lm`` be called with the hidden states that its decoder has given before."""
    decoder = causal_lm.get_decoder()
    compute = decoder.forward

    def forward(*args: Any, jackfield_hidden: Tensor | None = None, **kwargs: Any) -> Any:
        if jackfield_hidden is None:
            return compute(*args, **kwargs)
        return output_type(last_hidden_state=jackfield_hidden)

    decoder.forward = forward
