"""Blocks that went to the host's memory come back as they were, wherever they come back to."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from jackfield.compute import host_kv
from jackfield.compute.attention.cpu import CpuAttention
from jackfield.compute.host_kv import HostKV
from jackfield.compute.transfer import Uploads
from jackfield.contracts.attention import KVLayer
from jackfield.contracts.work import BlockSwaps, Int32Array

CPU = torch.device("cpu")


def blocks_first(num_blocks: int, heads: int = 2) -> tuple[int, ...]:
    return (num_blocks, heads, 4, 8)


def pairs(*values: tuple[int, int]) -> Int32Array:
    return np.array(values, dtype=np.int32).reshape(-1, 2)


@pytest.mark.parametrize("chunk_bytes", [1, 64 << 20])
def test_out_and_back_keeps_every_layer(chunk_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_kv, "_CHUNK_BYTES", chunk_bytes)
    # A layer with blocks first, one with fewer heads, and one with heads first.
    heads_first = CpuAttention(CPU, torch.bfloat16, 16).kv_shape(10, 3, 8)
    layers = tuple(
        KVLayer(torch.randn(shape).bfloat16(), torch.randn(shape).bfloat16())
        for shape in (blocks_first(10), blocks_first(10, heads=1), heads_first)
    )
    before = [KVLayer(layer.key.clone(), layer.value.clone()) for layer in layers]
    kv = HostKV(layers, (0, 0, 1), 5, Uploads(CPU))
    kv.swap(BlockSwaps(pairs((2, 0), (7, 4), (3, 1)), pairs()))
    for layer in layers:
        layer.key.zero_()
        layer.value.zero_()
    kv.swap(BlockSwaps(pairs(), pairs((4, 1), (0, 9), (1, 5))))
    for layer, old, dim in zip(layers, before, (0, 0, 1), strict=True):
        for new, was in ((layer.key, old.key), (layer.value, old.value)):
            for block, source in ((1, 7), (9, 2), (5, 3)):
                assert torch.equal(new.select(dim, block), was.select(dim, source))
            assert not new.select(dim, 2).any() and not new.select(dim, 8).any()


def test_what_goes_out_goes_before_what_comes_back() -> None:
    layer = KVLayer(torch.randn(blocks_first(4)), torch.randn(blocks_first(4)))
    first, second = layer.key[1].clone(), layer.key[2].clone()
    kv = HostKV((layer,), (0,), 2, Uploads(CPU))
    kv.swap(BlockSwaps(pairs((1, 0)), pairs()))
    # Block 1 becomes what block 2 was, and 2 what 1 was.
    kv.swap(BlockSwaps(pairs((2, 1)), pairs((1, 1), (0, 2))))
    assert torch.equal(layer.key[1], second) and torch.equal(layer.key[2], first)


def test_blocks_of_8_bits_come_back_bit_by_bit() -> None:
    bits = torch.randint(0, 256, (2, *blocks_first(4)), dtype=torch.uint8)
    layer = KVLayer(*bits.clone().view(torch.float8_e4m3fn), scales=torch.ones(2))
    kv = HostKV((layer,), (0,), 2, Uploads(CPU))
    kv.swap(BlockSwaps(pairs((1, 0)), pairs((0, 3))))
    for new, was in zip((layer.key, layer.value), bits, strict=True):
        assert torch.equal(new.view(torch.uint8)[3], was[1])
        assert torch.equal(new.view(torch.uint8)[:3], was[:3])
