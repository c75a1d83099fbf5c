from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from jackfield.compute import weight_uploads
from jackfield.compute.weight_uploads import uploaded

CPU = torch.device("cpu")
DEVICES = [CPU, *([torch.device("cuda")] if torch.cuda.is_available() else [])]


def tensors(count: int) -> list[tuple[str, Tensor]]:
    torch.manual_seed(0)
    dtypes = (torch.float32, torch.bfloat16, torch.int8)
    shapes = ((3, 5), (1000,), (70, 70), ())
    return [(f"t{i}", (torch.randn(shapes[i % 4]) * 100).to(dtypes[i % 3])) for i in range(count)]


@pytest.mark.parametrize("device", DEVICES, ids=str)
def test_every_tensor_arrives_as_it_was_and_in_order(
    device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weight_uploads, "_BUFFER_BYTES", 1 << 10)  # most need several
    given = tensors(200)
    got = list(uploaded(given, device))
    assert [name for name, _ in got] == [name for name, _ in given]
    for (_, sent), (_, arrived) in zip(given, got, strict=True):
        assert arrived.device.type == device.type and arrived.dtype == sent.dtype
        assert torch.equal(arrived.cpu(), sent)
        assert arrived.cpu().data_ptr() != sent.data_ptr()


def test_a_tensor_that_is_a_view_arrives_in_its_own_order() -> None:
    sent = torch.arange(12.0).view(3, 4).T
    ((_, arrived),) = uploaded([("t", sent)], CPU)
    assert torch.equal(arrived, sent)


def test_no_more_is_ahead_than_the_bound_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weight_uploads, "_AHEAD_BYTES", 10_000)
    read = 0

    def weights() -> Iterator[tuple[str, Tensor]]:
        nonlocal read
        for i in range(100):
            read += 1
            yield f"t{i}", torch.zeros(1000)

    for taken, _ in enumerate(uploaded(weights(), CPU)):
        assert read - taken <= 10_000 // 4000 + 1


def test_an_error_of_the_reader_comes_through_and_threads_end() -> None:
    def weights() -> Iterator[tuple[str, Tensor]]:
        yield from tensors(3)
        raise ValueError("shard 2 is damaged")

    before = threading.active_count()
    with pytest.raises(ValueError, match="shard 2 is damaged"):
        list(uploaded(weights(), CPU))
    assert threading.active_count() == before


def test_whoever_stops_early_leaves_no_thread() -> None:
    before = threading.active_count()
    stream = iter(uploaded(tensors(100), CPU))
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before
