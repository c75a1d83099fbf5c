"""What the device remembers of every running request: token ids, block table, sampling parameters.

R = max_num_seqs + 1 rows; the last is a dummy for padding (token 0, block table all 0). A row is
written once, when a request takes it; afterwards a step changes single ids and blocks only.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from jackfield.compute.thinking_budget import forced_positions
from jackfield.compute.transfer import Uploads, device_zeros
from jackfield.contracts.sampling import TokenSampling
from jackfield.contracts.work import AdmittedRow, Int32Array

MAX_SHORTLIST_TOP_K = 1024
"""Up to this ``top_k`` a shortlist of the most likely tokens is taken before sampling."""

_GREEDY_BELOW = 1e-5
"""A temperature below this is greedy: dividing by it would overflow (vLLM's bound too)."""

_RECORD = struct.Struct("=ffffffiiq")
"""temperature, top_p, min_p; repetition, presence and frequency penalty; top_k, number of prompt
tokens; mixed seed."""

_RECORD_INTS = _RECORD.size // 4


class RowFlag:
    """What a row needs of a step; their union over a step's rows is what the step needs. Plain
    numbers: what an enumeration makes of an operation on two of them costs a microsecond."""

    GREEDY = 1
    SAMPLED = 2
    SHORTLIST = 4
    """``top_k`` is set and small enough for a shortlist."""
    WHOLE = 8
    """Sampled without such a ``top_k``."""
    NUCLEUS = 16
    """``WHOLE``, and ``top_p`` or a large ``top_k`` cuts the distribution."""
    PENALTIES = 32
    TOKEN_RULES = 64
    """Logit bias, allowed ids or bad words."""
    MIN_TOKENS = 128
    """Some ids are still forbidden; taken off the row once it has ``min_tokens`` tokens. Never set
    where there is a grammar: its masks see to it."""
    LOGPROBS = 256
    PROMPT_LOGPROBS = 512
    PROCESSORS = 1024
    """A logits processor acts on it; set by ``LogitsProcessors``, which knows."""
    THINKING = 2048
    """Its thinking budget may be used up; set where a step samples such a position."""


CHANGES_LOGITS = RowFlag.PENALTIES | RowFlag.TOKEN_RULES | RowFlag.MIN_TOKENS
RARE = CHANGES_LOGITS | RowFlag.LOGPROBS | RowFlag.PROCESSORS | RowFlag.THINKING
"""What a sampling row may need that a captured graph does not have."""


def flags_of(sampling: TokenSampling) -> int:
    """The ``RowFlag``s of a row with these parameters."""
    flags = 0
    if sampling.temperature < _GREEDY_BELOW or sampling.top_k == 1:
        flags |= RowFlag.GREEDY
    elif 0 < sampling.top_k <= MAX_SHORTLIST_TOP_K:
        flags |= RowFlag.SAMPLED | RowFlag.SHORTLIST
    else:
        flags |= RowFlag.SAMPLED | RowFlag.WHOLE
        if sampling.top_p < 1.0 or sampling.top_k > 0:
            flags |= RowFlag.NUCLEUS
    if (sampling.repetition_penalty, sampling.presence_penalty, sampling.frequency_penalty) != (
        1.0,
        0.0,
        0.0,
    ):
        flags |= RowFlag.PENALTIES
    if sampling.logit_bias or sampling.bad_words or sampling.allowed_token_ids is not None:
        flags |= RowFlag.TOKEN_RULES
    if sampling.min_tokens > 0 and sampling.min_tokens_ids and sampling.grammar is None:
        flags |= RowFlag.MIN_TOKENS
    if sampling.logprobs is not None:
        flags |= RowFlag.LOGPROBS
    if sampling.prompt_logprobs is not None:
        flags |= RowFlag.PROMPT_LOGPROBS
    return flags


@dataclass(frozen=True, slots=True)
class RowSampling:
    """Sampling parameters of N rows, gathered on the device; float32 and int, all [N, 1].

    Greedy rows have temperature 0, ``top_k`` 1, ``top_p`` 1 and ``min_p`` 0. ``top_k`` 0 keeps
    all tokens. ``seed`` is mixed already, and hashes to a uniform number with a position.
    """

    record: Tensor

    @property
    def temperature(self) -> Tensor:
        return self.record[:, 0:1].view(torch.float32)

    @property
    def top_p(self) -> Tensor:
        return self.record[:, 1:2].view(torch.float32)

    @property
    def min_p(self) -> Tensor:
        return self.record[:, 2:3].view(torch.float32)

    @property
    def repetition_penalty(self) -> Tensor:
        return self.record[:, 3:4].view(torch.float32)

    @property
    def presence_penalty(self) -> Tensor:
        return self.record[:, 4:5].view(torch.float32)

    @property
    def frequency_penalty(self) -> Tensor:
        return self.record[:, 5:6].view(torch.float32)

    @property
    def top_k(self) -> Tensor:
        return self.record[:, 6:7]

    @property
    def num_prompt_tokens(self) -> Tensor:
        return self.record[:, 7:8]

    @property
    def seed(self) -> Tensor:
        return self.record[:, 8:10].view(torch.int64)


class RowState:
    """The rows on the device, and the little that the host must know of them."""

    def __init__(
        self,
        *,
        max_num_seqs: int,
        max_model_len: int,
        block_size: int,
        device: torch.device,
        uploads: Uploads,
    ) -> None:
        num_rows = max_num_seqs + 1
        self.dummy_row = max_num_seqs
        self.block_size = block_size
        self.max_model_len = max_model_len
        self.max_blocks = -(-max_model_len // block_size)
        self.token_ids = device_zeros((num_rows, max_model_len + 1), torch.int32, device)
        self.block_table = device_zeros((num_rows, self.max_blocks), torch.int32, device)
        self.records = device_zeros((num_rows, _RECORD_INTS), torch.int32, device)
        """int32 [R, 10]: each row's sampling parameters, as ``RowSampling`` reads them."""
        self._uploads = uploads
        self.flags: Int32Array = np.zeros(num_rows, dtype=np.int32)
        self.top_k: Int32Array = np.zeros(num_rows, dtype=np.int32)
        self.num_prompt_tokens: Int32Array = np.zeros(num_rows, dtype=np.int32)
        self.sampling: list[TokenSampling] = [TokenSampling()] * num_rows
        self._forced: Int32Array = np.zeros((num_rows, 2), dtype=np.int32)
        self._has_budgets = False
        self.version = 0
        """Counts the admissions: what the host derives from rows holds for one version."""
        self._write_records([self.dummy_row], _record(TokenSampling(), 0))

    def admit(self, admitted: Sequence[AdmittedRow]) -> None:
        """Writes the rows of new requests. One upload; the device's work is O(their tokens)."""
        if not admitted:
            return
        self.version += 1
        for new in admitted:
            self.flags[new.row] = flags = flags_of(new.sampling)
            self.top_k[new.row] = new.sampling.top_k if flags & RowFlag.SHORTLIST else 0
            self.num_prompt_tokens[new.row] = new.num_prompt_tokens
            self.sampling[new.row] = new.sampling
            self._forced[new.row] = forced_positions(new.sampling, new.num_prompt_tokens)
            self._has_budgets |= new.sampling.thinking is not None
        records = b"".join(_record(new.sampling, new.num_prompt_tokens) for new in admitted)
        self._write_records([new.row for new in admitted], records, [n.token_ids for n in admitted])

    def _write_records(
        self, rows: list[int], records: bytes, tokens: Sequence[Int32Array] = ()
    ) -> None:
        num_rows = len(rows)
        if self.token_ids.device.type == "cpu":
            # numpy: for so little a call costs a fifth of torch's.
            numbers = np.frombuffer(records, dtype=np.int32)
            self.records.numpy()[rows] = numbers.reshape(num_rows, _RECORD_INTS)
            token_ids = self.token_ids.numpy()
            for row, ids in zip(rows, tokens, strict=False):
                token_ids[row, : len(ids)] = ids
            return
        head = np.array(rows, dtype=np.int32)
        packed = self._uploads.upload(
            np.concatenate([np.frombuffer(records, dtype=np.int32), head, *tokens])
        )
        begin = num_rows * _RECORD_INTS
        index = packed[begin : begin + num_rows].long()
        self.records.index_copy_(0, index, packed[:begin].view(num_rows, _RECORD_INTS))
        begin += num_rows
        for row, ids in zip(rows, tokens, strict=False):
            self.token_ids[row, : len(ids)].copy_(packed[begin : begin + len(ids)])
            begin += len(ids)

    def block_places(self, new_blocks: Int32Array) -> Int32Array:
        """int32 [C, 3] (row, index, block id) -> int32 [C], places in the flat block table."""
        return new_blocks[:, 0] * np.int32(self.max_blocks) + new_blocks[:, 1]

    def apply_blocks(self, new_blocks: Int32Array) -> None:
        """Uploads and applies block changes, int32 [C, 3], by themselves."""
        changes = np.concatenate([self.block_places(new_blocks), new_blocks[:, 2]])
        places, blocks = self._uploads.upload(changes).view(2, -1)
        self.set_blocks(places, blocks)

    def set_blocks(self, places: Tensor, blocks: Tensor) -> None:
        """Writes block ids, int32 [C], to places in the flat block table, int32 [C]."""
        self.block_table.view(-1).index_copy_(0, places.long(), blocks)

    def gather_sampling(self, rows: Tensor) -> RowSampling:
        """The sampling parameters of ``rows``, int64 [N]."""
        return RowSampling(self.records.index_select(0, rows))

    def gather_ids(self, rows: Tensor, positions: Tensor) -> Tensor:
        """Token ids, int64 [T], at (row, position), int64 [T] both."""
        return self.token_ids.view(-1).take(rows * self.token_ids.shape[1] + positions).long()

    def gather_slots(self, rows: Tensor, positions: Tensor) -> Tensor:
        """KV slots, int64 [T]: block id * block size + offset."""
        index = positions.div(self.block_size, rounding_mode="floor")
        blocks = self.block_table.view(-1).take(index + rows * self.max_blocks)
        return positions + (blocks - index) * self.block_size

    def write_ids(self, rows: Tensor, positions: Tensor, ids: Tensor) -> None:
        """Puts sampled ids, int64 [N], at (row, position); a position may be ``max_model_len``."""
        places = rows * self.token_ids.shape[1] + positions
        self.token_ids.view(-1).index_copy_(0, places, ids.to(torch.int32))

    def write_given(self, given: Int32Array) -> None:
        """Puts ids, int32 [G, 3] (row, position, id), where they belong. One upload."""
        rows, positions, ids = self._uploads.upload(given.T.reshape(-1)).view(3, -1)
        self.write_ids(rows.long(), positions.long(), ids)

    def flags_of_rows(self, rows: Int32Array, positions: Int32Array) -> int:
        """The union of the flags of rows that sample a token for ``positions``, [N] both."""
        if self._has_budgets:
            first, last = self._forced[rows].T
            others = self.flags[rows] & ~np.int32(RowFlag.THINKING)
            is_near = (first <= positions) & (positions < last)
            self.flags[rows] = others | is_near * np.int32(RowFlag.THINKING)
        flags = int(np.bitwise_or.reduce(self.flags[rows], initial=0))
        if flags & RowFlag.MIN_TOKENS:
            for row, position in zip(rows.tolist(), positions.tolist(), strict=True):
                if position >= self.num_prompt_tokens[row] + self.sampling[row].min_tokens:
                    self.flags[row] &= ~RowFlag.MIN_TOKENS
            flags = int(np.bitwise_or.reduce(self.flags[rows], initial=0))
        return flags


def _record(sampling: TokenSampling, num_prompt_tokens: int) -> bytes:
    if flags_of(sampling) & RowFlag.GREEDY:
        cut = (0.0, 1.0, 0.0, 1)
    else:
        cut = (sampling.temperature, sampling.top_p, sampling.min_p, max(sampling.top_k, 0))
    return _RECORD.pack(
        *cut[:3],
        sampling.repetition_penalty,
        sampling.presence_penalty,
        sampling.frequency_penalty,
        cut[3],
        num_prompt_tokens,
        _mix(sampling.seed),
    )


def _mix(seed: int) -> int:
    """Steele, Lea and Flood, "Fast splittable pseudorandom number generators" (2014), mix64.

    Neighbouring seeds become unrelated, so that seed + 1 is not the same stream one step later.
    """
    mask = (1 << 64) - 1
    z = (seed + 0x9E3779B97F4A7C15) & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    z ^= z >> 31
    return z - (1 << 64) if z >> 63 else z
