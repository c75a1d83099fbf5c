"""Logits processors of plugins in the runner: their rows, and what happens when one fails."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import ClassVar

import pytest
import torch
from tests.core.compute.steps import Driver, ReplayedFunction, Request, plan
from torch import Tensor

from jackfield.contracts.logits import LogitsBatch, LogitsContext, LogitsProcessor, LogitsRequest
from jackfield.contracts.sampling import ProcessorCall, TokenSampling
from jackfield.errors import RequestError, UnknownPluginError
from jackfield.testing import LogitsProcessorContract


class Always:
    """Leaves one token, the request's ``token``."""

    name: ClassVar[str] = "always"
    api_version: ClassVar[int] = 1

    def __init__(self, context: LogitsContext) -> None:
        self.tokens: dict[int, int] = {}

    def add(self, row: int, request: LogitsRequest) -> bool:
        token = request.arguments.get("token")
        if token is None:
            return False
        if not isinstance(token, int):
            raise RequestError("token must be a number", param="vllm_xargs")
        self.tokens[row] = token
        return True

    def apply(self, logits: Tensor, batch: LogitsBatch) -> Tensor:
        changed = torch.full_like(logits, -torch.inf)
        for place, row in enumerate(batch.rows):
            changed[place, self.tokens[row]] = 0.0
        return changed


class NextId(Always):
    """The last token plus one: it must see tokens that the host has not seen."""

    name: ClassVar[str] = "next_id"

    def apply(self, logits: Tensor, batch: LogitsBatch) -> Tensor:
        ids = batch.token_ids()
        last = ids.gather(1, torch.tensor(batch.num_tokens).unsqueeze(1) - 1)
        return torch.full_like(logits, -torch.inf).scatter_(1, last + 1, 0.0)


class Broken(Always):
    name: ClassVar[str] = "broken"

    def apply(self, logits: Tensor, batch: LogitsBatch) -> Tensor:
        token = self.tokens[batch.rows[0]]
        if token == 1:
            raise ValueError("a secret")
        if token == 2:
            sys.exit(3)
        if token == 3:
            return torch.zeros(1)
        return None  # type: ignore[return-value]


class BrokenAdd(Always):
    name: ClassVar[str] = "broken_add"

    def add(self, row: int, request: LogitsRequest) -> bool:
        raise OSError("a secret")


class TestAlways(LogitsProcessorContract):
    processor: ClassVar[Callable[[LogitsContext], LogitsProcessor]] = Always
    arguments: ClassVar[dict[str, object]] = {"token": 3}


class TestNextId(LogitsProcessorContract):
    processor: ClassVar[Callable[[LogitsContext], LogitsProcessor]] = NextId
    arguments: ClassVar[dict[str, object]] = {"token": 3}


def load(name: str, context: LogitsContext) -> tuple[str, LogitsProcessor]:
    known = {each.name: each for each in (Always, NextId, Broken, BrokenAdd)}
    if name not in known:
        raise UnknownPluginError(f"there is no logits_processors plugin {name!r}")
    return f"logits_processors plugin {name!r} of acme 1.0", known[name](context)


def driver(*names: str, graphs: bool = False) -> Driver:
    recorder = ReplayedFunction() if graphs else None
    return Driver(plan(logits_processors=names), recorder, load_processor=load)


def named(name: str, **arguments: object) -> TokenSampling:
    return TokenSampling(logits_processors=(ProcessorCall(name, arguments),))


PROMPT = [5, 17, 40]


def plain_output() -> list[int]:
    made = Driver()
    request = made.request(0, PROMPT)
    made.run([request], 6)
    return request.output


@pytest.mark.parametrize("graphs", [False, True])
def test_only_the_rows_that_want_it_are_changed(graphs: bool) -> None:
    made = driver("always", graphs=graphs)
    requests = [
        made.request(0, PROMPT),
        made.request(1, PROMPT, TokenSampling(extra_args={"token": 7})),
        made.request(2, PROMPT, named("always", token=9)),
        made.request(3, PROMPT, TokenSampling(temperature=0.8, extra_args={"token": 11})),
    ]
    made.run(requests, 6)
    assert requests[0].output == plain_output()
    assert [each.output for each in requests[1:]] == [[7] * 6, [9] * 6, [11] * 6]


def test_it_sees_every_token_so_far() -> None:
    made = driver()
    request = made.request(0, PROMPT, named("next_id", token=0))
    made.run([request], 5)
    assert request.output == [41, 42, 43, 44, 45]


def test_a_row_taken_by_another_request_is_free_of_it() -> None:
    made = driver("always")
    first = made.request(0, PROMPT, TokenSampling(extra_args={"token": 7}))
    made.run([first], 2)
    second = made.request(0, PROMPT)
    made.run([second], 6)
    assert second.output == plain_output()


@pytest.mark.parametrize("token", [1, 2, 3, 4])
def test_one_that_fails_costs_its_own_rows(token: int) -> None:
    made = driver()
    good, bad = made.request(0, PROMPT), made.request(1, PROMPT, named("broken", token=token))
    made.step([(good, 3), (bad, 3)])
    assert good.failed is None
    assert bad.failed == "the logits_processors plugin 'broken' of acme 1.0 failed"


@pytest.mark.parametrize(
    ("sampling", "message"),
    [
        (named("broken_add"), "'broken_add' of acme 1.0 failed"),
        (named("nonsense"), "there is no logits_processors plugin 'nonsense'"),
        (named("always", token="x"), "token must be a number"),
    ],
)
def test_one_that_cannot_be_asked_fails_the_request(sampling: TokenSampling, message: str) -> None:
    made = driver()
    good, bad = made.request(0, PROMPT), made.request(1, PROMPT, sampling)
    made.step([(good, 3), (bad, 3)])
    assert good.failed is None and bad.failed is not None and message in bad.failed
    after: Request = made.request(1, PROMPT)
    made.run([after], 6)
    assert after.output == plain_output()
