"""The document says what the server accepts and returns: schemathesis tries both."""

from __future__ import annotations

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
        max_examples=20,
        deadline=None,
        database=None,
        derandomize=True,
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
