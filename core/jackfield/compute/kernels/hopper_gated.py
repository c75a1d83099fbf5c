"""SiLU of the gate times the up projection for many rows: one product, as Hopper wants it.

Copies and products are on warps of their own. One warp brings tiles of the weight and of x to
shared memory; three groups of four warps multiply 64 rows of the weight each with all rows of x in
the tile. What limits such a product is what goes from the L2 cache to the processors, which is
least for the largest tiles; three groups make tiles that no power of two gives, 192 rows of the
weight by 256 of x, or by 128. Programs stay for several tiles: the next one's
numbers are on their way while one is written, by copies too. Written in Gluon; the interpreter
does not run it, so that it is checked on a GPU only.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    tma,
    warpgroup_mma,
    warpgroup_mma_wait,
)
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from jackfield.compute.kernels.hopper_tiles import described, described_gated
from jackfield.compute.kernels.launch import cdiv, num_processors, quick

_GROUPS = gl.constexpr(3)
_GROUP_ROWS = 64
_BLOCK_K = 64
_CHUNK = 64
"""Rows of x whose outputs are written at once."""
_BAND = 8
"""Tiles of x that go through the weight one beside the other, so that they stay in the L2 cache."""
_GROUP_REGISTERS, _LOADER_REGISTERS = 160, 32

MIN_ELEMENTS = 6 << 20
"""Of a weight: nothing was measured with smaller ones."""
MIN_ROWS = 65


@dataclass(frozen=True, slots=True)
class GatedConfig:
    """A tile's rows of x, and tiles in shared memory."""

    block_m: int
    stages: int


def gated_config(m: int, k: int) -> GatedConfig:
    """What measured best on an H200, or within 1 % of that: larger tiles where there are enough of
    them, and each takes so long that it matters little how it begins and ends."""
    return GatedConfig(256, 3) if m >= 2048 and k > 2048 else GatedConfig(128, 5)


@gluon.jit
def _tile(number, num_m, num_n, BAND: gl.constexpr):
    # (Tile of x, tile of the weight): bands of x, each through all of the weight.
    first = number // (BAND * num_n) * BAND
    inside = number % (BAND * num_n)
    size = gl.minimum(num_m - first, BAND)
    return first + inside % size, inside // size


@gluon.jit
def _copy_weight(weight, n, k, ready, w_tiles, stage):
    GROUPS: gl.constexpr = _GROUPS
    for g in gl.static_range(GROUPS):
        place = [(n * GROUPS + g) * 4, 0, 0, k]
        tile = w_tiles.index(stage * GROUPS + g)
        tma.async_copy_global_to_shared(weight, place, ready.index(stage), tile)


@gluon.jit
def _load(source, tiles, BAND: gl.constexpr):
    x, weight, num_m, num_n, steps = source
    w_tiles, x_tiles, ready, free = tiles
    STAGES: gl.constexpr = x_tiles.shape[0]
    BLOCK_M: gl.constexpr = x_tiles.shape[1]
    BLOCK_K: gl.constexpr = x_tiles.shape[2]
    BYTES: gl.constexpr = (BLOCK_M + _GROUPS * 64) * BLOCK_K * 2
    # The weight is nobody's output: as much of it as there is room for comes before x is there.
    m, n = _tile(gl.program_id(0), num_m, num_n, BAND)
    for s in gl.static_range(STAGES):
        if s < steps:
            mbarrier.expect(ready.index(s), BYTES)
            _copy_weight(weight, n, s * BLOCK_K, ready, w_tiles, s)
    gdc_wait()
    for s in gl.static_range(STAGES):
        if s < steps:
            place = [m * BLOCK_M, s * BLOCK_K]
            tma.async_copy_global_to_shared(x, place, ready.index(s), x_tiles.index(s))
    asked = gl.minimum(steps, STAGES)
    done = 0
    for number in range(gl.program_id(0), num_m * num_n, gl.num_programs(0)):
        m, n = _tile(number, num_m, num_n, BAND)
        for i in range(gl.maximum(asked - done, 0), steps):
            stage = (done + i) % STAGES
            mbarrier.wait(free.index(stage), ((done + i) // STAGES & 1) ^ 1)
            mbarrier.expect(ready.index(stage), BYTES)
            _copy_weight(weight, n, i * BLOCK_K, ready, w_tiles, stage)
            place = [m * BLOCK_M, i * BLOCK_K]
            tma.async_copy_global_to_shared(x, place, ready.index(stage), x_tiles.index(stage))
        done += steps


@gluon.jit
def _write(acc, out, n, m, out_tiles, GROUP: gl.constexpr, FIRST: gl.constexpr):
    # What is made of sums [64, M] of a group's rows of the weight and rows m + FIRST .. of x.
    CHUNK: gl.constexpr = out_tiles.shape[1]
    M: gl.constexpr = acc.shape[1]
    if M > CHUNK:
        # (A thread has both halves of each pair of columns.)
        left, right = acc.reshape([64, 2, M // 2]).permute((0, 2, 1)).split()
        _write(left, out, n, m, out_tiles, GROUP, FIRST)
        _write(right, out, n, m, out_tiles, GROUP, FIRST + M // 2)
    else:
        # 8 rows of the gate, 8 of the other half, and so on: a thread has both of each output.
        gate, up = acc.reshape([4, 2, 8, M]).permute((0, 2, 3, 1)).split()
        y = (gate / (1.0 + gl.exp(-gate)) * up).reshape([32, M])
        tile = out_tiles.index(2 * GROUP + FIRST // CHUNK % 2)
        # The copy before the last has left its place.
        tma.store_wait(1)
        gl.thread_barrier()
        tile.permute((1, 0)).store(y.to(tile.dtype))
        fence_async_shared()
        gl.thread_barrier()
        tma.async_copy_shared_to_global(out, [m + FIRST, n], tile)


@gluon.jit
def _multiply(sizes, tiles, out, out_tiles, GROUP: gl.constexpr, BAND: gl.constexpr):
    num_m, num_n, steps = sizes
    w_tiles, x_tiles, ready, free = tiles
    STAGES: gl.constexpr = x_tiles.shape[0]
    BLOCK_M: gl.constexpr = x_tiles.shape[1]
    BLOCK_K: gl.constexpr = x_tiles.shape[2]
    # (A product of 256 columns at once finds no registers where there are three groups.)
    ACC: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, 128, 16])
    gdc_wait()
    done = 0
    for number in range(gl.program_id(0), num_m * num_n, gl.num_programs(0)):
        m, n = _tile(number, num_m, num_n, BAND)
        acc = gl.zeros((64, BLOCK_M), gl.float32, ACC)
        for i in range(steps):
            step = done + i
            stage = step % STAGES
            mbarrier.wait(ready.index(stage), step // STAGES & 1)
            weights = w_tiles.index(stage * _GROUPS + GROUP).reshape([64, BLOCK_K])
            rows = x_tiles.index(stage).permute((1, 0))
            acc = warpgroup_mma(weights, rows, acc, is_async=True)
            acc = warpgroup_mma_wait(1, deps=[acc])
            # All but the last product are done with their tiles.
            mbarrier.arrive(free.index((step + STAGES - 1) % STAGES), count=1, pred=i > 0)
        acc = warpgroup_mma_wait(0, deps=[acc])
        done += steps
        mbarrier.arrive(free.index((done + STAGES - 1) % STAGES), count=1)
        _write(acc, out, (n * _GROUPS + GROUP) * 32, m * BLOCK_M, out_tiles, GROUP, 0)
    # What is on its way to memory still lies in this program's.
    tma.store_wait(0)


@quick
@gluon.jit(do_not_specialize=["num_m", "num_n", "steps"])
def _gated_kernel(
    x,
    weight,
    out,
    num_m,
    num_n,
    steps,
    STAGES: gl.constexpr,
    BAND: gl.constexpr,
    GROUP_REGISTERS: gl.constexpr,
    LOADER_REGISTERS: gl.constexpr,
):
    # All three are tensor descriptors; what lies outside of them reads as 0 and is not written.
    GROUPS: gl.constexpr = _GROUPS
    W_TILE: gl.constexpr = weight.block_type.shape
    X_TILE: gl.constexpr = x.block_type.shape
    OUT_TILE: gl.constexpr = out.block_type.shape
    gdc_launch_dependents()
    # (Gluon knows no star in a list.)
    w_tiles = gl.allocate_shared_memory(x.dtype, [STAGES * GROUPS] + W_TILE, weight.layout)  # noqa: RUF005
    x_tiles = gl.allocate_shared_memory(x.dtype, [STAGES] + X_TILE, x.layout)  # noqa: RUF005
    out_tiles = gl.allocate_shared_memory(x.dtype, [2 * GROUPS] + OUT_TILE, out.layout)  # noqa: RUF005
    ready = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    free = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    for s in gl.static_range(STAGES):
        mbarrier.init(ready.index(s), count=1)
        mbarrier.init(free.index(s), count=GROUPS)
    tiles = (w_tiles, x_tiles, ready, free)
    sizes = (num_m, num_n, steps)
    gl.warp_specialize(
        [
            (_multiply, (sizes, tiles, out, out_tiles, 0, BAND)),
            (_multiply, (sizes, tiles, out, out_tiles, 1, BAND)),
            (_multiply, (sizes, tiles, out, out_tiles, 2, BAND)),
            (_load, ((x, weight, num_m, num_n, steps), tiles, BAND)),
        ],
        [4, 4, 1],
        [GROUP_REGISTERS, GROUP_REGISTERS, LOADER_REGISTERS],
    )


def takes(m: int, n: int, k: int, dtype: torch.dtype) -> bool:
    """Whether x [m, k] and w [n, k] are multiplied here: that is faster than cuBLAS and a kernel
    for the gate."""
    fits = n % 16 == 0 and k % 8 == 0 and dtype in (torch.bfloat16, torch.float16)
    if not fits or n * k < MIN_ELEMENTS or m < MIN_ROWS:
        return False
    # Rows that fill up the last tile take their time too.
    block_m = gated_config(m, k).block_m
    return m <= block_m or 8 * m >= 7 * block_m * cdiv(m, block_m)


def hopper_gated(x: Tensor, w: Tensor, config: GatedConfig | None = None) -> Tensor:
    """SiLU of the first half of the outputs of x [M, K] times w [N, K] transposed, times the second
    half, [M, N / 2]; for what ``takes`` says yes to. x and w are contiguous.

    The weight is read before the launch before this one has ended: nothing that is still running
    may write it.
    """
    (m, k), n = x.shape, len(w)
    config = config or gated_config(m, k)
    out = torch.empty((m, n // 2), dtype=x.dtype, device=x.device)
    num_m, num_n = cdiv(m, config.block_m), cdiv(n, _GROUPS.value * _GROUP_ROWS)
    _gated_kernel[(min(num_processors(x.device), num_m * num_n),)](
        described(x, config.block_m, _BLOCK_K),
        described_gated(w, _GROUP_ROWS, _BLOCK_K),
        described(out, _CHUNK, _GROUP_ROWS // 2),
        num_m,
        num_n,
        cdiv(k, _BLOCK_K),
        STAGES=config.stages,
        BAND=_BAND,
        GROUP_REGISTERS=_GROUP_REGISTERS,
        LOADER_REGISTERS=_LOADER_REGISTERS,
        num_warps=4,
        launch_pdl=True,
    )
    return out
