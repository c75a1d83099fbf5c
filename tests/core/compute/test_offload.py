"""Layers in the host's memory compute what they do on the device, whatever is in their slots."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from jackfield.compute.offload import Offload, spread, tensors_of
from jackfield.errors import ConfigError

CPU = torch.device("cpu")
WIDTH = 64
LAYER_BYTES = 4 * WIDTH * WIDTH * 2


class Late:
    """Streams of a device whose copies happen when they are waited for, and not before. What a slot
    holds until then is NaN."""

    def __init__(self) -> None:
        self.queue: list[tuple[Tensor, Tensor]] = []
        self.num_copies = 0
        self.most_waiting = 0

    def host_buffer(self, num_bytes: int) -> Tensor:
        return torch.empty(num_bytes, dtype=torch.uint8)

    def on_device(self, host: Tensor) -> Tensor:
        return host

    def fork(self) -> None: ...

    def copy(self, source: Tensor, target: Tensor) -> None:
        target.fill_(255)
        self.queue.append((source, target))
        self.most_waiting = max(self.most_waiting, len(self.queue))

    def mark(self) -> Callable[[], None]:
        mine = list(self.queue)

        def arrive() -> None:
            for source, target in mine:
                if any(source is waiting for waiting, _ in self.queue):
                    target.copy_(source)
                    self.num_copies += 1
            self.queue = [pair for pair in self.queue if not any(pair[0] is s for s, _ in mine)]

        return arrive


@dataclass(frozen=True)
class Codes:
    numbers: Tensor
    scale: Tensor | None = None


class Layer(nn.Module):
    """One weight as a parameter, one in a dataclass, and a small one that stays."""

    def __init__(self) -> None:
        super().__init__()
        made = torch.empty((WIDTH, WIDTH), dtype=torch.float32, device=CPU)
        self.weight = nn.Parameter(made, requires_grad=False)
        self.bias = nn.Parameter(torch.empty(WIDTH), requires_grad=False)
        self.__dict__["coded"] = Codes(torch.empty((WIDTH, WIDTH), dtype=torch.float32, device=CPU))

    def forward(self, x: Tensor) -> Tensor:
        codes: Codes = self.__dict__["coded"]
        return torch.tanh(x @ self.weight + self.bias) @ codes.numbers


class Model(nn.Module):
    def __init__(self, num_layers: int, offload: Offload | None = None) -> None:
        super().__init__()
        made = []
        for index in range(num_layers):
            if offload is None:
                made.append(Layer())
            else:
                with offload.placing(index):
                    made.append(Layer())
        self.layers = nn.ModuleList(made)

    def load(self) -> None:
        generator = torch.Generator().manual_seed(0)
        for tensor in tensors_of(self):
            tensor.copy_(torch.randn(tensor.shape, generator=generator) / WIDTH**0.5)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


@pytest.mark.parametrize("placed", [False, True])
@pytest.mark.parametrize(("num_layers", "budget"), [(9, 1), (9, 3), (12, 9), (4, 1)])
@torch.inference_mode()
def test_steps_are_those_of_a_model_that_is_all_there(
    num_layers: int, budget: int, placed: bool
) -> None:
    plain = Model(num_layers)
    plain.load()
    streams = Late()
    offload = Offload(budget * LAYER_BYTES, num_layers, streams, CPU, least_bytes=1024)
    model = Model(num_layers, offload if placed else None)
    model.load()
    told = offload.install(model)
    assert told.startswith(f"{budget + 2} of {num_layers} layers in the host's memory")
    for _ in range(3):
        x = torch.randn(5, WIDTH)
        assert torch.equal(model(x), plain(x))
    assert not streams.queue
    assert streams.num_copies == 3 * 2 * (budget + 2)
    # Two layers are on their way while others are computed.
    assert streams.most_waiting == 2 * 2


@torch.inference_mode()
def test_slots_are_all_that_is_left_of_the_layers_on_the_device() -> None:
    offload = Offload(4 * LAYER_BYTES, 10, Late(), CPU, least_bytes=1024)
    model = Model(10, offload)
    model.load()
    offload.install(model)
    storages = [tensor.untyped_storage() for tensor in tensors_of(model)]
    places = {storage.data_ptr(): storage.nbytes() for storage in storages}
    whole = sum(t.nbytes for t in tensors_of(Model(10)))
    assert whole - sum(places.values()) >= 4 * LAYER_BYTES - 2 * 64 * 512


def test_layers_are_spread_and_the_first_one_stays() -> None:
    assert spread(4 * 100, 100, 37) == (4, 10, 16, 22, 28, 34)
    assert spread(1, 100, 9) == (2, 5, 7)
    for budget, num_layers in ((1, 4), (10, 20), (3000, 36)):
        found = spread(budget, 100, num_layers)
        assert len(set(found)) == len(found) == -(-budget // 100) + 2
        assert found[0] >= 1 and found[-1] < num_layers


def test_more_than_the_layers_have_is_refused_with_the_most_there_is() -> None:
    with pytest.raises(ConfigError, match=r"--cpu-offload-gb 20 is more .* at most 5\.00"):
        spread(20 << 30, 1 << 30, 8)


def test_a_model_without_layers_is_refused() -> None:
    with pytest.raises(ConfigError, match="Linear has no list of layers"):
        Offload(1, 1, Late(), CPU).install(nn.Linear(2, 2))
