"""The document says what the server accepts and returns: schemathesis tries both.

OPENAPI_EXAMPLES=1000 pytest tests/core/server/test_openapi.py   tries more, other ones each time
"""

from __future__ import annotations

import os
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import (
    content_type_conformance,
    not_a_server_error,
    response_schema_conformance,
    status_code_conformance,
)
from tests.core.server.fake_llm import CROSS, EMBED, FakeLLM, FakePlan

from jackfield.hooks import Hooks
from jackfield.server.app import build_app
from jackfield.server.door import Frontend
from jackfield.server.options import ServerOptions
from jackfield.server.pooling.routes import PATHS

OPTIONS = ServerOptions(
    enable_reset_prefix_cache=True, enable_sleep_mode=True, enable_tokenizer_info=True
)
EXAMPLES = int(os.environ.get("OPENAPI_EXAMPLES", 0))
CHECKS = (
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
)


def operations(llm: FakeLLM) -> list[Any]:
    app = build_app(Frontend(llm, OPTIONS), Hooks())
    document: Any = schemathesis.openapi.from_asgi("/openapi.json", app)
    return [each.ok() for each in document.get_all_operations()]


OPERATIONS = operations(FakeLLM())
# A server has the paths of its own kind of model.
OPERATIONS += [
    operation
    for plan in (EMBED, CROSS)
    for operation in operations(FakeLLM(plan=FakePlan(pooling=plan)))
    if operation.path in PATHS
]


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.label)
def test_the_document_agrees_with_the_server(operation: Any) -> None:
    @given(case=operation.as_strategy())
    @settings(
        max_examples=EXAMPLES or 20,
        deadline=None,
        database=None,
        derandomize=not EXAMPLES,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def conforms(case: Any) -> None:
        case.call_and_validate(checks=CHECKS)

    conforms()


def test_every_route_has_a_documented_answer() -> None:
    for operation in OPERATIONS:
        assert "200" in operation.definition.raw["responses"], operation.label
        assert "4XX" in operation.definition.raw["responses"], operation.label


HELLO = [{"role": "user", "content": "hello"}]
STREAMED: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": HELLO},
    "/v1/completions": {"prompt": "hello"},
    "/v1/messages": {"messages": HELLO, "max_tokens": 3},
    "/v1/responses": {"input": "hello"},
}


@pytest.mark.parametrize("path", STREAMED)
def test_every_event_of_a_stream_is_as_the_document_says(path: str) -> None:
    (operation,) = [
        each for each in OPERATIONS if each.path == path and each.method.upper() == "POST"
    ]
    case = operation.Case(body={**STREAMED[path], "stream": True}, media_type="application/json")
    response = case.call_and_validate(checks=CHECKS)
    assert response.status_code == 200 and response.text.count("data: ") > 3
