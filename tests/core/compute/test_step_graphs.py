"""Where the launch of a captured step is cut into parts."""

from __future__ import annotations

import pytest
import torch
from tests.core.compute.paged_model import PlainAttention, PlainModel
from tests.core.compute.rows import CPU
from tests.core.compute.steps import Driver, ReplayedFunction, plan
from tests.core.compute.test_model_runner import greedy
from torch import nn

from jackfield.compute.step_graphs import cut_layers
from jackfield.contracts.attention import AttentionBatch


class Layered(nn.Module):
    """A list of layers, each with a list of its own."""

    def __init__(self, num_layers: int) -> None:
        super().__init__()
        self.heads = nn.ModuleList(nn.Identity() for _ in range(2))
        self.layers = nn.ModuleList(
            nn.ModuleList(nn.Identity() for _ in range(50)) for _ in range(num_layers)
        )


@pytest.mark.parametrize(
    ("num_layers", "places"), [(28, (2, 8)), (9, (2,)), (10, (2, 8)), (3, ()), (4, (2,)), (1, ())]
)
def test_parts_begin_at_early_layers_and_the_last_is_in_none_alone(
    num_layers: int, places: tuple[int, ...]
) -> None:
    model = Layered(num_layers)
    found = cut_layers(model)  # type: ignore[arg-type]
    assert [id(layer) for layer in found] == [id(model.layers[place]) for place in places]


def test_a_model_without_a_list_of_layers_is_launched_whole() -> None:
    assert cut_layers(PlainModel(PlainAttention(CPU, torch.float32, 16))) == ()


class LayeredModel(PlainModel, nn.Module):
    """The plain model behind a list of layers that do nothing."""

    def __init__(self, backend: PlainAttention) -> None:
        nn.Module.__init__(self)
        PlainModel.__init__(self, backend)
        self.layers = nn.ModuleList(nn.Identity() for _ in range(10))

    def forward(
        self, ids: torch.Tensor, positions: torch.Tensor, attention: AttentionBatch
    ) -> torch.Tensor:
        for layer in self.layers:
            layer(ids)
        return PlainModel.forward(self, ids, positions, attention)


def test_steps_with_prompts_are_cut_and_decodes_are_not() -> None:
    driver = Driver(recorder=(recorder := ReplayedFunction()), make_model=LayeredModel)
    assert recorder.num_cuts == 0
    request = driver.request(0, [5, 6, 7])
    driver.run([request], 1)
    # Recorded, and replayed by running it again.
    assert recorder.num_cuts == 2 * 2
    driver.run([request], 6)
    assert recorder.num_cuts == 2 * 2
    assert request.output == greedy(driver.model, [5, 6, 7], 6)
    assert isinstance(driver.model, LayeredModel)
    assert not any(layer._forward_pre_hooks for layer in driver.model.layers)


def test_what_comes_from_the_host_is_launched_whole() -> None:
    recorder = ReplayedFunction()
    driver = Driver(plan(cpu_offload_bytes=1), recorder, make_model=LayeredModel)
    driver.run([driver.request(0, [5, 6, 7])], 1)
    assert recorder.num_cuts == 0
