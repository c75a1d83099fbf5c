"""Attention of prompts in C, for processors that do not multiply what is stored."""

from __future__ import annotations

import ctypes
import functools

import torch
from torch import Tensor

from jackfield.compute.native.library import attends, attention_numbers, load_for, pointer
from jackfield.contracts.attention import AttentionBatch, AttentionSpec, KVLayer

_P, _I, _F = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float
_BLOCK = 16
"""Dimensions that vectors are made of."""


@functools.cache
def prompt_kernels_for(dtype: torch.dtype) -> PromptKernels | None:
    """As ``kernels_for``."""
    library = load_for(dtype, "attend_prompts")
    return None if library is None else PromptKernels(library)


def attends_prompts(spec: AttentionSpec) -> bool:
    """Whether the kernel takes heads of this shape."""
    return attends(spec) and spec.head_dim % _BLOCK == 0


class PromptKernels:
    """Keeps the memory that its threads work in: some 3 MB each for heads of 128 dimensions."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._attend = library.attend_prompts
        self._attend.argtypes, self._attend.restype = (*(_P,) * 10, *(_I,) * 9, _F, _F, _F), None
        self._room_size = library.attend_prompts_room
        self._room_size.argtypes, self._room_size.restype = (_I,), _I
        self._room = torch.empty(0)

    def attend(
        self,
        q: Tensor,
        kv: KVLayer,
        spec: AttentionSpec,
        batch: AttentionBatch,
        sinks: Tensor | None,
        out: Tensor,
    ) -> None:
        """The queries behind the leading ``batch.num_decodes``, over all that their sequences have
        in the pages, into the same places of out; q, out [T, H, D]."""
        q = q.contiguous()
        first = batch.num_decodes
        size = self._room_size(spec.head_dim)
        if len(self._room) < size:
            self._room = torch.empty(size)
        self._attend(
            q.data_ptr(),
            kv.key.data_ptr(),
            kv.value.data_ptr(),
            batch.block_table.data_ptr(),
            batch.rows[first:].data_ptr(),
            batch.query_starts[first:].data_ptr(),
            batch.seq_lens[first:].data_ptr(),
            pointer(sinks),
            out.data_ptr(),
            self._room.data_ptr(),
            batch.num_seqs - first,
            *attention_numbers(kv, spec, batch),
        )
