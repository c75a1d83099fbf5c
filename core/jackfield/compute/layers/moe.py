"""A mixture of experts in the place of a feed-forward block.

On a GPU the experts of a layer are two tensors, for kernels that multiply by all of them at once;
on the CPU, and where they are quantized, each is a block of its own, packed like any other layer.
Workers share each expert, by its inner features.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from jackfield.compute.layers.linear import Part, ShardedLinear
from jackfield.compute.layers.mlp import GatedMLP, check_activation
from jackfield.compute.layers.sharding import even_shard, whole
from jackfield.compute.weights import LoadableLayer, Slot
from jackfield.contracts.model import BuildContext, TensorParallelGroup
from jackfield.errors import CheckpointError


@dataclass(frozen=True, slots=True)
class ExpertsConfig:
    """``num_experts`` gated blocks of ``intermediate`` inner features, of which each token goes
    through ``top_k``; ``renormalize``: their weights sum to 1. ``router``: its name in the
    checkpoint. ``bias``: experts and router have one. ``clamp``: alpha and limit of
    ``ops.clamped_swiglu``, which is in the place of SwiGLU then."""

    num_experts: int
    top_k: int
    intermediate: int
    renormalize: bool
    router: str = "gate"
    bias: bool = False
    clamp: tuple[float, float] | None = None


class SparseMLP(nn.Module):
    """The chosen experts' outputs, weighted by the router's softmax."""

    def __init__(
        self,
        hidden: int,
        config: ExpertsConfig,
        *,
        activation: str,
        context: BuildContext,
        prefix: str,
    ) -> None:
        super().__init__()
        router = Router(hidden, config, context=context, prefix=f"{prefix}.{config.router}")
        self._router = config.router
        self.add_module(config.router, router)
        self.experts = make_experts(
            hidden, config, activation=activation, context=context, prefix=f"{prefix}.experts"
        )

    def forward(self, x: Tensor) -> Tensor:
        """[T, hidden] -> [T, hidden]."""
        logits = self.get_submodule(self._router)(x)
        mixed: Tensor = self.experts(x, logits)
        return mixed


def make_experts(
    hidden: int, config: ExpertsConfig, *, activation: str, context: BuildContext, prefix: str
) -> ExpertList | FusedExperts:
    """The experts as this device multiplies them: a module that takes [T, hidden] and the router's
    logits [T, experts]."""
    if not 0 < config.top_k <= config.num_experts:
        raise CheckpointError(
            f"config.json: num_experts_per_tok is {config.top_k}; there are"
            f" {config.num_experts} experts"
        )
    kind = _experts_kind(context, prefix)
    return kind(hidden, config, activation=activation, context=context, prefix=prefix)


def _experts_kind(context: BuildContext, prefix: str) -> type[ExpertList | FusedExperts]:
    if context.device.type != "cuda":
        return ExpertList
    quantization = context.quantization
    is_coded = quantization is not None and quantization.linear_method(f"{prefix}.0.gate_up_proj")
    if not is_coded:
        return FusedExperts
    from jackfield.compute.layers.coded_experts import CodedExperts  # Triton: GPUs only

    return CodedExperts


class Router(ShardedLinear):
    """How well each expert suits a token; whole on every worker."""

    def __init__(
        self, hidden: int, config: ExpertsConfig, *, context: BuildContext, prefix: str
    ) -> None:
        part = Part(prefix.rpartition(".")[2], whole(config.num_experts), 0)
        super().__init__(whole(hidden), (part,), bias=config.bias, context=context, prefix=prefix)

    def forward(self, x: Tensor) -> Tensor:
        """[T, hidden] -> logits [T, experts]."""
        return self.method.apply(self, x, self.bias)


class ExpertList(nn.ModuleList):
    """Experts one by one, each over the tokens that chose it."""

    def __init__(
        self,
        hidden: int,
        config: ExpertsConfig,
        *,
        activation: str,
        context: BuildContext,
        prefix: str,
    ) -> None:
        super().__init__(
            GatedMLP(
                hidden,
                config.intermediate,
                bias=config.bias,
                activation=activation,
                clamp=config.clamp,
                context=context,
                prefix=f"{prefix}.{index}",
            )
            for index in range(config.num_experts)
        )
        self.config = config

    def forward(self, x: Tensor, logits: Tensor) -> Tensor:
        """[T, hidden], [T, experts] -> [T, hidden]. The tokens are brought into the order of their
        experts, so that each expert reads and writes one stretch."""
        top_k = self.config.top_k
        shares, chosen = self._chosen(logits)
        flat = chosen.flatten()
        order = flat.argsort(stable=True)
        counts = torch.bincount(flat, minlength=len(self)).tolist()
        moved = x.index_select(0, order // top_k)
        outputs = [
            expert(part)
            for expert, part in zip(self, torch.split(moved, counts), strict=True)
            if len(part) > 0
        ]
        sorted_outputs = torch.cat(outputs)
        picked = torch.empty_like(sorted_outputs).index_copy_(0, order, sorted_outputs)
        mixed = picked.view(len(x), top_k, -1).float().mul_(shares.unsqueeze(-1)).sum(1)
        return mixed.to(x.dtype)

    def _chosen(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        # Each token's shares, float32, and experts, int64, both [T, top_k].
        shares, chosen = logits.float().softmax(-1).topk(self.config.top_k, dim=-1)
        if self.config.renormalize:
            shares /= shares.sum(-1, keepdim=True)
        return shares, chosen


class EveryExpert(ExpertList):
    """Each expert over all tokens, with a share of 0 where a token did not choose it: more work,
    but no wait for the device, so that a CUDA graph can hold it."""

    def forward(self, x: Tensor, logits: Tensor) -> Tensor:
        """[T, hidden], [T, experts] -> [T, hidden]."""
        shares, chosen = self._chosen(logits)
        by_expert = torch.zeros_like(logits, dtype=torch.float32).scatter_(1, chosen, shares)
        mixed = torch.zeros_like(x, dtype=torch.float32)
        for index, expert in enumerate(self):
            mixed.addcmul_(expert(x), by_expert[:, index : index + 1])
        return mixed.to(x.dtype)


class FusedExperts(LoadableLayer):
    """All experts at once by grouped kernels: ``gate_up`` [E, 2 I, hidden] and ``down`` [E,
    hidden, I] with this worker's I inner features of each."""

    def __init__(
        self,
        hidden: int,
        config: ExpertsConfig,
        *,
        activation: str,
        context: BuildContext,
        prefix: str,
    ) -> None:
        super().__init__()
        check_activation(activation)
        self.config = config
        self.hidden = hidden
        self.group = context.group
        self.inner = even_shard(config.intermediate, context.group, "an expert")
        count, inner = config.num_experts, self.inner.length
        dtype, device = context.dtype, context.device
        gate_up = torch.empty(count, 2 * inner, hidden, dtype=dtype, device=device)
        down = torch.empty(count, hidden, inner, dtype=dtype, device=device)
        self.gate_up = nn.Parameter(gate_up, requires_grad=False)
        self.down = nn.Parameter(down, requires_grad=False)
        self.gate_up_bias: Tensor | None = None
        self.down_bias: Tensor | None = None
        if config.bias:
            of_gate_up = torch.empty(count, 2 * inner, dtype=dtype, device=device)
            self.gate_up_bias = nn.Parameter(of_gate_up, requires_grad=False)
            of_down = torch.empty(count, hidden, dtype=dtype, device=device)
            self.down_bias = nn.Parameter(of_down, requires_grad=False)

    def slots(self, prefix: str) -> Iterator[tuple[str, Slot]]:
        whole_inner = self.inner.full
        for index in range(self.config.num_experts):
            gate, up = self.gate_up.data[index].chunk(2)
            down = self.down.data[index]
            for name, target, dim in (
                ("gate_proj", gate, 0),
                ("up_proj", up, 0),
                ("down_proj", down, 1),
            ):
                shape = (whole_inner, self.hidden) if dim == 0 else (self.hidden, whole_inner)

                def place(tensor: Tensor, target: Tensor = target, dim: int = dim) -> None:
                    target.copy_(self.inner.of(tensor, dim))

                yield f"{prefix}.{index}.{name}.weight", Slot(self, shape, place)
            yield from self._bias_slots(f"{prefix}.{index}", index)

    def _bias_slots(self, prefix: str, index: int) -> Iterator[tuple[str, Slot]]:
        if self.gate_up_bias is None or self.down_bias is None:
            return
        halves = self.gate_up_bias.data[index].chunk(2)
        for name, target in zip(("gate_proj", "up_proj"), halves, strict=True):

            def place(tensor: Tensor, target: Tensor = target) -> None:
                target.copy_(self.inner.of(tensor, 0))

            yield f"{prefix}.{name}.bias", Slot(self, (self.inner.full,), place)
        down = self.down_bias.data[index]
        yield f"{prefix}.down_proj.bias", Slot(self, (self.hidden,), down.copy_)

    def forward(self, x: Tensor, logits: Tensor) -> Tensor:
        """[T, hidden], [T, experts] -> [T, hidden]."""
        from jackfield.compute.kernels.experts import experts  # Triton: GPUs only

        mixed = experts(
            x,
            logits,
            self.gate_up,
            self.down,
            top_k=self.config.top_k,
            renormalize=self.config.renormalize,
            biases=summed_once(self.gate_up_bias, self.down_bias, self.group),
            clamp=self.config.clamp,
        )
        return self.group.all_reduce(mixed)


def experts_apart(name: str, stacked: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Each expert's part of ``stacked`` [E, outputs, ...] and its name, as views. ``name`` ends in
    ``down_proj``, or in ``gate_up_proj``, whose outputs are gate and up by turns."""
    prefix, _, projection = name.rpartition(".")
    parts = {projection: slice(None)}
    if projection == "gate_up_proj":
        parts = {"gate_proj": slice(0, None, 2), "up_proj": slice(1, None, 2)}
    for index, expert in enumerate(stacked):
        for part, outputs in parts.items():
            yield f"{prefix}.{index}.{part}", expert[outputs]


def summed_once(
    gate_up: Tensor | None, down: Tensor | None, group: TensorParallelGroup
) -> tuple[Tensor, Tensor | None] | None:
    """The biases that this worker's kernel adds: the workers' outputs are summed, and the last
    bias must be in the sum once."""
    if gate_up is None:
        return None
    return gate_up, down if group.rank == 0 else None
