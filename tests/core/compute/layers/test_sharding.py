"""Tensor parallelism: both ranks of a group of two, in one process, against one worker."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import ClassVar

import pytest
import torch
from tests.paged_steps import context
from torch import Tensor, nn

from jackfield.compute.layers.embedding import LMHead, VocabParallelEmbedding
from jackfield.compute.layers.linear import (
    ColumnParallelLinear,
    MergedColumnParallelLinear,
    QKVParallelLinear,
    RowParallelLinear,
    ShardedLinear,
)
from jackfield.compute.weights import load_weights, weight_shapes
from jackfield.contracts.model import BuildContext, TensorParallelGroup
from jackfield.errors import ConfigError


class Alone(TensorParallelGroup):
    """A rank whose collective operations leave its own part as it is."""

    def all_reduce(self, x: Tensor) -> Tensor:
        return x

    def all_gather_last(self, x: Tensor) -> Tensor:
        return x


def contexts() -> list[BuildContext]:
    """One worker, then the two of a group."""
    one = context()
    return [one, *(replace(one, group=Alone(rank, 2)) for rank in range(2))]


class Holder(nn.Module):
    """Gives the layer a name as a model would."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer


def loaded(make: Callable[[BuildContext], nn.Module]) -> list[nn.Module]:
    """The layer of one worker, of rank 0 and of rank 1, with the same random weights."""
    holders = [Holder(make(ctx)) for ctx in contexts()]
    shapes = [weight_shapes(holder) for holder in holders]
    assert shapes[0] == shapes[1] == shapes[2]
    generator = torch.Generator().manual_seed(0)
    weights = {n: torch.randn(shape, generator=generator) for n, shape in shapes[0].items()}
    for holder in holders:
        load_weights(holder, ((name, tensor.clone()) for name, tensor in weights.items()))
    return [holder.layer for holder in holders]


@pytest.mark.parametrize("bias", [False, True])
def test_columns_of_both_ranks_joined_are_the_whole(bias: bool) -> None:
    one, left, right = loaded(
        lambda ctx: ColumnParallelLinear(24, 10, bias=bias, context=ctx, prefix="layer")
    )
    x = torch.randn(5, 24)
    torch.testing.assert_close(torch.cat([left(x), right(x)], -1), one(x))


def test_merged_columns_of_both_ranks_joined_part_by_part_are_the_whole() -> None:
    one, left, right = loaded(
        lambda ctx: MergedColumnParallelLinear(
            16, {"gate_proj": 6, "up_proj": 8}, bias=True, context=ctx, prefix="layer"
        )
    )
    x = torch.randn(5, 16)
    (gate0, up0), (gate1, up1) = left(x).split([3, 4], -1), right(x).split([3, 4], -1)
    torch.testing.assert_close(torch.cat([gate0, gate1, up0, up1], -1), one(x))


@pytest.mark.parametrize("num_kv_heads", [1, 2, 4])
def test_heads_of_both_ranks_joined_are_the_whole_and_few_kv_heads_are_repeated(
    num_kv_heads: int,
) -> None:
    one, left, right = loaded(
        lambda ctx: QKVParallelLinear(
            16, 8, 4, num_kv_heads, bias=True, context=ctx, prefix="layer"
        )
    )
    x = torch.randn(5, 16)
    own = max(1, num_kv_heads // 2)
    parts = [layer(x).split([2 * 8, own * 8, own * 8], -1) for layer in (left, right)]
    if num_kv_heads == 1:
        assert torch.equal(parts[0][1], parts[1][1]) and torch.equal(parts[0][2], parts[1][2])
        whole = torch.cat([parts[0][0], parts[1][0], parts[0][1], parts[0][2]], -1)
    else:
        whole = torch.cat([parts[rank][part] for part in range(3) for rank in range(2)], -1)
    torch.testing.assert_close(whole, one(x))


@pytest.mark.parametrize("bias", [False, True])
def test_rows_of_both_ranks_summed_are_the_whole(bias: bool) -> None:
    one, left, right = loaded(
        lambda ctx: RowParallelLinear(24, 10, bias=bias, context=ctx, prefix="layer")
    )
    x = torch.randn(5, 24)
    torch.testing.assert_close(left(x[:, :12]) + right(x[:, 12:]), one(x), atol=1e-5, rtol=1e-5)


def test_embeddings_of_both_ranks_summed_are_the_whole_for_an_odd_vocabulary() -> None:
    one, left, right = loaded(lambda ctx: VocabParallelEmbedding(33, 8, context=ctx))
    ids = torch.arange(33)
    assert torch.equal(left(ids) + right(ids), one(ids))


def test_logits_of_both_ranks_joined_are_the_whole_and_the_padding_is_cut() -> None:
    one, left, right = loaded(lambda ctx: LMHead(33, 8, context=ctx, prefix="layer"))
    x = torch.randn(5, 8)
    joined = torch.cat([left(x), right(x)], -1)
    assert joined.shape[1] == 34
    torch.testing.assert_close(joined[:, :33], one(x))


def test_a_shard_of_packed_entries_is_cut_where_its_features_are() -> None:
    class Packed:
        """Eight inputs an entry, and a scale for each group of four inputs."""

        def create_weights(
            self, layer: nn.Module, dtype: torch.dtype, device: torch.device
        ) -> None:
            outputs, inputs = layer.out_features, layer.in_features
            assert isinstance(outputs, int) and isinstance(inputs, int)
            packed = nn.Parameter(torch.empty(inputs // 8, outputs), requires_grad=False)
            packed.input_dim, packed.output_dim = 0, 1  # type: ignore[attr-defined]
            layer.register_parameter("packed", packed)
            scales = nn.Parameter(torch.empty(outputs, inputs // 4), requires_grad=False)
            layer.register_parameter("scales", scales)

        def process_weights_after_loading(self, layer: nn.Module) -> None:
            return None

        def apply(self, layer: nn.Module, x: Tensor, bias: Tensor | None) -> Tensor:
            return x

    class Quantization:
        name: ClassVar[str] = "packed"
        api_version: ClassVar[int] = 1

        def __init__(self, config: object) -> None:
            return None

        def linear_method(self, prefix: str) -> Packed:
            return Packed()

    def layer(ctx: BuildContext) -> ShardedLinear:
        quantized = replace(ctx, quantization=Quantization(None))
        return RowParallelLinear(32, 6, context=quantized, prefix="layer")

    one, left, right = loaded(layer)
    for name, dim in (("packed", 0), ("scales", 1)):
        parts = (left.get_parameter(name), right.get_parameter(name))
        assert torch.equal(torch.cat(parts, dim), one.get_parameter(name))


@pytest.mark.parametrize(
    "build",
    [
        lambda ctx: ColumnParallelLinear(8, 7, context=ctx, prefix="layer"),
        lambda ctx: QKVParallelLinear(8, 4, 3, 1, context=ctx, prefix="layer"),
    ],
)
def test_what_cannot_be_shared_evenly_is_refused(
    build: Callable[[BuildContext], nn.Module],
) -> None:
    with pytest.raises(ConfigError, match="tensor-parallel-size"):
        build(contexts()[1])
