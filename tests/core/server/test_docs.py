"""The server's page says what the server does."""

from __future__ import annotations

from pathlib import Path

from tests.core.server.fake_llm import FakeLLM
from tests.core.server.http_server import in_process

from jackfield.server.chat_request import ChatRequest
from jackfield.server.completion_request import CompletionRequest
from jackfield.server.messages.request import REFUSED as MESSAGES_REFUSED
from jackfield.server.messages.request import MessagesRequest
from jackfield.server.responses.request import REFUSED as RESPONSES_REFUSED
from jackfield.server.responses.request import ResponsesRequest
from jackfield.server.spellings import ALIASES, REFUSED

PAGE = (Path(__file__).parents[3] / "docs" / "server.md").read_text(encoding="utf-8")


def test_every_field_is_on_the_page() -> None:
    models = (ChatRequest, CompletionRequest, ResponsesRequest, MessagesRequest)
    fields = {name for model in models for name in model.model_fields}
    refused = REFUSED.keys() | RESPONSES_REFUSED.keys() | MESSAGES_REFUSED.keys()
    missing = [name for name in fields | ALIASES.keys() | refused if f"`{name}`" not in PAGE]
    assert missing == []


async def test_every_route_is_on_the_page() -> None:
    async with in_process(FakeLLM(), enable_reset_prefix_cache=True) as http:
        paths = (await http.get("/openapi.json")).json()["paths"]
    missing = [path for path in paths if path.replace("{model}", "{id}") not in PAGE]
    assert missing == []
