"""From a schedule to the batch that the worker computes; which request has which row."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import repeat

import numpy as np

from jackfield.contracts.work import AdmittedRow, Int32Array, ScheduledBatch
from jackfield.engine.block_manager import BlockManager
from jackfield.engine.request import NO_ROW, Request
from jackfield.errors import EngineError

Entries = Sequence[tuple[Request, int]]


@dataclass(frozen=True, slots=True)
class BuiltStep:
    """A batch and whose it is, in its order.

    ``constrained``: places in it that sample under a grammar. ``last_sampled``: requests that
    compute nothing any more behind this step. ``num_tokens`` are computed; ``has_prompts``: some
    requests have more than one.
    """

    batch: ScheduledBatch
    requests: list[Request]
    rows: list[int]
    samples: list[bool]
    constrained: list[int]
    last_sampled: list[Request]
    num_tokens: int
    has_prompts: bool


class StepBuilder:
    """Builds steps; owns the rows of the batch state."""

    def __init__(
        self, scheduler: str, blocks: BlockManager, max_num_seqs: int, max_num_batched_tokens: int
    ) -> None:
        self.num_built = 0
        self._scheduler = scheduler
        self._blocks = blocks
        self._max_num_batched_tokens = max_num_batched_tokens
        self._free_rows = list(range(max_num_seqs - 1, -1, -1))
        self._given: list[tuple[int, int, int]] = []

    @property
    def num_free_rows(self) -> int:
        """Rows that no request has."""
        return len(self._free_rows)

    def free_row(self, request: Request) -> None:
        """Takes the request's row, if it has one."""
        if request.row >= 0:
            self._free_rows.append(request.row)
            if self._given:
                self._given = [each for each in self._given if each[0] != request.row]
            request.row = NO_ROW

    def give(self, request: Request, token_ids: list[int]) -> None:
        """Ids that the request goes on with, to be written to its row in the next step."""
        positions = range(request.num_tokens, request.num_tokens + len(token_ids))
        self._given += zip(repeat(request.row), positions, token_ids)
        request.given = token_ids
        request.num_tokens += len(token_ids)

    def build(self, entries: Entries) -> BuiltStep:
        """The batch for the entries, and each request moved on by what the step will compute."""
        chunks = [entry for entry in entries if entry[1] != 1]
        if chunks:
            entries = [entry for entry in entries if entry[1] == 1] + chunks
        admitted: list[AdmittedRow] = []
        requests: list[Request] = []
        rows: list[int] = []
        firsts: list[int] = []
        samples: list[bool] = []
        constrained: list[int] = []
        last_sampled: list[Request] = []
        for request, num_tokens in entries:
            if request.row < 0:
                admitted.append(self._give_row(request))
            first = request.num_computed_tokens
            computed = first + num_tokens
            request.num_computed_tokens = computed
            requests.append(request)
            rows.append(request.row)
            firsts.append(first)
            if computed == request.num_tokens:
                if request.constraint is not None:
                    constrained.append(len(samples))
                samples.append(True)
                request.num_in_flight += 1
                request.num_tokens = computed = computed + 1
                if computed >= request.max_num_tokens:
                    last_sampled.append(request)
            else:
                samples.append(False)
        num_tokens_array = np.ones(len(rows), dtype=np.int32)
        if chunks:
            num_tokens_array[len(rows) - len(chunks) :] = [chunk[1] for chunk in chunks]
        num_tokens_total = int(num_tokens_array.sum())
        self._check_total(num_tokens_total)
        self.num_built += 1
        batch = ScheduledBatch(
            step=self.num_built,
            admitted=tuple(admitted),
            rows=np.array(rows, dtype=np.int32),
            num_tokens=num_tokens_array,
            first_positions=np.array(firsts, dtype=np.int32),
            samples=np.array(samples, dtype=np.bool_),
            new_blocks=self._blocks.take_assignments(),
            given=self._take_given(),
            swaps=self._blocks.take_swaps(),
        )
        for request, _ in chunks:
            self._blocks.register(request)
        return BuiltStep(
            batch,
            requests,
            rows,
            samples,
            constrained,
            last_sampled,
            num_tokens=num_tokens_total,
            has_prompts=bool(chunks),
        )

    def _take_given(self) -> Int32Array | None:
        if not self._given:
            return None
        given = np.array(self._given, dtype=np.int32)
        self._given.clear()
        return given

    def _check_total(self, num_tokens: int) -> None:
        if num_tokens > self._max_num_batched_tokens:
            raise EngineError(
                f"scheduler {self._scheduler!r} put {num_tokens} tokens into a step; "
                f"max_num_batched_tokens is {self._max_num_batched_tokens}"
            )

    def _give_row(self, request: Request) -> AdmittedRow:
        if not self._free_rows:
            raise EngineError(f"scheduler {self._scheduler!r} runs more than max_num_seqs")
        request.row = self._free_rows.pop()
        if not request.first_scheduled:
            request.first_scheduled = time.monotonic()
            request.num_cached_tokens = request.num_computed_tokens
        return AdmittedRow(
            row=request.row,
            token_ids=np.array(request.token_ids, dtype=np.int32),
            num_prompt_tokens=request.num_prompt_tokens,
            sampling=request.sampling,
        )
