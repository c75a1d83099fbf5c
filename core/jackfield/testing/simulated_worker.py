"""A worker without a device, that notices every mistake in paging.

Its "model" is exact and cheap: the KV of a position is a number made of all tokens up to
it, and the next token follows from the KV of the last position. Whenever it samples it checks that
every earlier position of the row's block table holds the number it should, so that a block
freed too early, shared wrongly, or cached under a wrong name is an error at the step that
reads it. ``continuation`` says, without blocks or steps, what a prompt must be continued with.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from jackfield.config.plan import WorkerPlan
from jackfield.contracts.messages import TokenLogprobs
from jackfield.contracts.work import (
    BlockSwaps,
    Int32Array,
    KVCapacity,
    RowLogprobs,
    ScheduledBatch,
    StepOutput,
    TokenMasks,
)

UNDEFINED_TOKEN = -7
_FACTOR = np.uint64(6364136223846793005)

UInt64Array = npt.NDArray[np.uint64]


def _powers(count: int) -> UInt64Array:
    powers = np.full(count, _FACTOR, dtype=np.uint64)
    powers[:1] = 1
    return np.multiply.accumulate(powers)


def _kv(token_ids: npt.NDArray[np.int32]) -> UInt64Array:
    """[n] -> [n]: the number at each position covers all tokens up to it (mod 2**64)."""
    terms = (token_ids.astype(np.uint64) + np.uint64(1)) * _powers(len(token_ids))
    return np.cumsum(terms, dtype=np.uint64)


def _next_token(kv: int, vocabulary: int) -> int:
    mixed = kv ^ (kv >> 31)
    return (mixed * 0x9E3779B97F4A7C15 % 2**64 >> 40) % vocabulary


def continuation(prompt: Sequence[int], num_tokens: int, vocabulary: int) -> list[int]:
    """The ``num_tokens`` ids that follow ``prompt``, computed without any engine."""
    ids = list(prompt)
    for _ in range(num_tokens):
        kv = _kv(np.array(ids, dtype=np.int32))
        ids.append(_next_token(int(kv[-1]), vocabulary))
    return ids[len(prompt) :]


class SimulatedStep:
    """A step that was computed when it was enqueued."""

    def __init__(self, output: StepOutput) -> None:
        self._output = output

    def wait(self) -> StepOutput:
        """The output."""
        return self._output


class SimulatedWorker:
    """Obeys ``contracts.work.Worker`` to the letter, and asserts that the engine does.

    The plan's ``config`` may hold ``vocab_size`` (default 97) and ``steps_in_flight`` (default 2);
    ``num_blocks_override`` is the number of blocks (default 64). With ``swap_bytes`` there are as
    many blocks in the host's memory.
    """

    name: ClassVar[str] = "simulated"
    api_version: ClassVar[int] = 1

    def start(self, plan: WorkerPlan) -> KVCapacity:
        """Makes empty rows and blocks."""
        self._vocabulary = _positive_int(plan.config.get("vocab_size", 97))
        self._block_size = plan.block_size
        num_blocks = plan.num_blocks_override or 64
        num_rows, max_len = plan.max_num_seqs, plan.max_model_len
        self._max_num_batched_tokens = plan.max_num_batched_tokens
        self._num_blocks = num_blocks
        self._token_ids = np.full((num_rows, max_len + 1), UNDEFINED_TOKEN, dtype=np.int32)
        self._num_tokens = np.zeros(num_rows, dtype=np.int64)
        self._num_prompt = np.zeros(num_rows, dtype=np.int64)
        self._logprobs: dict[int, bool] = {}
        self._prompt_logprobs: dict[int, bool] = {}
        self._table = np.zeros((num_rows, -(-max_len // plan.block_size)), dtype=np.int32)
        self._kv = np.zeros(num_blocks * plan.block_size, dtype=np.uint64)
        self._host_kv = np.zeros((plan.swap_bytes, plan.block_size), dtype=np.uint64)
        self._begun: ScheduledBatch | None = None
        self._allowed: dict[int, npt.NDArray[np.intp]] = {}
        self._masks: dict[int, npt.NDArray[np.int32]] = {}
        self.fail_token: int | None = None
        """A row that samples this token fails alone."""
        self.forced: list[int] = []
        """Ids that the first row to sample under a mask wants, one a step."""
        return KVCapacity(
            num_blocks=num_blocks,
            logits_width=self._vocabulary,
            steps_in_flight=_positive_int(plan.config.get("steps_in_flight", 2)),
            num_host_blocks=plan.swap_bytes,
        )

    def execute(self, batch: ScheduledBatch) -> SimulatedStep:
        """Computes the step at once."""
        self._check(batch)
        if batch.swaps is not None:
            self._swap(batch.swaps)
        for admitted in batch.admitted:
            row, count = admitted.row, len(admitted.token_ids)
            self._token_ids[row] = UNDEFINED_TOKEN
            self._token_ids[row, :count] = admitted.token_ids
            self._num_tokens[row] = count
            self._num_prompt[row] = admitted.num_prompt_tokens
            self._table[row] = 0
            self._logprobs[row] = admitted.sampling.logprobs is not None
            self._prompt_logprobs[row] = admitted.sampling.prompt_logprobs is not None
        for row, position, token in [] if batch.given is None else batch.given.tolist():
            assert position >= self._num_tokens[row], f"row {row}: a token is given twice"
            self._token_ids[row, position] = token
            self._num_tokens[row] = position + 1
        for row, index, block in batch.new_blocks.tolist():
            assert 0 < block < self._num_blocks, f"block {block} does not exist or is reserved"
            self._table[row, index] = block
        token_ids = np.full(len(batch.rows), UNDEFINED_TOKEN, dtype=np.int32)
        logprobs: list[RowLogprobs] = []
        failed: list[tuple[int, str]] = []
        for i, (row, first, count, samples) in enumerate(
            zip(
                batch.rows.tolist(),
                batch.first_positions.tolist(),
                batch.num_tokens.tolist(),
                batch.samples.tolist(),
                strict=True,
            )
        ):
            sampled = self._compute(row, first, first + count, samples)
            token_ids[i] = sampled
            logprobs += self._row_logprobs(row, first, first + count, sampled, samples)
            if samples and sampled == self.fail_token:
                failed.append((row, "the simulated worker was told to fail this row"))
        return SimulatedStep(StepOutput(token_ids, tuple(logprobs), tuple(failed)))

    def begin(self, batch: ScheduledBatch) -> None:
        """Keeps the step until its masks come."""
        assert self._begun is None, "a step was begun and not finished"
        self._begun = batch

    def finish(self, masks: TokenMasks) -> SimulatedStep:
        """Computes the step; a token that a mask forbids gives way to the next one allowed."""
        batch, self._begun = self._begun, None
        assert batch is not None, "finish follows begin"
        assert masks.bits.shape[1] == self._vocabulary // 32 + 1
        assert len(set(masks.slots.tolist())) == len(masks.slots) == len(masks.places)
        for slot, is_new in zip(masks.slots.tolist(), masks.are_new.tolist(), strict=True):
            if is_new:
                self._masks[slot] = masks.bits[slot].copy()
            assert np.array_equal(self._masks[slot], masks.bits[slot]), "a mask is new after all"
        assert batch.samples[masks.places].all(), "a mask for a row that samples nothing"
        rows = batch.rows[masks.places].tolist()
        self._allowed = {
            row: np.flatnonzero(np.unpackbits(bits.view(np.uint8), bitorder="little"))
            for row, bits in zip(rows, masks.bits[masks.slots], strict=True)
        }
        step = self.execute(batch)
        self._allowed = {}
        return step

    def give_back(self, blocks: Int32Array) -> None:
        """Forgets what the blocks hold."""
        assert (np.diff(blocks) > 0).all() and 0 not in blocks, "blocks do not rise"
        self._kv.reshape(-1, self._block_size)[blocks] = 0

    def stop(self) -> None:
        """Nothing to free."""

    def _swap(self, swaps: BlockSwaps) -> None:
        blocks = self._kv.reshape(-1, self._block_size)
        for block, host in swaps.out.tolist():
            self._host_kv[host] = blocks[block]
        for host, block in swaps.back.tolist():
            assert 0 < block < self._num_blocks, f"block {block} does not exist or is reserved"
            blocks[block] = self._host_kv[host]

    def _check(self, batch: ScheduledBatch) -> None:
        counts = batch.num_tokens.tolist()
        assert len(set(batch.rows.tolist())) == len(batch.rows), "a row stands in a step twice"
        assert all(count >= 1 for count in counts), "a row without tokens"
        assert batch.total_tokens <= self._max_num_batched_tokens, "over the token budget"
        num_decodes = counts.count(1)
        assert counts[:num_decodes] == [1] * num_decodes, "single tokens do not come first"
        assert {row.row for row in batch.admitted} <= set(batch.rows.tolist())
        for array, dtype in (
            (batch.rows, np.int32),
            (batch.num_tokens, np.int32),
            (batch.first_positions, np.int32),
            (batch.samples, np.bool_),
            (batch.new_blocks, np.int32),
        ):
            assert array.dtype == dtype

    def _compute(self, row: int, first: int, end: int, samples: bool) -> int:
        """Writes the KV of positions first .. end - 1, checks all before, samples the next."""
        known = int(self._num_tokens[row])
        assert end <= known, f"row {row}: position {end - 1} is computed before it is known"
        assert samples == (end == known), f"row {row}: samples is wrong at position {end}"
        kv = _kv(self._token_ids[row, :end])
        positions = np.arange(end)
        blocks = self._table[row, positions // self._block_size]
        assert blocks.all(), f"row {row}: a position has no block"
        slots = blocks.astype(np.int64) * self._block_size + positions % self._block_size
        self._kv[slots[first:]] = kv[first:]
        wrong = np.flatnonzero(self._kv[slots] != kv)
        assert not len(wrong), f"row {row}: the KV of position {wrong[0]} is not its own"
        if not samples:
            return UNDEFINED_TOKEN
        token = self._allowed_token(row, _next_token(int(kv[-1]), self._vocabulary))
        self._token_ids[row, end] = token
        self._num_tokens[row] = end + 1
        return token

    def _allowed_token(self, row: int, token: int) -> int:
        allowed = self._allowed.get(row)
        if allowed is None:
            return token
        allowed = allowed[allowed < self._vocabulary]
        if self.forced:
            token = self.forced.pop(0)
            assert token in allowed, f"row {row}: a mask forbids {token}"
        assert len(allowed), f"row {row}: a mask allows nothing"
        return int(allowed[np.searchsorted(allowed, token) % len(allowed)])

    def _row_logprobs(
        self, row: int, first: int, end: int, sampled: int, samples: bool
    ) -> list[RowLogprobs]:
        """Logprobs that name their own position: minus the position itself."""
        output = None
        if samples and self._logprobs[row]:
            output = TokenLogprobs(sampled, -float(end), 1, [sampled], [-float(end)])
        prompt: list[TokenLogprobs] = []
        if self._prompt_logprobs[row]:
            for position in range(first + 1, min(end + 1, int(self._num_prompt[row]))):
                token = int(self._token_ids[row, position])
                prompt.append(TokenLogprobs(token, -float(position), 1, [], []))
        if output is None and not prompt:
            return []
        return [RowLogprobs(row, output, tuple(prompt), first + 1)]


def _positive_int(value: object) -> int:
    assert isinstance(value, int) and value > 0
    return value
