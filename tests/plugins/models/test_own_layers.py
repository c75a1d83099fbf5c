"""Which layers of transformers' models may be replaced."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch import Tensor, nn

from jackfield_models.own_layers import Watch


class Reader(nn.Module):
    """Calls two layers, and reads the weight of one of them; its head is tied."""

    config = SimpleNamespace(tie_word_embeddings=True)

    def __init__(self) -> None:
        super().__init__()
        self.called = nn.Linear(4, 4)
        self.read = nn.Linear(4, 4)
        self.head = nn.Linear(4, 4)

    def get_output_embeddings(self) -> nn.Module:
        return self.head

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(self.read(self.called(x).to(self.read.weight.dtype)))
        return y


def test_layers_that_are_called_and_not_read_may_be_replaced() -> None:
    model, x = Reader(), torch.randn(3, 4)
    expected = model(x)
    with Watch(model) as replaceable:
        found = model(x)
    assert replaceable.linears == ["called"]
    assert torch.equal(found, expected)
    assert {type(layer) for layer in model.children()} == {nn.Linear}
