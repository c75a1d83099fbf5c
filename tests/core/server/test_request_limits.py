"""Bounds of one request that are options."""

from __future__ import annotations

from typing import Any

import pytest
from tests.core.server.fake_llm import FakeLLM
from tests.core.server.http_server import in_process

from jackfield.errors import RequestError
from jackfield.server.options import ServerOptions
from jackfield.server.request_limits import check_limits

TOOL = {"type": "function", "function": {"name": "f"}}


@pytest.mark.parametrize(
    ("option", "limit", "fitting", "param"),
    [
        ("max_stop_strings", 2, {"stop": ["a", "b"]}, "stop"),
        ("max_stop_strings", 2, {"stop_sequences": ["a", "b"]}, "stop_sequences"),
        ("max_stop_characters", 3, {"stop": "abc"}, "stop"),
        ("max_stop_characters", 3, {"stop": ["abc"]}, "stop"),
        ("max_logit_bias", 1, {"logit_bias": {"5": 1.0}}, "logit_bias"),
        ("max_tools", 1, {"tools": [TOOL]}, "tools"),
    ],
)
def test_what_fits_is_taken_and_one_more_is_refused(
    option: str, limit: int, fitting: dict[str, Any], param: str
) -> None:
    check_limits(fitting, bounded(option, limit))
    with pytest.raises(RequestError, match=param) as caught:
        check_limits(fitting, bounded(option, limit - 1))
    assert caught.value.param == param


def bounded(option: str, limit: int) -> ServerOptions:
    values: dict[str, Any] = {option: limit}
    return ServerOptions(**values)


@pytest.mark.parametrize("value", [None, 7, True, {"a": 1}, [1, [2]], "x"])
def test_other_types_are_left_to_the_route(value: object) -> None:
    for name in ("stop", "stop_sequences", "logit_bias", "tools"):
        check_limits({name: value}, ServerOptions())


async def test_raised_bounds_are_taken_by_the_routes() -> None:
    body = {"prompt": "a", "stop": ["b" * 300] * 20}
    async with in_process(FakeLLM()) as http:
        assert (await http.post("/v1/completions", json=body)).status_code == 400
    async with in_process(FakeLLM(), max_stop_strings=20, max_stop_characters=300) as http:
        assert (await http.post("/v1/completions", json=body)).status_code == 200
