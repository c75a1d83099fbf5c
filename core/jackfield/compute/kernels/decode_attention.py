"""Attention of one query token a sequence over paged KV, the work split evenly over the device.

The KV of all sequences and heads is a line of tiles, and each program takes an equal stretch of
it, found from the lengths in device memory: the grid depends on no length, so that a captured
graph serves all of them. Where there are few (sequence, KV head) pairs no program takes of two.
A pair that lies within one stretch is written directly; of one that lies in several, each program
leaves its part in a workspace and the last to arrive merges them (split-KV: FlashDecoding,
crfm.stanford.edu, 2023-10-12). The query heads of a group are the rows of one tensor-core tile.
"""

from math import gcd

import torch
import triton
from torch import Tensor

from jackfield.compute.kernels.code_numbers import E4M3_AS_FLOAT16, Scaling, floats_of_8_bits
from jackfield.compute.kernels.decode_attention_kernel import decode_kernel
from jackfield.compute.kernels.decode_config import MANY_SEQS, DecodeConfig, decode_config
from jackfield.compute.kernels.launch import (
    cdiv,
    num_processors,
    overlaps,
    power_of_2,
    shared_bytes,
)

MAX_PROGRAMS_PER_PROCESSOR = 4
_MOST_PAIRS = 64
"""Sequences times KV heads of which each has programs of its own."""

_ASM_OF_VALUES = {
    torch.float8_e4m3fn: E4M3_AS_FLOAT16,
    torch.float8_e5m2: floats_of_8_bits(torch.float16, 5, Scaling.NONE),
}


class DecodeWorkspace:
    """Where programs leave their parts of split sequences; shared by all layers of a worker.

    Grows to the widest layer seen. It must not have to while a graph is captured, so every layer
    is run once before a capture; what captured graphs may still use is kept.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._width = 0
        self._outgrown: list[Tensor] = []
        programs = num_processors(device) * MAX_PROGRAMS_PER_PROCESSOR
        self.max_programs = max(programs, 2 * _MOST_PAIRS)
        self.arrivals = torch.zeros(self.max_programs, dtype=torch.int32, device=device)
        self.partial = self.stats = torch.empty(0, device=device)

    def reserve(self, group: int, head_dim: int) -> None:
        """Makes room for two parts, [group, head_dim] each, a program."""
        width = power_of_2(group) * power_of_2(head_dim)
        if width <= self._width:
            return
        capturing = self._device.type == "cuda" and torch.cuda.is_current_stream_capturing()
        assert not capturing, "run a decode of this shape once before capturing it"
        self._outgrown += [self.partial, self.stats]
        self._width = width
        self.partial = torch.empty(2 * self.max_programs * width, device=self._device)
        self.stats = torch.empty(4 * self.max_programs * width, device=self._device)


def decode_attention(
    q: Tensor,
    key_pages: Tensor,
    value_pages: Tensor,
    rows: Tensor,
    seq_lens: Tensor,
    block_table: Tensor,
    out: Tensor,
    workspace: DecodeWorkspace,
    *,
    scale: float,
    scales: Tensor | None = None,
    sinks: Tensor | None = None,
    sliding_window: int | None = None,
    soft_cap: float | None = None,
    config: DecodeConfig | None = None,
) -> None:
    """q [S, H, D] (rows may be strided) over pages [N, K, block_size, D] into out [S, H, D].
    ``scales`` float32 [2]: of 8-bit pages.
    ``sinks`` float32 [H]: a score each head has beside those of keys; its value is zero.

    ``rows``, ``seq_lens`` int32 [S] (0: the output is 0); ``block_table`` int32 [R, M], indexed by
    ``rows``. No host value but the shapes enters the launch. ``seq_lens`` and ``scales`` are read
    before the launch before this one has ended: that may not be the one that writes them.
    """
    num_seqs, num_heads, head_dim = q.shape
    _, num_kv_heads, block_size, _ = key_pages.shape
    group = num_heads // num_kv_heads
    if config is None:
        room = shared_bytes(q.device)
        config = decode_config(head_dim, key_pages.element_size(), num_seqs, room)
    programs = num_processors(q.device) * config.programs_per_processor
    pairs = num_seqs * num_kv_heads
    own_programs = pairs <= _MOST_PAIRS and num_seqs < MANY_SEQS
    if own_programs:
        # One at least for each pair's last part, and as many for the others.
        programs = max(programs, 2 * pairs)
    else:
        max_tiles = pairs * cdiv(block_table.shape[1] * block_size, config.tile)
        programs = min(programs, max_tiles)
    workspace.reserve(group, head_dim)
    pdl = overlaps(q)
    decode_kernel[(programs,)](
        q,
        key_pages,
        value_pages,
        q if scales is None else scales,
        q if sinks is None else sinks,
        rows,
        seq_lens,
        block_table,
        out,
        workspace.partial,
        workspace.stats,
        workspace.arrivals,
        num_seqs,
        config.ahead,
        0 if own_programs else config.pair_cost,
        config.least,
        q.stride(0),
        block_table.stride(0),
        scale * 1.4426950408889634,
        NUM_KV_HEADS=num_kv_heads,
        GROUP=group,
        HEAD_DIM=head_dim,
        BLOCK_SIZE=block_size,
        WINDOW=sliding_window or 0,
        SOFT_CAP=soft_cap or 0.0,
        HAS_SINKS=sinks is not None,
        BLOCK_SEQS=64 if num_seqs < MANY_SEQS else max(512, power_of_2(num_seqs)),
        BLOCK_G=max(16, power_of_2(group)),
        BLOCK_ROWS=power_of_2(group),
        BLOCK_D=power_of_2(head_dim),
        TILE=config.tile,
        STAGES=config.stages,
        PIECE=gcd(config.tile, block_size),
        OWN_PROGRAMS=own_programs,
        ASM=_asm_of_values(q, value_pages),
        PDL=pdl,
        num_warps=config.warps,
        launch_pdl=pdl,
    )


def _asm_of_values(q: Tensor, pages: Tensor) -> str:
    # How two values of 8 bits become float16, as queries do; "" where they are taken one by one.
    if q.dtype is torch.float32 or triton.knobs.runtime.interpret:
        return ""
    return _ASM_OF_VALUES.get(pages.dtype, "")
