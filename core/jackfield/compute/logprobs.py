"""Log-probabilities of the unmodified distribution, for the rows that asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from jackfield.compute.transfer import to_host
from jackfield.contracts.messages import TokenLogprobs


@dataclass(frozen=True, slots=True)
class LogprobTensors:
    """n positions: ids int64 [n], logprobs float32 [n], ranks int64 [n], and the most likely
    tokens, ids int64 [n, k] and logprobs float32 [n, k]."""

    token_ids: Tensor
    logprobs: Tensor
    ranks: Tensor
    top_ids: Tensor
    top_logprobs: Tensor

    def start_copy(self) -> LogprobTensors:
        """The same on the host, once an event recorded after this call has fired."""
        return LogprobTensors(
            to_host(self.token_ids),
            to_host(self.logprobs),
            to_host(self.ranks),
            to_host(self.top_ids),
            to_host(self.top_logprobs),
        )

    def values(self, num_tops: Sequence[int]) -> list[TokenLogprobs]:
        """Position i with its ``num_tops[i]`` most likely tokens. Host tensors only."""
        columns = (
            self.token_ids.tolist(),
            self.logprobs.tolist(),
            self.ranks.tolist(),
            self.top_ids.tolist(),
            self.top_logprobs.tolist(),
            num_tops,
        )
        return [_value(*row) for row in zip(*columns, strict=True)]


def _value(
    token: int, logprob: float, rank: int, ids: list[int], logprobs: list[float], num_top: int
) -> TokenLogprobs:
    """Equal logprobs stand in the order of their ids, so that the list does not depend on how
    the device found it."""
    tops = sorted(zip(logprobs, ids, strict=True), key=lambda top: (-top[0], top[1]))[:num_top]
    return TokenLogprobs(token, logprob, rank, [i for _, i in tops], [value for value, _ in tops])


def logprobs_of(logits: Tensor, token_ids: Tensor, num_top: int) -> LogprobTensors:
    """Logprobs of ``token_ids``, int64 [n], under ``logits``, [n, V] of any float type.

    The rank is one more than the number of tokens with a larger logit.
    """
    logits = logits.float()
    norm = logits.logsumexp(-1, keepdim=True)
    chosen = logits.gather(1, token_ids.unsqueeze(1))
    ranks = (logits > chosen).sum(-1) + 1
    top_values, top_ids = logits.topk(min(num_top, logits.shape[1]), dim=-1)
    return LogprobTensors(token_ids, (chosen - norm).squeeze(1), ranks, top_ids, top_values - norm)


def join(parts: Sequence[LogprobTensors]) -> LogprobTensors:
    """Positions of several pieces in order."""
    return LogprobTensors(
        torch.cat([part.token_ids for part in parts]),
        torch.cat([part.logprobs for part in parts]),
        torch.cat([part.ranks for part in parts]),
        torch.cat([part.top_ids for part in parts]),
        torch.cat([part.top_logprobs for part in parts]),
    )


def prompt_logprobs(
    hidden: Tensor,
    token_ids: Tensor,
    compute_logits: Callable[[Tensor], Tensor],
    num_top: int,
    slice_length: int,
) -> LogprobTensors:
    """Logprobs of ``token_ids``, int64 [Q], after ``hidden``, [Q, H], by ``slice_length``
    positions at a time, so that memory does not grow with the prompt."""
    pieces = zip(
        torch.split(hidden, slice_length), torch.split(token_ids, slice_length), strict=True
    )
    return join([logprobs_of(compute_logits(h), ids, num_top) for h, ids in pieces])
