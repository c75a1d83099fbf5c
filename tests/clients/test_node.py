"""The clients for Node: OpenAI's and Anthropic's own, and the AI SDK.

npm install --prefix tests/clients/node && pytest tests/clients/test_node.py
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from tests.clients.conftest import FORECAST, GREETING, TOLD

FOLDER = Path(__file__).parent / "node"
SAID, TALE = f"{GREETING} ", f"{TOLD} "

OPENAI: dict[str, Any] = {
    "chat": {"text": SAID, "finish": "stop"},
    "chat_stream": {"text": SAID, "tokens": 7},
    "chat_stream_helper": {"text": SAID, "final": SAID},
    "chat_tool_loop": {"finish": "tool_calls", "name": "weather", "text": TALE},
    "chat_run_tools": {"whole": TALE, "streamed": TALE, "asked": [{"city": "Paris"}] * 2},
    "chat_structured": FORECAST,
    "completions": {"whole": SAID, "text": SAID},
    "responses": {"text": SAID, "next": SAID, "kept": SAID, "items": ["message"]},
    "responses_stream": {"text": SAID, "first": "response.created", "last": "response.completed"},
    "responses_tool_loop": {"name": "weather", "text": TALE},
    "responses_structured": FORECAST,
    "responses_input_tokens": {"object": "response.input_tokens", "positive": True},
    "models": {"names": ["fake", "alias"], "one": "alias"},
    "errors": {
        "kind": "NotFoundError",
        "status": 404,
        "code": "model_not_found",
        "param": "model",
    },
}
ANTHROPIC: dict[str, Any] = {
    "messages": {"text": SAID, "stop": "end_turn"},
    "stream": {"text": SAID, "final": SAID, "tokens": True},
    "tool_loop": {"stop": "tool_use", "input": {"city": "Paris"}, "text": TALE},
    "streamed_tool_use": {"stop": "tool_use", "input": {"city": "Paris"}},
    "structured": FORECAST,
    "count_tokens": {"positive": True},
    "errors": {"kind": "NotFoundError", "status": 404},
}

AI_SDK: dict[str, Any] = {
    "text": SAID,
    "stream": SAID,
    "tool_loop": {"steps": 2, "text": TALE},
    "streamed_tool_loop": {"steps": 2, "text": TALE},
    "next_turn": SAID,
    "structured": FORECAST,
}


def run(package: str, script: str, *words: str) -> dict[str, Any]:
    """What the scenarios of a script ended in."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("there is no node")
    if not (FOLDER / "node_modules" / package).is_dir():
        pytest.skip(f"{package} is not installed: npm install --prefix {FOLDER}")
    done = subprocess.run(
        [node, str(FOLDER / script), *words], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    outcome: dict[str, Any] = json.loads(done.stdout)
    return outcome


@pytest.fixture(scope="module")
def openai(server: str, embedding_server: str) -> dict[str, Any]:
    return run("openai", "openai.mjs", server, embedding_server)


@pytest.fixture(scope="module")
def anthropic(server: str) -> dict[str, Any]:
    return run("@anthropic-ai/sdk", "anthropic.mjs", server)


@pytest.fixture(scope="module")
def ai_sdk(server: str) -> dict[str, Any]:
    return run("ai", "ai.mjs", server)


@pytest.mark.parametrize("scenario", OPENAI)
def test_openais_client(scenario: str, openai: dict[str, Any]) -> None:
    assert openai[scenario] == {"value": OPENAI[scenario]}


def test_openais_client_unpacks_the_embeddings_it_asks_for(openai: dict[str, Any]) -> None:
    found = openai["embeddings"]["value"]
    assert found["packed"] == found["plain"] and len(found["plain"]) == 2


@pytest.mark.parametrize("scenario", ANTHROPIC)
def test_anthropics_client(scenario: str, anthropic: dict[str, Any]) -> None:
    assert anthropic[scenario] == {"value": ANTHROPIC[scenario]}


@pytest.mark.parametrize("provider", ["responses", "chat", "compatible", "anthropic"])
@pytest.mark.parametrize("scenario", AI_SDK)
def test_the_ai_sdk(provider: str, scenario: str, ai_sdk: dict[str, Any]) -> None:
    assert ai_sdk[f"{provider} {scenario}"] == {"value": AI_SDK[scenario]}
