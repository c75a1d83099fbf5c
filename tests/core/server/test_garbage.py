"""Bodies that are wrong get an error of their own: never a 5xx, never silence."""

from __future__ import annotations

import random

import httpx
import pytest
from tests.core.server.fake_llm import FakeLLM
from tests.core.server.http_server import in_process

from jackfield.cli.bench.garbage import garbage

EXPECTED = {200, 400, 404, 413, 422}
"""404: a ``model`` that is not served, a response that is not stored."""


@pytest.mark.parametrize("seed", range(4))
async def test_no_body_is_a_server_error(seed: int) -> None:
    rng = random.Random(seed)
    llm = FakeLLM()
    statuses: set[int] = set()
    async with in_process(llm) as http:
        for _ in range(750):
            path, body = garbage(rng)
            answer = await http.post(path, content=body)
            assert answer.status_code in EXPECTED, (path, body, answer.text)
            if answer.status_code != 200:
                _check_error(answer)
            statuses.add(answer.status_code)
    assert {200, 400} <= statuses
    assert llm.active == 0


def _check_error(answer: httpx.Response) -> None:
    error = answer.json()["error"]
    assert isinstance(error["message"], str) and error["type"]
    assert "Traceback" not in error["message"] and "/core/jackfield" not in error["message"]
