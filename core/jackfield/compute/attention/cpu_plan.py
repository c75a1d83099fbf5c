"""How one step's sequences are grouped, packed and masked on the CPU; made once, for all layers.

Sequences of like lengths form a group and are padded to its longest.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from operator import attrgetter
from typing import NamedTuple

import torch
from torch import Tensor

from jackfield.compute.shapes import padded_keys, power_of_2_below
from jackfield.contracts.attention import AttentionBatch, AttentionSpec

_CACHE_BYTES = 3 << 20
"""Gathered keys of one group of several sequences; more would be read back from memory."""
_SCORE_BYTES = 2 << 20
"""Scores of one query chunk."""
_PADDED_TOKENS = 512
"""Queries of one group of several sequences; longer prompts gain nothing from company."""
_LEAST_FILL = 0.75
"""Of a group's room for keys, or for queries, this much is to be used,"""
_SPARE_BYTES = 512 << 10
"""unless the room for keys that is not used is no more than this,"""
_SPARE_QUERIES = 64
"""or that for queries no more than this: a group of its own would cost more."""


class _Sequence(NamedTuple):
    row: int
    first_token: int
    num_queries: int
    length: int
    fresh: bool
    """A prompt without a cached prefix. A lone first token is read from its page, as a decode."""
    first_block: int
    """Blocks before it are outside of every query's window."""
    padded: int
    """Keys to provide room for, from ``first_block`` on."""

    @property
    def prefix(self) -> int:
        return self.length - self.num_queries


@dataclass(frozen=True, slots=True)
class QueryChunk:
    """Queries ``first_query`` .. ``end_query`` of each sequence against keys ``first_key`` ..
    ``end_key``; ``mask`` (0 or -inf, [N or 1, 1, queries, 1, keys]) is added to the scores of the
    keys from ``mask_from`` of these on; None: every query sees all of them."""

    first_query: int
    end_query: int
    first_key: int
    end_key: int
    mask_from: int
    mask: Tensor | None


@dataclass(slots=True)
class Group:
    """N sequences that are computed together, padded to ``num_queries`` Q and ``num_keys`` L.

    ``tokens`` [N * Q] are the queries' places in the step (padding repeats a token), None where
    they are ``first_token ..`` in order. ``places`` are the queries among the N * Q that are no
    padding, None if all are. ``blocks`` [N, L / block_size] are the pages to gather; None for
    prompts without a prefix, whose keys are the step's own.
    """

    num_seqs: int
    num_queries: int
    num_kv_heads: int
    first_token: int
    tokens: Tensor | None
    places: Tensor | None
    blocks: Tensor | None
    chunks: tuple[QueryChunk, ...]
    _streams: dict[int, Tensor] = field(default_factory=dict)

    def streams(self, num_blocks: int) -> Tensor:
        """[N * K * L / block_size]: rows of the pages seen as [K * num_blocks, ...]."""
        index = self._streams.get(num_blocks)
        if index is None:
            assert self.blocks is not None
            heads = torch.arange(self.num_kv_heads)[:, None] * num_blocks
            index = self._streams[num_blocks] = (self.blocks[:, None] + heads).view(-1)
        return index

    def pack(self, q: Tensor) -> Tensor:
        """[T, H, D] -> [N * K, Q * H / K, D]: the queries of a stream one below the other."""
        chosen = self._chosen(q).view(self.num_seqs, self.num_queries, self.num_kv_heads, -1)
        packed = chosen.transpose(1, 2).reshape(self.num_seqs * self.num_kv_heads, -1, q.shape[-1])
        return packed.contiguous()

    def pack_kv(self, x: Tensor) -> Tensor:
        """[T, K, D] -> [N * K, Q, D]: each stream's keys or values of this step."""
        chosen = self._chosen(x).view(self.num_seqs, self.num_queries, *x.shape[1:])
        return chosen.transpose(1, 2).reshape(-1, self.num_queries, x.shape[-1]).contiguous()

    def unpack(self, packed: Tensor, out: Tensor) -> None:
        """Puts what ``pack`` took apart into its place in out [T, H, D]."""
        by_head = packed.view(self.num_seqs, self.num_kv_heads, self.num_queries, -1)
        rows = by_head.transpose(1, 2).reshape(-1, *out.shape[1:]).to(out.dtype)
        if self.tokens is None:
            out[self.first_token : self.first_token + len(rows)] = rows
        elif self.places is None:
            out.index_copy_(0, self.tokens, rows)
        else:
            out.index_copy_(0, self.tokens[self.places], rows[self.places])

    def _chosen(self, x: Tensor) -> Tensor:
        if self.tokens is None:
            return x[self.first_token : self.first_token + self.num_seqs * self.num_queries]
        return x.index_select(0, self.tokens)


@dataclass(frozen=True, slots=True)
class Plan:
    """The groups of one step, for layers of one shape and window. ``has_padding``: some tokens
    belong to no sequence."""

    groups: tuple[Group, ...]
    has_padding: bool

    @classmethod
    def of(
        cls,
        batch: AttentionBatch,
        spec: AttentionSpec,
        block_size: int,
        dtype: torch.dtype,
        num_done: int = 0,
        *,
        pages_only: bool = False,
    ) -> Plan:
        """Groups the batch's sequences but the first ``num_done``, which have a query each.

        O(sequences) and no work per token but the masks'. ``pages_only``: no group takes the
        step's own keys.
        """
        maker = _Maker(batch, spec, block_size, dtype, num_done, pages_only)
        sequences = maker.sequences()
        groups = tuple(maker.group(members) for members in maker.gathered(sequences))
        covered = sum(s.num_queries for s in sequences)
        return cls(groups, num_done + covered < len(batch.slots))


class _Maker:
    def __init__(
        self,
        batch: AttentionBatch,
        spec: AttentionSpec,
        block_size: int,
        dtype: torch.dtype,
        num_done: int,
        pages_only: bool,
    ) -> None:
        self.batch = batch
        self.spec = spec
        self.block_size = block_size
        self.dtype = dtype
        self.num_done = num_done
        self.pages_only = pages_only

    def sequences(self) -> list[_Sequence]:
        """Those that have KV at all, the longest first and prompts without a prefix apart."""
        rows = self.batch.rows.tolist()[self.num_done :]
        lens = host_lens(self.batch)[self.num_done :]
        # What is done had one query each.
        first_token, found = self.num_done, []
        for row, (num_queries, length) in zip(rows, lens, strict=False):
            if length:
                found.append(self._sequence(row, first_token, num_queries, length))
            first_token += num_queries
        found.sort(key=attrgetter("fresh", "num_queries", "padded"), reverse=True)
        return found

    def _sequence(self, row: int, first_token: int, num_queries: int, length: int) -> _Sequence:
        if num_queries == length and num_queries > 1 and not self.pages_only:
            return _Sequence(row, first_token, num_queries, length, True, 0, length)
        window = self.spec.sliding_window
        first_key = 0 if window is None else max(0, length - num_queries - window + 1)
        first_block = first_key // self.block_size
        padded = padded_keys(length - first_block * self.block_size, self.block_size)
        return _Sequence(row, first_token, num_queries, length, False, first_block, padded)

    def gathered(self, sequences: Sequence[_Sequence]) -> Iterator[list[_Sequence]]:
        """Runs of sequences that are computed together."""
        token_bytes = self.spec.num_kv_heads * self.spec.head_dim * self.dtype.itemsize
        room: _Room | None = None
        for sequence in sequences:
            if room is None:
                room = _Room(sequence, token_bytes)
            elif room.takes(sequence):
                room.members.append(sequence)
            else:
                yield room.members
                room = _Room(sequence, token_bytes)
        if room is not None:
            yield room.members

    def group(self, members: list[_Sequence]) -> Group:
        """Indices and masks of one group."""
        # In the order of the step, so that a batch of decodes needs no permutation.
        members = sorted(members, key=lambda s: s.first_token)
        num_queries = max(s.num_queries for s in members)
        num_keys = max(s.padded for s in members)
        tokens, places = _token_index(members, num_queries)
        return Group(
            num_seqs=len(members),
            num_queries=num_queries,
            num_kv_heads=self.spec.num_kv_heads,
            first_token=members[0].first_token,
            tokens=tokens,
            places=places,
            blocks=None if members[0].fresh else self._blocks(members, num_keys // self.block_size),
            chunks=tuple(self._chunks(members, num_queries, num_keys)),
        )

    def _blocks(self, members: list[_Sequence], count: int) -> Tensor:
        # [N, count]; beyond a sequence's own blocks its first one stands in: written for sure.
        firsts = torch.tensor([s.first_block for s in members])[:, None]
        lasts = torch.tensor([(s.length - 1) // self.block_size for s in members])[:, None]
        rows = torch.tensor([s.row for s in members])[:, None]
        at = firsts + torch.arange(count)
        return self.batch.block_table[rows, torch.where(at <= lasts, at, firsts)].long()

    def _chunks(
        self, members: list[_Sequence], num_queries: int, num_keys: int
    ) -> Iterator[QueryChunk]:
        key_bytes = len(members) * self.spec.num_heads * num_keys * self.dtype.itemsize
        step = max(32, min(256, power_of_2_below(_SCORE_BYTES // key_bytes)))
        window = self.spec.sliding_window
        # Positions relative to the first gathered key of each sequence; a padding query stands
        # at its sequence's last position, so that it sees something.
        starts = torch.tensor([s.first_block * self.block_size for s in members])[:, None]
        prefixes = torch.tensor([s.prefix for s in members])[:, None]
        lasts = torch.tensor([s.length - 1 for s in members])[:, None]
        queries = torch.minimum(prefixes + torch.arange(num_queries), lasts) - starts
        for first in range(0, num_queries, step):
            end = min(first + step, num_queries)
            here = queries[:, first:end]
            newest, oldest = int(here.max()), int(here.min())
            end_key = min(num_keys, padded_keys(newest + 1, 1)) if end < num_queries else num_keys
            first_key = 0 if window is None else max(0, oldest - window + 1) // 32 * 32
            keys = torch.arange(first_key, end_key)
            hidden = keys > here[..., None]
            if window is not None:
                hidden |= keys <= here[..., None] - window
            mask_from, mask = self._mask(hidden)
            yield QueryChunk(first, end, first_key, end_key, mask_from, mask)

    def _mask(self, hidden: Tensor) -> tuple[int, Tensor | None]:
        # hidden [N, queries, keys]
        columns = hidden.flatten(0, 1).any(0).nonzero()
        if not len(columns):
            return 0, None
        mask_from = int(columns[0])
        hidden = hidden[:, None, :, None, mask_from:]
        mask = torch.zeros(hidden.shape, dtype=self.dtype)
        return mask_from, mask.masked_fill_(hidden, float("-inf"))


class _Room:
    """A group that is being filled; ``members`` come in the order of ``_Maker.sequences``."""

    def __init__(self, first: _Sequence, token_bytes: int) -> None:
        self.members = [first]
        self._token_bytes = token_bytes
        self._longest = first.padded
        self._num_keys = first.padded
        self._num_queries = first.num_queries

    def takes(self, sequence: _Sequence) -> bool:
        """Whether the sequence fits; if so, the caller adds it."""
        count = len(self.members) + 1
        longest = max(self._longest, sequence.padded)
        num_keys = self._num_keys + sequence.padded
        num_queries = self._num_queries + sequence.num_queries
        size, query_size = count * longest, count * self.members[0].num_queries
        spare, spare_queries = size - num_keys, query_size - num_queries
        if (
            sequence.fresh != self.members[0].fresh
            or query_size > _PADDED_TOKENS
            or size * self._token_bytes > _CACHE_BYTES
            or (num_keys < _LEAST_FILL * size and spare * self._token_bytes > _SPARE_BYTES)
            or (num_queries < _LEAST_FILL * query_size and spare_queries > _SPARE_QUERIES)
        ):
            return False
        self._longest, self._num_keys, self._num_queries = longest, num_keys, num_queries
        return True


def host_lens(batch: AttentionBatch) -> Sequence[tuple[int, int]]:
    """Query and KV length of each sequence."""
    if batch.host_lens is not None:
        return batch.host_lens
    starts = batch.query_starts.tolist()
    counts = [end - start for start, end in pairwise(starts)]
    return list(zip(counts, batch.seq_lens.tolist(), strict=True))


def _token_index(members: list[_Sequence], num_queries: int) -> tuple[Tensor | None, Tensor | None]:
    firsts = [s.first_token for s in members]
    counts = [s.num_queries for s in members]
    full = all(n == num_queries for n in counts)
    if full and all(b - a == num_queries for a, b in pairwise(firsts)):
        return None, None
    within = torch.arange(num_queries)
    lasts = torch.tensor(counts)[:, None] - 1
    tokens = (torch.tensor(firsts)[:, None] + torch.minimum(within, lasts)).view(-1)
    if full:
        return tokens, None
    return tokens, (within <= lasts).view(-1).nonzero().view(-1)
