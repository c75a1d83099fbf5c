"""Kernels that are called again: on new numbers, in memory of their own, or not at all."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from jackfield.compute.native import (
    WHOLE_ROW,
    Codes,
    Kernels,
    code_kernels_for,
    kernels_for,
)
from jackfield.compute.native.recording import Arena, NotRecordable, Recording

KERNELS = kernels_for(torch.bfloat16)
pytestmark = pytest.mark.skipif(KERNELS is None, reason="no C compiler on this machine")
WIDTH = 96


def kernels() -> Kernels:
    assert KERNELS is not None
    return KERNELS


class Stack:
    """Products with a residual that is changed in place, as a decoder has them."""

    def __init__(self, depth: int) -> None:
        self.weights = [torch.randn(WIDTH, WIDTH).bfloat16() / 8 for _ in range(depth)]
        self.norm = torch.rand(WIDTH).bfloat16()

    def __call__(self, x: Tensor) -> Tensor:
        residual = kernels().rms_norm(x, self.norm, 1e-6)
        y = kernels().linear(x, self.weights[0], None)
        for weight in self.weights[1:]:
            y, residual = kernels().add_rms_norm(y, residual, self.norm, 1e-6)
            y = kernels().linear(y.view(-1, WIDTH), weight, None)
        return y


def numbers(rows: int = 3) -> Tensor:
    return torch.randn(rows, WIDTH).bfloat16()


@torch.inference_mode()
def test_a_replay_is_the_function_of_what_is_there_now() -> None:
    x, stack = numbers(), Stack(5)
    recording = Recording(Arena(), lambda: stack(x))
    assert recording.result is not None
    assert torch.equal(recording.result, stack(x))
    for _ in range(3):
        x.copy_(numbers())
        assert torch.equal(recording.replay(), stack(x))


@torch.inference_mode()
def test_recordings_share_an_arena_that_grows() -> None:
    arena, stack = Arena(), Stack(4)
    few, many = numbers(2), numbers(50)
    short = Recording(arena, lambda: stack(few))
    assert torch.equal(short.replay(), stack(few))
    long = Recording(arena, lambda: stack(many))
    assert torch.equal(long.replay(), stack(many))
    assert torch.equal(short.replay(), stack(few))


@torch.inference_mode()
def test_memory_is_used_again_where_it_is_free() -> None:
    x, stack, arena = numbers(16), Stack(40), Arena()
    recording = Recording(arena, lambda: stack(x))
    assert torch.equal(recording.replay(), stack(x))
    assert len(arena.reserve(0)) < 8 * x.nbytes


@torch.inference_mode()
def test_products_by_codes_are_called_again_too() -> None:
    by_codes = code_kernels_for(torch.bfloat16)
    assert by_codes is not None
    codes = torch.randint(256, (128, 64), dtype=torch.uint8)
    weight = Codes(codes, None, torch.rand(128, 1), None, (128, 64), WHOLE_ROW, 8)
    x = torch.randn(3, 64).bfloat16()
    recording = Recording(Arena(), lambda: by_codes.multiply(x, weight))
    for _ in range(2):
        x.copy_(torch.randn(3, 64))
        assert torch.equal(recording.replay(), by_codes.multiply(x, weight))


@torch.inference_mode()
@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda stack, x: stack(x) + 1, "aten::add"),
        (lambda stack, x: stack(x.flip(0)), "aten::flip"),
        (lambda stack, x: stack(x).t(), "result"),
        (lambda stack, x: x.new_empty(3, 4), "result"),
    ],
)
def test_what_is_no_kernel_is_refused(
    function: Callable[[Stack, Tensor], Tensor], reason: str
) -> None:
    x, stack = numbers(), Stack(2)
    with pytest.raises(NotRecordable, match=reason):
        Recording(Arena(), lambda: function(stack, x))
    assert torch.isfinite(stack(x)).all()


@torch.inference_mode()
def test_rows_are_looked_up_and_an_id_that_is_none_is_an_error() -> None:
    weight, ids = numbers(70), torch.tensor([3, 69, 0, 3])
    assert torch.equal(kernels().look_up(ids, weight), weight[ids])
    for wrong in (-1, 70):
        with pytest.raises(IndexError, match="70"):
            kernels().look_up(torch.tensor([1, wrong]), weight)


IMPORTS = """
import sys, torch
from jackfield.compute.native import kernels_for
from jackfield.compute.native.recording import Arena, Recording
kernels, x = kernels_for(torch.bfloat16), torch.ones(2, 32).bfloat16()
with torch.inference_mode():
    Recording(Arena(), lambda: kernels.linear(x, x, None)).replay()
assert not {"torch._dynamo", "sympy", "triton"} & set(sys.modules)
"""


def test_recording_does_not_import_the_compiler() -> None:
    """Requests would wait for it, for seconds."""
    subprocess.run([sys.executable, "-c", IMPORTS], check=True)
