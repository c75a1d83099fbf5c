"""Sampling parameters that reach the engine are what it reads: numbers of Python, within bounds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from jackfield.contracts.sampling import SamplingParams
from jackfield.errors import RequestError

COUNTS = (
    *("n", "top_k", "seed", "max_tokens", "min_tokens"),
    *("logprobs", "prompt_logprobs", "thinking_token_budget"),
)
NUMBERS = (
    *("temperature", "top_p", "min_p"),
    *("repetition_penalty", "presence_penalty", "frequency_penalty"),
)


@pytest.mark.parametrize("name", COUNTS)
@pytest.mark.parametrize("value", [1.5, 2.0, "2", [1]])
def test_what_is_no_whole_number_is_refused(name: str, value: Any) -> None:
    with pytest.raises(RequestError, match=f"^{name} must be a whole number, not ") as error:
        SamplingParams(**{name: value})
    assert error.value.param == name


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", ["1", None, [1.0], 1j])
def test_what_is_no_number_is_refused(name: str, value: Any) -> None:
    with pytest.raises(RequestError, match=f"^{name} must be a number, not ") as error:
        SamplingParams(**{name: value})
    assert error.value.param == name


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e9])
def test_numbers_beyond_the_bounds_are_refused(name: str, value: Any) -> None:
    with pytest.raises(RequestError, match=f"^{name} must be (above|at least) "):
        SamplingParams(**{name: value})


def test_numbers_of_numpy_become_those_of_python() -> None:
    counts: dict[str, Any] = {name: np.int64(1) for name in COUNTS}
    numbers: dict[str, Any] = {name: np.float32(0.5) for name in NUMBERS}
    params = SamplingParams(**counts, **numbers)
    assert all(type(getattr(params, name)) is int for name in COUNTS)
    assert all(type(getattr(params, name)) is float for name in NUMBERS)
    assert type(SamplingParams(n=True).n) is int
