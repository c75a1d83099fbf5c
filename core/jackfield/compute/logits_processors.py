"""Logits processors of plugins, applied to the rows that want them, and to no other row.

Each processor works on a copy of its own rows, so that one that fails costs these rows alone.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from jackfield.compute.row_state import RowFlag, RowState
from jackfield.compute.transfer import Uploads
from jackfield.contracts.logits import LogitsContext, LogitsProcessor, LogitsRequest
from jackfield.contracts.work import AdmittedRow, Int32Array
from jackfield.errors import RAISED, JackfieldError, RequestError

log = logging.getLogger(__name__)

Failures = tuple[tuple[int, str], ...]
LoadProcessor = Callable[[str, LogitsContext], tuple[str, LogitsProcessor]]
"""Name to who it is, for messages, and the processor; raises ``PluginError``."""


@dataclass(slots=True)
class _Loaded:
    who: str
    processor: LogitsProcessor
    rows: set[int] = field(default_factory=set)
    """On which it acts."""
    is_broken: bool = False


class RowsOfStep:
    """``LogitsBatch`` over the rows on the device."""

    def __init__(
        self, rows: Int32Array, positions: Int32Array, state: RowState, on: Tensor
    ) -> None:
        self.rows: tuple[int, ...] = tuple(rows.tolist())
        self.num_tokens: tuple[int, ...] = tuple(positions.tolist())
        self._state = state
        self._on = on

    def token_ids(self) -> Tensor:
        """int64 [N, longest]: the tokens of each row, then -1. ``on`` int64 [2, N] are the rows and
        their numbers of tokens, on the device."""
        rows, lengths = self._on[0].unsqueeze(1), self._on[1].unsqueeze(1)
        at = torch.arange(max(self.num_tokens), device=self._on.device).expand(len(self.rows), -1)
        ids = self._state.gather_ids(rows.expand_as(at), at)
        return torch.where(at < lengths, ids, -1)


class LogitsProcessors:
    """The processors that the server was started with, and those that requests name."""

    def __init__(
        self,
        names: Sequence[str],
        load: LoadProcessor,
        context: LogitsContext,
        state: RowState,
        uploads: Uploads,
    ) -> None:
        self._load = load
        self._context = context
        self._state = state
        self._uploads = uploads
        self._started = [self._loaded(name) for name in names]
        self._named: dict[str, _Loaded] = {}

    def admit(self, admitted: Sequence[AdmittedRow]) -> Failures:
        """Asks the processors about new rows, after their state was written. The rows that fail."""
        failed: list[tuple[int, str]] = []
        for new in admitted:
            for each in self._all():
                each.rows.discard(new.row)
            if not self._started and not new.sampling.logits_processors:
                continue
            try:
                self._ask(new)
            except JackfieldError as error:
                failed.append((new.row, str(error)))
        return tuple(failed)

    def apply(
        self, logits: Tensor, rows: Int32Array, positions: Int32Array, targets: Tensor
    ) -> Failures:
        """Changes ``logits``, float32 [N, V], in place. ``rows`` and ``positions`` of the N tokens
        to sample, and ``targets`` int64 [2, N], the same on the device. The rows that fail."""
        failed: list[tuple[int, str]] = []
        for each in self._all():
            places = [i for i, row in enumerate(rows.tolist()) if row in each.rows]
            if not places:
                continue
            index = self._uploads.upload(np.array(places, dtype=np.int32)).long()
            batch = RowsOfStep(
                rows[places], positions[places], self._state, targets.index_select(1, index)
            )
            part = logits.index_select(0, index)
            try:
                changed = _checked(each.processor.apply(part, batch), part)
            except RAISED as error:
                failed += [(row, self._failure(each, error)) for row in batch.rows]
                continue
            logits.index_copy_(0, index, changed)
        return tuple(failed)

    def _all(self) -> list[_Loaded]:
        return [*self._started, *self._named.values()]

    def _ask(self, new: AdmittedRow) -> None:
        prompt = tuple(new.token_ids[: new.num_prompt_tokens].tolist())
        wanted = [(each, new.sampling.extra_args) for each in self._started]
        for call in new.sampling.logits_processors:
            if call.name not in self._named:
                self._named[call.name] = self._loaded(call.name)
            wanted.append((self._named[call.name], call.arguments))
        for each, arguments in wanted:
            try:
                acts = each.processor.add(new.row, LogitsRequest(prompt, arguments))
            except RequestError:
                raise
            except RAISED as error:
                raise RequestError(self._failure(each, error)) from error
            if acts:
                each.rows.add(new.row)
                self._state.flags[new.row] |= int(RowFlag.PROCESSORS)

    def _loaded(self, name: str) -> _Loaded:
        return _Loaded(*self._load(name, self._context))

    def _failure(self, each: _Loaded, error: BaseException) -> str:
        """What the client reads; what happened is logged the first time."""
        if isinstance(error, RequestError):
            return str(error)
        if not each.is_broken:
            each.is_broken = True
            log.error("%s failed; this is logged once", each.who, exc_info=error)
        return f"the {each.who} failed"


def _checked(changed: object, given: Tensor) -> Tensor:
    if (
        not isinstance(changed, Tensor)
        or (changed.shape, changed.device) != (given.shape, given.device)
        or not changed.is_floating_point()
    ):
        raise TypeError(f"it returned no logits of the shape {list(given.shape)}")
    return changed.to(given.dtype)
