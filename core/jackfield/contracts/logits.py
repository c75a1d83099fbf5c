"""What may change the logits of requests before a token is sampled. Imports torch.

Kind ``jackfield.logits_processors`` (``--logits-processors``, repeatable; a request may name
those that match ``--logits-processor-pattern``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class LogitsContext:
    """What a processor is made with: where the logits are, and how wide they are."""

    device: torch.device
    vocab_size: int


@dataclass(frozen=True, slots=True)
class LogitsRequest:
    """A request that a processor may act on.

    ``arguments`` is the request's ``vllm_xargs`` for a processor that the server was started
    with, and the ``kwargs`` it was named with for one that the request asked for.
    """

    prompt_token_ids: tuple[int, ...]
    arguments: Mapping[str, object]


class LogitsBatch(Protocol):
    """The N requests of a step that a processor acts on, in the order of the logits' rows."""

    @property
    def rows(self) -> tuple[int, ...]:
        """Names of the requests, as given to ``add``."""
        ...

    @property
    def num_tokens(self) -> tuple[int, ...]:
        """How many tokens each has, prompt and output."""
        ...

    def token_ids(self) -> Tensor:
        """int64 [N, longest] on the device: the tokens of each, then -1. Costs O(its size)."""
        ...


class LogitsProcessor(Protocol):
    """Changes logits. Made once per worker as ``cls(context)``; called from one thread.

    It runs after the request's own rules (bias, penalties) and before temperature and
    truncation. A request that no processor wants costs nothing. What it raises fails the
    requests of that call alone. The host may not have seen a row's last token yet:
    ``LogitsBatch.token_ids`` has it, on the device.
    """

    name: ClassVar[str]
    api_version: ClassVar[int]

    def __init__(self, context: LogitsContext) -> None: ...

    def add(self, row: int, request: LogitsRequest) -> bool:
        """Whether it acts on a request, called ``row`` from now on; asked when the request gets a
        place in the batch, again after a preemption. An earlier request of that name is over.
        ``RequestError`` refuses the request."""
        ...

    def apply(self, logits: Tensor, batch: LogitsBatch) -> Tensor:
        """float32 [N, V] -> float32 [N, V] on the same device, changed in place or not. May not
        wait for the device."""
        ...
