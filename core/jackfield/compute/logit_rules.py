"""What requests may do to the logits before sampling: bias, forbidden ids, penalties.

Order (vLLM's): allowed ids, bad words, min tokens, logit bias, penalties. Only rows that use a
rule cost anything. The host knows which ids a rule names; what depends on sampled ids, which
the host may not have seen yet, is decided on the device.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from jackfield.compute.row_state import CHANGES_LOGITS, RowFlag, RowState
from jackfield.compute.transfer import Uploads
from jackfield.contracts.sampling import TokenSampling
from jackfield.contracts.work import Int32Array


@dataclass(frozen=True, slots=True)
class _Places:
    """Places (batch index, token id) of a step, int64 [P] both."""

    index: Tensor
    ids: Tensor


@dataclass(frozen=True, slots=True)
class _BadWords:
    """W words: the last id of each where it stands in the logits, and the ids before it, int32
    [W, m], aligned to the right and filled up with -1."""

    last: _Places
    before: Tensor


@dataclass(frozen=True, slots=True)
class _Rules:
    """The rules of a step's rows on the device; a kind that no row uses is None."""

    allowed_rows: Tensor | None
    allowed: _Places | None
    bad_words: _BadWords | None
    forbidden: _Places | None
    biased: _Places | None
    bias: Tensor | None
    penalized: Tensor | None


class LogitRules:
    """Applies the rules of a step's rows; keeps the uploaded lists while the rows stay the same."""

    def __init__(self, state: RowState, uploads: Uploads) -> None:
        self._state = state
        self._uploads = uploads
        self._key: tuple[int, bytes, bytes] | None = None
        self._rules: _Rules | None = None

    def apply(
        self, logits: Tensor, host_rows: Int32Array, rows: Tensor, positions: Tensor, length: int
    ) -> None:
        """Changes ``logits``, float32 [N, V], in place.

        ``host_rows`` and ``rows`` (int64): the N rows; ``positions`` int64 [N], where their
        tokens will stand; ``length`` is the largest of them.
        """
        rules = self._rules_of(host_rows)
        if rules.allowed is not None and rules.allowed_rows is not None:
            kept = logits[rules.allowed.index, rules.allowed.ids]
            logits.index_fill_(0, rules.allowed_rows, -torch.inf)
            logits.index_put_((rules.allowed.index, rules.allowed.ids), kept)
        if rules.bad_words is not None:
            self._forbid_bad_words(logits, rules.bad_words, rows, positions)
        if rules.forbidden is not None:
            forbidden = logits.new_full((), -torch.inf)
            logits.index_put_((rules.forbidden.index, rules.forbidden.ids), forbidden)
        if rules.biased is not None and rules.bias is not None:
            logits.index_put_((rules.biased.index, rules.biased.ids), rules.bias, accumulate=True)
        if rules.penalized is not None:
            self._penalize(logits, rules.penalized, rows, positions, length)

    def _forbid_bad_words(
        self, logits: Tensor, words: _BadWords, rows: Tensor, positions: Tensor
    ) -> None:
        """Takes away a word's last id where the row ends with the ids before it."""
        m = words.before.shape[1]
        hit = torch.ones(words.before.shape, dtype=torch.bool, device=logits.device)
        if m:
            offsets = torch.arange(-m, 0, device=logits.device)
            at = positions[words.last.index].unsqueeze(1) + offsets
            row = rows[words.last.index].unsqueeze(1).expand_as(at)
            tail = self._state.gather_ids(row, at.clamp_min(0)).masked_fill_(at < 0, -2)
            hit = (tail == words.before) | (words.before < 0)
        change = torch.where(hit.all(-1), -torch.inf, 0.0)
        logits.index_put_((words.last.index, words.last.ids), change, accumulate=True)

    def _penalize(
        self, logits: Tensor, index: Tensor, rows: Tensor, positions: Tensor, length: int
    ) -> None:
        """Repetition penalty over prompt and output, presence and frequency over the output.

        Counts are made anew from the row's ids, O(length) a row and a zeroed line of the
        vocabulary: no state that a preemption or a step ahead could put out of step.
        """
        rows, positions = rows[index], positions[index].unsqueeze(1)
        sampling = self._state.gather_sampling(rows)
        at = torch.arange(length, device=logits.device).expand(len(index), -1)
        at = torch.where(at < positions, at, 0)
        ids = self._state.gather_ids(rows.unsqueeze(1).expand_as(at), at)
        is_output = ((at >= sampling.num_prompt_tokens) & (at > 0)).float()
        counts = torch.zeros(len(index), logits.shape[1], device=logits.device)
        counts = counts.scatter_add_(1, ids, is_output).gather(1, ids)
        values = logits[index.unsqueeze(1), ids]
        repetition = sampling.repetition_penalty
        values = torch.where(values > 0, values / repetition, values * repetition)
        values -= sampling.frequency_penalty * counts + sampling.presence_penalty * (counts > 0)
        # The same id at two places gets the same value, whichever is written last.
        logits.index_put_((index.unsqueeze(1).expand_as(ids), ids), values)

    def _rules_of(self, host_rows: Int32Array) -> _Rules:
        flags = self._state.flags[host_rows]
        key = (self._state.version, host_rows.tobytes(), flags.tobytes())
        if self._rules is None or key != self._key:
            self._rules, self._key = self._make_rules(host_rows, flags), key
        return self._rules

    def _make_rules(self, host_rows: Int32Array, flags: Int32Array) -> _Rules:
        concerned = [
            (int(i), int(flags[i]), self._state.sampling[host_rows[i]])
            for i in np.flatnonzero(flags & int(CHANGES_LOGITS))
        ]
        ruled = [(i, s) for i, f, s in concerned if f & RowFlag.TOKEN_RULES]
        allowed = [(i, s.allowed_token_ids) for i, s in ruled if s.allowed_token_ids is not None]
        bias = [value for _, s in ruled for _, value in s.logit_bias]
        penalized = [i for i, f, _ in concerned if f & RowFlag.PENALTIES]
        return _Rules(
            allowed_rows=self._upload([i for i, _ in allowed]),
            allowed=self._places((i, ids) for i, ids in allowed),
            bad_words=self._bad_words(ruled),
            forbidden=self._places(
                (i, s.min_tokens_ids) for i, f, s in concerned if f & RowFlag.MIN_TOKENS
            ),
            biased=self._places((i, [token for token, _ in s.logit_bias]) for i, s in ruled),
            bias=self._floats(bias),
            penalized=self._upload(penalized),
        )

    def _bad_words(self, ruled: list[tuple[int, TokenSampling]]) -> _BadWords | None:
        words = [(i, word) for i, s in ruled for word in s.bad_words]
        last = self._places((i, word[-1:]) for i, word in words)
        if last is None:
            return None
        m = max(len(word) for _, word in words) - 1
        before = [[-1] * (m + 1 - len(word)) + list(word[:-1]) for _, word in words]
        flat = self._uploads.upload(np.array(before, dtype=np.int32).reshape(-1))
        return _BadWords(last, flat.view(len(words), m))

    def _places(self, lists: Iterable[tuple[int, Iterable[int]]]) -> _Places | None:
        pairs = [(i, token) for i, ids in lists for token in ids]
        flat = self._upload([value for pair in pairs for value in pair])
        return None if flat is None else _Places(flat[0::2], flat[1::2])

    def _upload(self, values: list[int]) -> Tensor | None:
        """int64 on the device; None for nothing."""
        return self._uploads.upload(np.array(values, dtype=np.int32)).long() if values else None

    def _floats(self, values: list[float]) -> Tensor | None:
        if not values:
            return None
        bits: npt.NDArray[np.float32] = np.array(values, dtype=np.float32)
        return self._uploads.upload(bits.view(np.int32)).view(torch.float32)
