"""What the linear layers of a model are given on a text: the second moments of their inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from torch import Tensor, nn

Advance = Callable[[], object]


def collect_hessians(
    model: nn.Module,
    layers: Mapping[str, nn.Linear],
    samples: Sequence[Tensor],
    advance: Advance,
) -> dict[str, Tensor]:
    """The sum of x x^T over all inputs x of each layer, float32 [K, K]; layers that are given the
    same tensor share one. ``samples``: ids int64 [1, T], on the model's device."""
    moments = _Moments()
    with moments.watching(layers):
        for ids in samples:
            model(input_ids=ids, use_cache=False)
            advance()
    return moments.by_name()


def chunks(
    blocks: Sequence[Sequence[str]], layers: Mapping[str, nn.Linear], most_bytes: int
) -> Iterable[list[Sequence[str]]]:
    """The blocks in runs whose Hessians take at most ``most_bytes`` (or one block alone)."""
    run: list[Sequence[str]] = []
    size = 0
    for block in blocks:
        needed = sum(4 * layers[name].in_features ** 2 for name in block)
        if run and size + needed > most_bytes:
            yield run
            run, size = [], 0
        run.append(block)
        size += needed
    if run:
        yield run


class _Moments:
    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._shared: dict[str, str] = {}
        """By layer: the layer whose sum it has, itself or one with the same inputs."""
        self._last: tuple[Tensor, str] | None = None

    @contextmanager
    def watching(self, layers: Mapping[str, nn.Linear]) -> Iterator[None]:
        handles = [
            layer.register_forward_pre_hook(lambda _, given, name=name: self._add(name, given[0]))
            for name, layer in layers.items()
        ]
        try:
            yield
        finally:
            self._last = None
            for handle in handles:
                handle.remove()

    def by_name(self) -> dict[str, Tensor]:
        return {name: self._sums[owner] for name, owner in self._shared.items()}

    def _add(self, name: str, x: Tensor) -> None:
        if self._last is not None and self._last[0] is x:
            self._shared.setdefault(name, self._last[1])
            return
        self._last = (x, name)
        self._shared[name] = name
        rows = x.flatten(0, -2).float()
        product = rows.T @ rows
        if name in self._sums:
            self._sums[name] += product
        else:
            self._sums[name] = product
