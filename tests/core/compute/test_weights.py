"""Every checkpoint tensor to its place, once; and what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from tests.paged_steps import context
from torch import Tensor, nn

from jackfield.compute.layers.coded_linear import Ordered
from jackfield.compute.layers.coded_weight import CodedWeight
from jackfield.compute.layers.embedding import LMHead, VocabParallelEmbedding
from jackfield.compute.layers.linear import MergedColumnParallelLinear, RowParallelLinear
from jackfield.compute.layers.norm import RMSNorm
from jackfield.compute.weights import keep_or_copy, load_weights, move_weights, weight_shapes
from jackfield.errors import CheckpointError


class Small(nn.Module):
    """One layer of each sort; the head is tied."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        ctx = context(dtype=dtype)
        self.embed = VocabParallelEmbedding(12, 8, context=ctx)
        self.norm = RMSNorm(8, eps=1e-6, context=ctx)
        self.up = MergedColumnParallelLinear(8, {"a": 4, "b": 6}, context=ctx, prefix="up")
        self.down = RowParallelLinear(10, 8, context=ctx, prefix="down")
        self.head = LMHead(12, 8, context=ctx, prefix="head", tied=self.embed)


def tensors() -> dict[str, Tensor]:
    return {name: torch.randn(shape) for name, shape in weight_shapes(Small()).items()}


def test_a_fused_layer_wants_the_tensors_that_the_checkpoint_has() -> None:
    assert weight_shapes(Small()) == {
        "embed.weight": (12, 8),
        "norm.weight": (8,),
        "a.weight": (4, 8),
        "b.weight": (6, 8),
        "down.weight": (8, 10),
    }


def test_loaded_layers_compute_with_the_checkpoints_values() -> None:
    weights, model = tensors(), Small()
    load_weights(model, weights.items())
    x = torch.randn(3, 8)
    expected = torch.cat([x @ weights["a.weight"].T, x @ weights["b.weight"].T], -1)
    torch.testing.assert_close(model.up(x), expected)
    torch.testing.assert_close(model.head(x), x @ weights["embed.weight"].T)


def test_a_layer_is_finished_as_soon_as_its_last_tensor_is_in() -> None:
    weights, model = tensors(), Small()
    finished: list[str] = []
    for name in ("up", "down", "head"):
        layer = model.get_submodule(name)
        layer.finish_loading = lambda name=name: finished.append(name)  # type: ignore[assignment]
    seen: dict[str, list[str]] = {}

    def stream() -> Iterator[tuple[str, Tensor]]:
        for name in ("a.weight", "embed.weight", "b.weight", "norm.weight", "down.weight"):
            seen[name] = list(finished)
            yield name, weights[name]

    load_weights(model, stream())
    assert seen["b.weight"] == ["head"]  # the head goes with the embedding
    assert seen["norm.weight"] == ["head", "up"]
    assert finished == ["head", "up", "down"]


def test_on_the_cpu_a_whole_tensor_of_the_same_dtype_is_kept_and_not_copied() -> None:
    weights, model = tensors(), Small()
    load_weights(model, weights.items())
    assert model.embed.weight.data_ptr() == weights["embed.weight"].data_ptr()
    other = Small(torch.bfloat16)
    load_weights(other, weights.items())
    assert other.embed.weight.dtype == torch.bfloat16
    assert torch.equal(other.embed.weight, weights["embed.weight"].bfloat16())


@torch.inference_mode()
def test_a_tensor_that_another_thread_made_can_be_multiplied() -> None:
    # Inference mode is a thread's own; oneDNN asks for the version of a weight without it.
    with ThreadPoolExecutor() as threads:
        weight = threads.submit(lambda: torch.ones(96, 24, dtype=torch.bfloat16)).result()
    parameter = nn.Parameter(torch.empty(96, 24, dtype=torch.bfloat16), requires_grad=False)
    keep_or_copy(parameter, weight)
    x = torch.ones(12, 24, dtype=torch.bfloat16)
    assert torch.equal(nn.functional.linear(x, parameter), torch.full((12, 96), 24.0).bfloat16())
    assert parameter.data_ptr() == weight.data_ptr()


def test_codes_move_with_the_other_weights() -> None:
    layer = nn.Module()
    codes = CodedWeight.pack(torch.ones(10, 8, dtype=torch.int8), torch.ones(10, 1), bits=8)
    layer.__dict__["coded"] = Ordered(codes, torch.arange(8))
    move_weights(layer, torch.device("meta"))
    moved = layer.__dict__["coded"]
    places = (moved.order, moved.weight.packed, moved.weight.scales)
    assert {tensor.device.type for tensor in places} == {"meta"}
    assert (moved.weight.bits, moved.weight.shifts) == (8, None)


def test_a_missing_tensor_is_named() -> None:
    weights = tensors()
    del weights["b.weight"]
    with pytest.raises(CheckpointError, match=r"lacks b\.weight"):
        load_weights(Small(), weights.items())


def test_an_unknown_tensor_is_named_unless_it_is_ignorable() -> None:
    weights = tensors() | {"rotary.inv_freq": torch.ones(2)}
    with pytest.raises(CheckpointError, match=r"Small has no place .* rotary\.inv_freq"):
        load_weights(Small(), weights.items())
    load_weights(Small(), weights.items(), ignorable=(r"inv_freq$",))


def test_a_bias_without_a_place_passes_if_it_adds_nothing() -> None:
    load_weights(Small(), (tensors() | {"a.bias": torch.zeros(4)}).items())
    with pytest.raises(CheckpointError, match=r"no place .* a\.bias"):
        load_weights(Small(), (tensors() | {"a.bias": torch.ones(4)}).items())


def test_a_tensor_that_comes_twice_is_named() -> None:
    with pytest.raises(CheckpointError, match=r"norm\.weight twice"):
        load_weights(Small(), [("norm.weight", torch.ones(8))] * 2)


def test_a_tensor_of_another_shape_is_named_with_both_shapes() -> None:
    weights = tensors() | {"a.weight": torch.ones(5, 8)}
    with pytest.raises(CheckpointError, match=r"a\.weight has the shape \[5, 8\].*\[4, 8\]"):
        load_weights(Small(), weights.items())
