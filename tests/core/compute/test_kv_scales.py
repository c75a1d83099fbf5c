"""Scales of keys and values, whatever a checkpoint calls them, and none of them for the model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import Tensor

from jackfield.compute.kv_scales import ScalesAside
from jackfield.contracts.loading import CheckpointFiles

FILES = CheckpointFiles(Path(), {})
ATTENTION = "model.layers.11.self_attn"


class Tensors:
    """A load format that has these."""

    name: ClassVar[str] = "tensors"
    api_version: ClassVar[int] = 1

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._tensors = tensors

    def check(self, files: CheckpointFiles) -> None: ...

    def iter_weights(self, files: CheckpointFiles) -> Iterator[tuple[str, Tensor]]:
        yield from self._tensors.items()


@pytest.mark.parametrize(
    ("k", "v"),
    [
        ("k_scale", "v_scale"),
        ("attn.k_scale", "attn.v_scale"),
        ("k_proj.k_scale", "v_proj.v_scale"),
        ("k_proj.output_scale", "v_proj.output_scale"),
        ("qkv_proj.k_scale", "qkv_proj.v_scale"),
    ],
)
@pytest.mark.parametrize("shape", [(), (1,), (4, 1, 1)])
def test_a_scale_is_found_by_every_name(k: str, v: str, shape: tuple[int, ...]) -> None:
    heads = torch.arange(1.0, 1.0 + max(1, len(torch.zeros(shape).flatten()))).reshape(shape)
    tensors = {f"{ATTENTION}.{k}": heads, f"{ATTENTION}.{v}": 2 * heads}
    reader = ScalesAside(Tensors(tensors))
    assert list(reader.iter_weights(FILES)) == []
    assert reader.scales == {11: (float(heads.max()), float(2 * heads.max()))}


def test_one_scale_may_be_for_both() -> None:
    reader = ScalesAside(Tensors({f"{ATTENTION}.kv_scale": torch.tensor(0.25)}))
    assert list(reader.iter_weights(FILES)) == [] and reader.scales == {11: (0.25, 0.25)}


def test_half_a_pair_and_scales_of_nothing_count_as_none() -> None:
    tensors = {
        "model.layers.0.self_attn.k_scale": torch.tensor(1.0),
        "model.layers.1.self_attn.k_scale": torch.tensor(-1.0),
        "model.layers.1.self_attn.v_scale": torch.tensor(-1.0),
    }
    reader = ScalesAside(Tensors(tensors))
    assert list(reader.iter_weights(FILES)) == [] and reader.scales == {}


def test_what_belongs_to_weights_goes_to_the_model() -> None:
    names = [
        "q_proj.weight_scale",
        "k_proj.weight_scale",
        "k_proj.input_scale",
        "v_proj.weight_zero_point",
        "o_proj.output_scale",
        "k_proj.weight",
        "k_norm.weight",
    ]
    tensors = {f"{ATTENTION}.{name}": torch.ones(1) for name in names}
    unused = {f"{ATTENTION}.{name}": torch.ones(1) for name in ("q_scale", "prob_output_scale")}
    reader = ScalesAside(Tensors({**tensors, **unused}))
    assert [name for name, _ in reader.iter_weights(FILES)] == list(tensors)
    assert reader.scales == {}
