"""The server's own OpenAPI document: the bodies, answers and errors of routes that read and write
them past the framework."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel

from jackfield.server.chat_request import ChatRequest
from jackfield.server.completion_request import CompletionRequest
from jackfield.server.messages.request import CountTokensRequest, MessagesRequest
from jackfield.server.operations import WorkerCall
from jackfield.server.pooling.request import (
    ClassifyRequest,
    EmbeddingRequest,
    PoolRequest,
    RerankRequest,
    ScoreRequest,
)
from jackfield.server.responses.request import InputTokensRequest, ResponsesRequest
from jackfield.server.tokenization import DetokenizeRequest, TokenizeRequest

Schema = dict[str, Any]

_SCHEMAS = "#/components/schemas/"
_BODIES: Mapping[str, type[BaseModel]] = {
    "/v1/chat/completions": ChatRequest,
    "/v1/completions": CompletionRequest,
    "/v1/responses": ResponsesRequest,
    "/v1/responses/input_tokens": InputTokensRequest,
    "/v1/messages": MessagesRequest,
    "/v1/messages/count_tokens": CountTokensRequest,
    "/v1/embeddings": EmbeddingRequest,
    "/pooling": PoolRequest,
    "/classify": ClassifyRequest,
    "/score": ScoreRequest,
    "/v1/score": ScoreRequest,
    "/rerank": RerankRequest,
    "/v1/rerank": RerankRequest,
    "/v2/rerank": RerankRequest,
    "/tokenize": TokenizeRequest,
    "/detokenize": DetokenizeRequest,
    "/collective_rpc": WorkerCall,
}
_STREAMED = frozenset({"/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages"})


def _object(**properties: Schema) -> Schema:
    """An object that has all of these, and may have more."""
    return {"type": "object", "properties": properties, "required": list(properties)}


def _list(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def _only(*values: str) -> Schema:
    return {"type": "string", "enum": list(values)}


_TEXT: Schema = {"type": "string"}
_COUNT: Schema = {"type": "integer", "minimum": 0}
_MAYBE_TEXT: Schema = {"type": ["string", "null"]}
_FLAG: Schema = {"type": "boolean"}
_ANY_OBJECT: Schema = {"type": "object"}
_EVENT: Schema = {
    "type": "object",
    "properties": {"event": _TEXT, "data": _TEXT},
    "required": ["data"],
    "description": "One server-sent event; its data is JSON, or [DONE]",
}

_USAGE = _object(prompt_tokens=_COUNT, completion_tokens=_COUNT, total_tokens=_COUNT)
_MODEL = _object(id=_TEXT, object=_only("model"), created=_COUNT, owned_by=_TEXT,
                 max_model_len=_COUNT)  # fmt: skip
_RESPONSE = _object(id=_TEXT, object=_only("response"), created_at={"type": "number"}, model=_TEXT,
                    status=_TEXT, output=_list(_ANY_OBJECT))  # fmt: skip
_NUMBER: Schema = {"type": "number"}
_VECTOR: Schema = {"anyOf": [_list(_NUMBER), _TEXT]}
_POOLED: Schema = {"anyOf": [_list(_list(_NUMBER)), _list(_NUMBER), _TEXT]}
_POOLED_USAGE = _object(prompt_tokens=_COUNT, total_tokens=_COUNT)
_RANKING = _object(
    id=_TEXT, model=_TEXT, usage=_POOLED_USAGE,
    results=_list(_object(index=_COUNT, relevance_score=_NUMBER)),
)  # fmt: skip
_CHAT_CHOICE = _object(
    index=_COUNT,
    message=_object(role=_TEXT, content=_MAYBE_TEXT),
    finish_reason=_only("stop", "length", "tool_calls"),
)
_TEXT_CHOICE = _object(index=_COUNT, text=_TEXT, finish_reason=_only("stop", "length"))


def _pooled_list(**entry: Schema) -> Schema:
    """A list with an entry for each prompt, or for each pair."""
    return _object(
        id=_TEXT, object=_only("list"), created=_COUNT, model=_TEXT,
        data=_list(_object(index=_COUNT, **entry)), usage=_POOLED_USAGE,
    )  # fmt: skip


_SCORES = _pooled_list(object=_only("score"), score=_NUMBER)

ANSWERS: Mapping[tuple[str, str], Schema] = {
    ("post", "/v1/chat/completions"): _object(
        id=_TEXT, object=_only("chat.completion"), created=_COUNT, model=_TEXT,
        choices=_list(_CHAT_CHOICE), usage=_USAGE,
    ),
    ("post", "/v1/completions"): _object(
        id=_TEXT, object=_only("text_completion"), created=_COUNT, model=_TEXT,
        choices=_list(_TEXT_CHOICE), usage=_USAGE,
    ),
    ("post", "/v1/responses"): _RESPONSE,
    ("post", "/v1/responses/input_tokens"): _object(
        object=_only("response.input_tokens"), input_tokens=_COUNT
    ),
    ("get", "/v1/responses/{response_id}"): _RESPONSE,
    ("delete", "/v1/responses/{response_id}"): _object(id=_TEXT, deleted=_FLAG),
    ("get", "/v1/responses/{response_id}/input_items"): _object(
        object=_only("list"), data=_list(_ANY_OBJECT), has_more=_FLAG
    ),
    ("post", "/v1/messages"): _object(
        id=_TEXT, type=_only("message"), role=_TEXT, model=_TEXT, content=_list(_ANY_OBJECT),
        stop_reason=_MAYBE_TEXT, usage=_object(input_tokens=_COUNT, output_tokens=_COUNT),
    ),
    ("post", "/v1/messages/count_tokens"): _object(input_tokens=_COUNT),
    ("get", "/v1/models"): _object(object=_only("list"), data=_list(_MODEL)),
    ("get", "/v1/models/{model}"): _MODEL,
    ("post", "/v1/embeddings"): _pooled_list(object=_only("embedding"), embedding=_VECTOR),
    ("post", "/pooling"): _pooled_list(object=_only("pooling"), data=_POOLED),
    ("post", "/classify"): _pooled_list(label=_TEXT, probs=_list(_NUMBER), num_classes=_COUNT),
    **{("post", path): _SCORES for path in ("/score", "/v1/score")},
    **{("post", path): _RANKING for path in ("/rerank", "/v1/rerank", "/v2/rerank")},
    ("post", "/tokenize"): _object(count=_COUNT, max_model_len=_COUNT, tokens=_list(_COUNT)),
    ("post", "/detokenize"): _object(prompt=_TEXT),
    ("get", "/version"): _object(version=_TEXT),
}  # fmt: skip
"""The 200s by method and path; routes with a model of their own are described by FastAPI."""

_ERROR = {
    "description": "An error in the API's own shape",
    "content": {"application/json": {"schema": {"$ref": f"{_SCHEMAS}Error"}}},
}


class Application(FastAPI):
    """FastAPI whose document knows what its routes read and write themselves."""

    def openapi(self) -> dict[str, Any]:
        """The document; made once, when somebody asks."""
        if self.openapi_schema is None:
            complete(super().openapi())
        assert self.openapi_schema is not None, "FastAPI keeps what it has made"
        return self.openapi_schema


def complete(document: dict[str, Any]) -> None:
    """Adds bodies, answers and errors, in place."""
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    schemas["Error"] = _object(error=_object(message=_TEXT, type=_TEXT))
    for path, method, operation in _operations(document):
        responses = operation["responses"]
        # What FastAPI says of a wrong parameter; here it is a 400 like any other.
        responses.pop("422", None)
        for status in ("4XX", "5XX"):
            responses.setdefault(status, _ERROR)
        answer = ANSWERS.get((method, path))
        if answer is not None:
            content: Schema = {"application/json": {"schema": answer}}
            if method == "post" and path in _STREAMED:
                content["text/event-stream"] = {"schema": _EVENT}
            responses["200"] = {"description": "The answer", "content": content}
        if method == "post" and path in _BODIES:
            operation["requestBody"] = _body(_BODIES[path], schemas)


def _operations(document: Mapping[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in document["paths"].items():
        for method, operation in item.items():
            yield path, method, operation


def _body(model: type[BaseModel], schemas: dict[str, Any]) -> Schema:
    schema = model.model_json_schema(ref_template=f"{_SCHEMAS}{{model}}")
    schemas.update(schema.pop("$defs", {}))
    schemas[model.__name__] = schema
    content = {"application/json": {"schema": {"$ref": f"{_SCHEMAS}{model.__name__}"}}}
    return {"required": True, "content": content}
