"""CPU attention against float64, over steps as the engine makes them."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from tests.core.compute.attention.reference import SCALES, attend
from torch import Tensor

from jackfield.compute.attention import cpu
from jackfield.compute.attention.cpu import CpuAttention
from jackfield.compute.eight_bit_kv import KV_DTYPES, rounded
from jackfield.compute.native import kernels_for
from jackfield.compute.native.build import load_library
from jackfield.compute.native.library import _DEFINITIONS as DEFINITIONS
from jackfield.compute.native.library import Kernels
from jackfield.compute.native.prompts import PromptKernels
from jackfield.contracts.attention import AttentionBatch, AttentionSpec, KVLayer

TOLERANCE = {torch.float32: 5e-6, torch.bfloat16: 3e-2, torch.float16: 4e-3}
CPU = torch.device("cpu")

Lens = Sequence[tuple[int, int]]


MEANS = ["compiled", "compiled for prompts", "torch"]


@pytest.fixture(params=MEANS, autouse=True)
def means(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every law holds with the compiled kernels, those for prompts too, and without a compiler."""
    if request.param == "torch":
        monkeypatch.setattr(cpu, "kernels_for", lambda dtype: None)
        monkeypatch.setattr(cpu, "prompt_kernels_for", lambda dtype: None)
    elif kernels_for(torch.float32) is None:
        pytest.skip("no C compiler on this machine")
    elif request.param == "compiled for prompts":
        monkeypatch.setattr(cpu, "has_products", lambda dtype: False)


def spec(
    heads: int = 4,
    kv_heads: int = 2,
    head_dim: int = 64,
    window: int | None = None,
    cap: float | None = None,
) -> AttentionSpec:
    return AttentionSpec(0, heads, kv_heads, head_dim, head_dim**-0.5, window, cap)


class Pages:
    """Rows with scattered blocks and the keys and values that were written to them."""

    def __init__(
        self,
        backend: CpuAttention,
        of: AttentionSpec,
        lengths: Sequence[int],
        block_size: int,
        kv_dtype: torch.dtype | None = None,
    ) -> None:
        self.spec, self.block_size, self.backend = of, block_size, backend
        counts = [-(-n // block_size) for n in lengths]
        free = (torch.randperm(sum(counts)) + 1).tolist()
        self.table = torch.zeros((len(lengths) + 1, max(counts) + 1), dtype=torch.int32)
        for row, count in enumerate(counts):
            for j in range(count):
                self.table[row, j] = free.pop()
        shape = backend.kv_shape(sum(counts) + 1, of.num_kv_heads, of.head_dim)
        kv_dtype = kv_dtype or self.dtype
        nothing = [torch.full(shape, torch.nan).to(kv_dtype) for _ in range(2)]
        scales = torch.tensor(SCALES) if kv_dtype != self.dtype else None
        self.kv = KVLayer(*nothing, scales=scales)
        empty = torch.empty(0, of.num_kv_heads, of.head_dim, dtype=self.dtype)
        self.keys = [empty] * len(lengths)
        self.values = [empty] * len(lengths)

    @property
    def dtype(self) -> torch.dtype:
        return self.backend._dtype

    def batch(self, steps: Sequence[tuple[int, int]]) -> AttentionBatch:
        """steps: (row, new tokens), decodes first; row -1 is padding."""
        lens, positions, slots, starts = [], [], [], [0]
        for row, count in steps:
            before = len(self.keys[row]) if row >= 0 else 0
            at = torch.arange(before, before + count)
            block = self.table[row, at // self.block_size].long()
            lens.append((count, before + count if row >= 0 else 0))
            positions.append(at)
            slots.append(block * self.block_size + at % self.block_size)
            starts.append(starts[-1] + count)
        num_decodes = next((i for i, (_, n) in enumerate(steps) if n > 1), len(steps))
        return AttentionBatch(
            rows=torch.tensor([row % len(self.table) for row, _ in steps], dtype=torch.int32),
            query_starts=torch.tensor(starts, dtype=torch.int32),
            seq_lens=torch.tensor([kv for _, kv in lens], dtype=torch.int32),
            block_table=self.table,
            slots=torch.cat(slots),
            positions=torch.cat(positions),
            num_seqs=len(steps),
            num_tokens=starts[-1],
            num_decodes=num_decodes,
            max_query_len=max(n for n, _ in lens),
            max_seq_len=max(n for _, n in lens),
            fresh=all(n == kv for n, kv in lens[num_decodes:]),
            host_lens=tuple(lens),
        )

    def seen(self, x: Tensor, which: int) -> Tensor:
        """Keys (0) or values (1) as they are in the pages."""
        if self.kv.scales is None:
            return x
        scale = self.kv.scales[which]
        return rounded(x, scale, self.kv.key.dtype).float() * scale

    def step(
        self, steps: Sequence[tuple[int, int]], host_lens: bool = True
    ) -> tuple[Tensor, Tensor]:
        """Runs one step -> (the backend's output, float64's)."""
        batch = self.batch(steps)
        if not host_lens:
            batch = replace(batch, host_lens=None)
        total, dim = batch.num_tokens, self.spec.head_dim
        heads = self.spec.num_heads + 2 * self.spec.num_kv_heads
        packed = torch.randn(total, heads, dim).to(self.dtype)
        sizes = [self.spec.num_heads, self.spec.num_kv_heads, self.spec.num_kv_heads]
        q, k, v = torch.split(packed, sizes, dim=1)
        self.backend.write(k, v, self.kv, batch)
        out = self.backend.attend(q, k, v, self.kv, self.spec, batch)
        exact, first = [], 0
        for row, count in steps:
            here = slice(first, first + count)
            first += count
            if row < 0:
                exact.append(torch.zeros(count, *q.shape[1:], dtype=torch.float64))
                continue
            self.keys[row] = torch.cat((self.keys[row], self.seen(k[here], 0)))
            self.values[row] = torch.cat((self.values[row], self.seen(v[here], 1)))
            exact.append(attend(q[here], self.keys[row], self.values[row], self.spec))
        return out.double(), torch.cat(exact)


def assert_steps_are_exact(
    of: AttentionSpec,
    block_size: int,
    dtype: torch.dtype,
    steps: Sequence[Sequence[tuple[int, int]]],
    kv_dtype: torch.dtype | None = None,
) -> None:
    backend = CpuAttention(CPU, dtype, block_size)
    lengths: dict[int, int] = {}
    for step in steps:
        for row, count in step:
            lengths[row] = lengths.get(row, 0) + count
    whole = [lengths[r] for r in sorted(lengths) if r >= 0]
    pages = Pages(backend, of, whole, block_size, kv_dtype)
    for step in steps:
        out, exact = pages.step(step)
        tolerance = TOLERANCE[dtype]
        torch.testing.assert_close(out, exact, rtol=tolerance, atol=tolerance)


# Prompts of many lengths, a chunk behind a prefix beside decodes, then decodes alone.
STEPS = (
    ((0, 1), (1, 37), (2, 40), (3, 130), (4, 5)),
    ((0, 1), (1, 1), (3, 1), (2, 50), (5, 16), (4, 7)),
    ((5, 1), (0, 1), (4, 1), (1, 1), (2, 1), (3, 1)),
)


@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize("head_dim", [64, 80, 96, 128, 256])
@pytest.mark.parametrize(("heads", "kv_heads"), [(2, 2), (4, 2), (3, 1), (8, 1)])
def test_every_shape_of_head(heads: int, kv_heads: int, head_dim: int, dtype: torch.dtype) -> None:
    assert_steps_are_exact(spec(heads, kv_heads, head_dim), 16, dtype, STEPS)


@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize("block_size", [8, 16, 48, 128])
@pytest.mark.parametrize(("window", "cap"), [(1, None), (33, None), (64, 5.0), (None, 5.0)])
def test_every_block_size_window_and_cap(
    window: int | None, cap: float | None, block_size: int, dtype: torch.dtype
) -> None:
    assert_steps_are_exact(spec(window=window, cap=cap), block_size, dtype, STEPS)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="another kind of processor")
@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize("architecture", ["x86-64", "x86-64-v3"])
@pytest.mark.parametrize("means", MEANS[1:2], indirect=True)
def test_processors_with_smaller_vectors(
    architecture: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    if architecture == "x86-64-v3" and not torch.cpu._is_avx2_supported():
        pytest.skip("this processor has no AVX2")
    flags = (*DEFINITIONS[dtype], f"-march={architecture}")
    prompts = PromptKernels(load_library(flags, "attend_prompts"))
    monkeypatch.setattr(cpu, "prompt_kernels_for", lambda dtype: prompts)
    decodes = Kernels(load_library(flags))
    monkeypatch.setattr(cpu, "kernels_for", lambda dtype: decodes)
    for of in (spec(4, 2, 80), spec(3, 1, 256), spec(4, 2, 64, 33, 5.0)):
        assert_steps_are_exact(of, 16, dtype, STEPS)


@pytest.mark.parametrize("window", [None, 100])
def test_a_long_prompt_in_chunks_and_its_decodes(window: int | None) -> None:
    steps = (((0, 700),), ((0, 300),), ((0, 1),), ((0, 17),), ((0, 1),))
    assert_steps_are_exact(spec(8, 4, 128, window), 16, torch.float32, steps)


@pytest.mark.parametrize("kv_dtype", KV_DTYPES)
@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize(("head_dim", "window", "cap"), [(128, None, None), (80, 33, 5.0)])
def test_keys_and_values_of_8_bits(
    head_dim: int, window: int | None, cap: float | None, dtype: torch.dtype, kv_dtype: torch.dtype
) -> None:
    of = spec(4, 2, head_dim, window, cap)
    assert_steps_are_exact(of, 16, dtype, STEPS, kv_dtype)


@pytest.mark.parametrize("kv_dtype", KV_DTYPES)
@pytest.mark.parametrize("dtype", list(TOLERANCE))
def test_one_pass_writes_what_rotation_and_writing_do(
    dtype: torch.dtype, kv_dtype: torch.dtype
) -> None:
    """Rotated by nothing: what is rounded to 8 bits is the same, too large and no number too."""
    backend = CpuAttention(CPU, dtype, 16)
    of = spec(4, 2, 64)
    both = [Pages(backend, of, [40], 16, kv_dtype) for _ in range(2)]
    batch = both[0].batch(((0, 40),))
    qkv = (torch.randn(40, 8, 64) * 2.0 ** torch.randint(-14, 5, (40, 8, 64))).to(dtype)
    qkv[:4, 4:, 0] = torch.tensor([1e30, torch.nan, torch.inf, -torch.inf])[:, None].to(dtype)
    cos_sin = torch.cat([torch.ones(40, 32), torch.zeros(40, 32)], 1)
    # Zero times what is no number is none: dimension 32 turns with dimension 0.
    qkv[:4, 4:6, 32] = 0.0
    turn = (qkv.flatten(1), batch.positions, cos_sin, None, None, 0.0)
    backend.rotate_and_write(*turn, both[0].kv, of, batch)
    both[1].table.copy_(both[0].table)
    backend.write(qkv[:, 4:6], qkv[:, 6:], both[1].kv, batch)
    for one, other in ((both[0].kv.value, both[1].kv.value), (both[0].kv.key, both[1].kv.key)):
        there = (slice(None), both[0].table[0, :3].long())
        written = one.float()[there].flatten(1, 2)[:, :40]
        expected = other.float()[there].flatten(1, 2)[:, :40]
        # NaN has reached the dimension that it turns with.
        written[:, :4, 32] = expected[:, :4, 32]
        assert torch.equal(written, expected)
        assert written.abs().max() == torch.finfo(kv_dtype).max


def test_many_short_prompts_and_many_decodes_of_mixed_lengths() -> None:
    lengths = [int(n) for n in torch.randint(2, 90, (40,))]
    prompts = tuple(enumerate(lengths))
    decodes = tuple((row, 1) for row in torch.randperm(40).tolist())
    assert_steps_are_exact(spec(), 16, torch.float32, (prompts, decodes, decodes))


def test_a_row_that_pads_the_step_gets_zeros() -> None:
    steps = (((0, 1), (1, 20)), ((1, 1), (-1, 1), (0, 1), (-1, 1)))
    assert_steps_are_exact(spec(), 16, torch.float32, steps)


def test_lengths_are_taken_from_the_tensors_where_the_host_has_none() -> None:
    pages = Pages(CpuAttention(CPU, torch.float32, 16), spec(), [30, 50], 16)
    for step in (((0, 29), (1, 49)), ((1, 1), (0, 1))):
        out, exact = pages.step(step, host_lens=False)
        torch.testing.assert_close(out, exact, rtol=2e-6, atol=2e-6)
