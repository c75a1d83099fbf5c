"""The C kernels as functions of tensors."""

from __future__ import annotations

import ctypes
import functools
import logging
from dataclasses import dataclass

import torch
from torch import Tensor

from jackfield.compute.native.build import CannotBuild, load_library
from jackfield.compute.native.calls import NativeFunction, are_noted
from jackfield.contracts.attention import AttentionBatch, AttentionSpec, KVLayer

log = logging.getLogger(__name__)

_DEFINITIONS = {
    torch.bfloat16: ("-DSTORED_BF16",),
    torch.float16: ("-DSTORED_F16",),
    torch.float32: (),
}
_MOST_DIM, _MOST_GROUP = 256, 16
KINDS = {torch.float8_e4m3fn: 1, torch.float8_e5m2: 2}
"""Of pages; 0: what the kernels were compiled for."""
_BLOCK = 16
"""Numbers that vectors are made of: ``linear`` takes whole ones."""
WHOLE_ROW = 62
"""``log_group`` of a weight whose rows have one scale each."""

_P, _I, _F = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float
_LOOK_UP = (*(_P,) * 3, *(_I,) * 3)
_SIGNATURES = {
    "rms_norm": (_P, _P, _P, _I, _I, _F),
    "add_rms_norm": (_P, _P, _P, _P, _I, _I, _F),
    "silu_and_mul": (_P, _P, _I, _I),
    "rotate_and_write": (*(_P,) * 5, _F, *(_P,) * 5, *(_I,) * 8, _F, _F),
    "linear": (*(_P,) * 5, *(_I,) * 3),
    "attend_decodes": (*(_P,) * 7, *(_I,) * 9, _F, _F, _F, _P),
    "choose_greedily": (*(_P,) * 5, *(_I,) * 3),
}
_LINEAR_CODES = (*(_P,) * 7, *(_I,) * 5)


@functools.cache
def kernels_for(dtype: torch.dtype) -> Kernels | None:
    """The kernels for tensors of ``dtype``; None where they cannot be had. The first call of a
    process loads them, and compiles them if nobody has on this machine."""
    library = load_for(dtype)
    return None if library is None else Kernels(library)


@functools.cache
def code_kernels_for(dtype: torch.dtype) -> CodeKernels | None:
    """As ``kernels_for``, those that multiply by ``Codes``."""
    library = load_for(dtype, "linear_codes")
    return None if library is None else CodeKernels(library)


def load_for(dtype: torch.dtype, alone: str | None = None) -> ctypes.CDLL | None:
    """``load_library`` for tensors of ``dtype``; None, with a warning, where it cannot be had."""
    if dtype not in _DEFINITIONS:
        return None
    try:
        return load_library(_DEFINITIONS[dtype], alone)
    except CannotBuild as error:
        log.warning("no compiled CPU kernels, torch operations instead: %s", error)
        return None


def attends(spec: AttentionSpec) -> bool:
    """Whether the kernels have room for heads of this shape."""
    return spec.head_dim <= _MOST_DIM and spec.num_heads <= _MOST_GROUP * spec.num_kv_heads


def multiplies(weight: Tensor) -> bool:
    """Whether ``Kernels.linear`` takes a weight of this shape."""
    return weight.shape[-1] % _BLOCK == 0 and weight.is_contiguous()


class Kernels:
    """Contiguous CPU tensors of one dtype in and out; a call costs 2 to 4 microseconds.

    ``has_tiles``: products are those of AMX.
    """

    def __init__(self, library: ctypes.CDLL) -> None:
        functions = {
            name: NativeFunction(library, name, types) for name, types in _SIGNATURES.items()
        }
        self._look_up = NativeFunction(library, "look_up", _LOOK_UP, _I)
        self._rms_norm = functions["rms_norm"]
        self._add_rms_norm = functions["add_rms_norm"]
        self._silu_and_mul = functions["silu_and_mul"]
        self._rotate_and_write = functions["rotate_and_write"]
        self._linear = functions["linear"]
        self._attend_decodes = functions["attend_decodes"]
        self._choose_greedily = functions["choose_greedily"]
        library.multiplies_tiles.argtypes = ()
        self.has_tiles = bool(library.multiplies_tiles())
        self._room = torch.empty(0, dtype=torch.float32)

    def look_up(self, ids: Tensor, weight: Tensor) -> Tensor:
        """ids int64 [T], weight [V, N] -> the rows of the weight, [T, N]. ``IndexError`` for an id
        that is none."""
        num_rows, width = weight.shape
        out = weight.new_empty((len(ids), width))
        arrays = (ids.contiguous(), weight, out)
        if self._look_up(*map(pointer, arrays), len(ids), num_rows, width):
            raise IndexError(f"a token id is not in a vocabulary of {num_rows}")
        return out

    def rms_norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        """x [..., N], weight [N] -> x / rms(x) * weight."""
        x = x.contiguous()
        out = torch.empty_like(x)
        size = x.shape[-1]
        self._rms_norm(
            x.data_ptr(), weight.data_ptr(), out.data_ptr(), x.numel() // size, size, eps
        )
        return out

    def add_rms_norm(
        self, x: Tensor, residual: Tensor, weight: Tensor, eps: float
    ) -> tuple[Tensor, Tensor]:
        """x, residual [T, N] -> (rms_norm(x + residual), x + residual), the second in place."""
        x = x.contiguous()
        out = torch.empty_like(x)
        pointers = (x.data_ptr(), residual.data_ptr(), weight.data_ptr(), out.data_ptr())
        self._add_rms_norm(*pointers, *x.shape, eps)
        return out, residual

    def silu_and_mul(self, x: Tensor) -> Tensor:
        """x [T, 2 I], the gate first -> silu(gate) * up, [T, I]."""
        x = x.contiguous()
        num_tokens, width = x.shape
        out = x.new_empty((num_tokens, width // 2))
        self._silu_and_mul(x.data_ptr(), out.data_ptr(), num_tokens, width // 2)
        return out

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """x [..., K], weight [N, K] that ``multiplies``, bias [N] -> x @ weight.T + bias."""
        x = x.contiguous()
        outputs, inputs = weight.shape
        num_tokens = x.numel() // inputs
        out = x.new_empty((*x.shape[:-1], outputs))
        room = self._room_for(num_tokens * (inputs + _BLOCK))
        arrays = (x, weight, bias, out, room)
        self._linear(*map(pointer, arrays), num_tokens, outputs, inputs)
        return out

    def _room_for(self, size: int) -> Tensor:
        """Float32, at least ``size`` of them; the largest is kept: fresh memory for each product
        would cost a page fault every 4 KiB."""
        if are_noted():
            return torch.empty(size, dtype=torch.float32)
        if len(self._room) < size:
            self._room = torch.empty(size, dtype=torch.float32)
        return self._room

    def choose_greedily(
        self, logits: Tensor, rows: Tensor, positions: Tensor, token_ids: Tensor
    ) -> Tensor:
        """``ops.choose_greedily``."""
        logits = logits.contiguous()
        chosen = torch.empty(len(logits), dtype=torch.int32)
        arrays = (logits, rows, positions, token_ids, chosen)
        self._choose_greedily(*map(pointer, arrays), *logits.shape, token_ids.shape[1])
        return chosen

    def rotate_and_write(
        self, turn: Turn, kv: KVLayer, spec: AttentionSpec, slots: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Normalizes and rotates the heads of q and k, and puts k and v into the pages.

        -> q [T, H, D], k and v [T, K, D].
        """
        qkv = turn.qkv.contiguous()
        heads, kv_heads, dim = spec.num_heads, spec.num_kv_heads, spec.head_dim
        q = qkv.new_empty((len(qkv), heads, dim))
        k = qkv.new_empty((len(qkv), kv_heads, dim))
        self._rotate_and_write(
            qkv.data_ptr(),
            turn.positions.data_ptr(),
            turn.cos_sin.data_ptr(),
            pointer(turn.q_weight),
            pointer(turn.k_weight),
            turn.eps,
            q.data_ptr(),
            k.data_ptr(),
            kv.key.data_ptr(),
            kv.value.data_ptr(),
            slots.data_ptr(),
            *kv.key.shape[1:3],
            len(qkv),
            heads,
            kv_heads,
            dim,
            turn.cos_sin.shape[-1],
            KINDS.get(kv.key.dtype, 0),
            *scales_of(kv),
        )
        v = qkv.view(len(qkv), heads + 2 * kv_heads, dim)[:, heads + kv_heads :]
        return q, k, v

    def attend_decodes(
        self,
        q: Tensor,
        kv: KVLayer,
        spec: AttentionSpec,
        batch: AttentionBatch,
        sinks: Tensor | None,
        out: Tensor,
    ) -> None:
        """The leading ``batch.num_decodes`` queries of q, each over all its sequence has in the
        pages, into the same places of out; [T, H, D] both."""
        q = q[: batch.num_decodes].contiguous()
        self._attend_decodes(
            q.data_ptr(),
            kv.key.data_ptr(),
            kv.value.data_ptr(),
            batch.block_table.data_ptr(),
            batch.rows.data_ptr(),
            batch.seq_lens.data_ptr(),
            out.data_ptr(),
            batch.num_decodes,
            *attention_numbers(kv, spec, batch),
            pointer(sinks),
        )


@dataclass(frozen=True, slots=True)
class Codes:
    """A weight [N, K] as ``linear_codes.c`` reads it. ``codes`` uint8 [N, K * bits / 8]; ``table``
    float32 [2 ** bits], None: signed integers; ``scales``, ``shifts`` float32 [N, groups]."""

    codes: Tensor
    table: Tensor | None
    scales: Tensor
    shifts: Tensor | None
    shape: tuple[int, int]
    log_group: int
    bits: int

    @property
    def pointers(self) -> tuple[int | None, ...]:
        """The arrays' addresses, in the order in which the kernels take them."""
        arrays = (self.codes, self.table, self.scales, self.shifts)
        return tuple(pointer(array) for array in arrays)


class CodeKernels:
    """Products by weights that are stored as codes; contiguous CPU tensors in and out."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._multiply = NativeFunction(library, "linear_codes", _LINEAR_CODES)
        self._room = library.linear_codes_room
        self._room.argtypes, self._room.restype = (_I, _I), _I

    def multiply(self, x: Tensor, weight: Codes) -> Tensor:
        """x [T, K] -> x @ weight.T, [T, N]."""
        x = x.contiguous()
        num_tokens, (outputs, inputs) = len(x), weight.shape
        out = x.new_empty((num_tokens, outputs))
        room = torch.empty(self._room(num_tokens, inputs), dtype=torch.uint8)
        arrays = (x.data_ptr(), *weight.pointers, out.data_ptr(), room.data_ptr())
        self._multiply(*arrays, num_tokens, outputs, inputs, weight.log_group, weight.bits)
        return out


@dataclass(frozen=True, slots=True)
class Turn:
    """The packed projection of a step, [T, (H + 2 K) * D], and how its heads are turned: as
    ``ops.qk_norm_rope`` takes them."""

    qkv: Tensor
    positions: Tensor
    cos_sin: Tensor
    q_weight: Tensor | None
    k_weight: Tensor | None
    eps: float


def attention_numbers(
    kv: KVLayer, spec: AttentionSpec, batch: AttentionBatch
) -> tuple[int | float, ...]:
    """What kernels of attention take behind the number of sequences, in their order."""
    key_scale, value_scale = scales_of(kv)
    return (
        spec.num_heads,
        spec.num_kv_heads,
        spec.head_dim,
        *kv.key.shape[1:3],
        batch.block_table.shape[1],
        spec.sliding_window or 0,
        KINDS.get(kv.key.dtype, 0),
        spec.scale * key_scale,
        value_scale,
        spec.soft_cap or 0.0,
    )


def scales_of(kv: KVLayer) -> tuple[float, float]:
    """Of keys and values."""
    if kv.scales is None:
        return 1.0, 1.0
    key, value = kv.scales.tolist()
    return key, value


def pointer(tensor: Tensor | None) -> int | None:
    """Where it is; NULL for None."""
    return None if tensor is None else tensor.data_ptr()
