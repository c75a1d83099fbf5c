"""The laws of a logits processor. Subclass ``LogitsProcessorContract`` in a test file::

    class TestMine(LogitsProcessorContract):
        processor = MyProcessor
        arguments = {"strength": 2}  # with which it acts on a request

The kit runs on the CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from jackfield.contracts.logits import LogitsContext, LogitsProcessor, LogitsRequest
from jackfield.testing.plugins import assert_conforms

VOCABULARY = 40


@dataclass(frozen=True)
class ListedRows:
    """``LogitsBatch`` over lists."""

    rows: tuple[int, ...]
    tokens: tuple[tuple[int, ...], ...]

    @property
    def num_tokens(self) -> tuple[int, ...]:
        """Their lengths."""
        return tuple(map(len, self.tokens))

    def token_ids(self) -> Tensor:
        """Filled up with -1."""
        longest = max(self.num_tokens)
        return torch.tensor([[*ids, *[-1] * (longest - len(ids))] for ids in self.tokens])


class LogitsProcessorContract:
    """Laws that hold for every logits processor."""

    processor: ClassVar[Callable[[LogitsContext], LogitsProcessor]]
    arguments: ClassVar[Mapping[str, object]] = {}
    prompts: ClassVar[Sequence[tuple[int, ...]]] = ((1, 2, 3), (4,), (5, 5, 5, 6), (7, 8))

    def new(self) -> LogitsProcessor:
        """One as a worker makes it."""
        return type(self).processor(LogitsContext(torch.device("cpu"), VOCABULARY))

    def applied(self, processor: LogitsProcessor, logits: Tensor, batch: ListedRows) -> Tensor:
        """What becomes of the logits."""
        return processor.apply(logits.clone(), batch)

    def add_all(self, processor: LogitsProcessor) -> list[bool]:
        """Every prompt, as row 0, 1, ..."""
        return [
            processor.add(row, LogitsRequest(prompt, self.arguments))
            for row, prompt in enumerate(self.prompts)
        ]

    def batch(self, rows: Sequence[int], output: tuple[int, ...] = (9, 10)) -> ListedRows:
        """The rows, each with its prompt and some output."""
        return ListedRows(tuple(rows), tuple((*self.prompts[row], *output) for row in rows))

    def test_the_registry_takes_it(self) -> None:
        assert_conforms("logits_processors", type(self).processor)

    def test_it_acts_with_its_arguments(self) -> None:
        assert any(self.add_all(self.new())), "it acts on no request: set `arguments`"

    def test_shape_dtype_and_device_stay(self) -> None:
        processor = self.new()
        self.add_all(processor)
        logits = torch.randn(len(self.prompts), VOCABULARY)
        changed = self.applied(processor, logits, self.batch(range(len(self.prompts))))
        assert (changed.shape, changed.dtype, changed.device) == (
            logits.shape,
            logits.dtype,
            logits.device,
        )
        assert not changed.isnan().any()
        assert changed.isfinite().any(-1).all(), "no token is left for a row"

    def test_a_request_gets_the_same_whatever_it_is_batched_with(self) -> None:
        processor = self.new()
        self.add_all(processor)
        logits = torch.randn(len(self.prompts), VOCABULARY)
        together = self.applied(processor, logits, self.batch(range(len(self.prompts))))
        for row in reversed(range(len(self.prompts))):
            fresh = self.new()
            self.add_all(fresh)
            alone = self.applied(fresh, logits[row : row + 1], self.batch([row]))
            torch.testing.assert_close(alone, together[row : row + 1])

    def test_a_row_taken_again_is_another_request(self) -> None:
        processor, fresh = self.new(), self.new()
        self.add_all(processor)
        logits = torch.randn(1, VOCABULARY)
        self.applied(processor, logits, self.batch([0]))
        for each in (processor, fresh):
            each.add(0, LogitsRequest(self.prompts[2], self.arguments))
        batch = ListedRows((0,), ((*self.prompts[2], 11),))
        torch.testing.assert_close(
            self.applied(processor, logits, batch), self.applied(fresh, logits, batch)
        )
