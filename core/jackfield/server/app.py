"""The FastAPI application: which path leads where, and how errors look."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

import jackfield
from jackfield.errors import JackfieldError, NotFoundError, RequestError
from jackfield.hooks import Hooks
from jackfield.registry import Registry
from jackfield.registry.active import ActivePlugin
from jackfield.server.asgi import (
    ASGIApp,
    ClientDisconnected,
    read_json_object,
    route_path,
)
from jackfield.server.chat import Chat
from jackfield.server.completions import Completions
from jackfield.server.door import Frontend
from jackfield.server.errors import (
    MESSAGES_PATH,
    MethodNotAllowedError,
    as_request_error,
    error_body,
    error_headers,
)
from jackfield.server.generation_route import GenerationRoute, Prepare
from jackfield.server.hooked import HookObserver, PluginMetrics, filtered
from jackfield.server.http_metrics import LEFT, HttpMetrics, MeasureRequests
from jackfield.server.invocations import PATH as INVOCATIONS_PATH
from jackfield.server.invocations import Invocations
from jackfield.server.json_bytes import dumps
from jackfield.server.messages.route import Messages
from jackfield.server.metrics import Metrics
from jackfield.server.middleware import HotRoutes, build_middleware
from jackfield.server.openapi import Application
from jackfield.server.operations import add_operations
from jackfield.server.parser_metrics import ParserMetrics
from jackfield.server.plugin_facts import plugin_metrics, version_body
from jackfield.server.pooling.routes import PATHS as POOLING_PATHS
from jackfield.server.pooling.routes import pooling_routes, unserved_routes
from jackfield.server.responses.lookup import add_lookup_routes
from jackfield.server.responses.route import Responses
from jackfield.server.responses.stored import StoredResponses
from jackfield.server.tokenization import Tokenization
from jackfield.server.tracing import TraceHeaders, make_tracing

JsonHandler = Callable[[dict[str, Any]], Awaitable[dict[str, object]]]


class AsgiRoute(APIRoute):
    """What the document and 405 answers know of a route that ``HotRoutes`` has taken before."""

    def __init__(
        self, path: str, application: ASGIApp, summary: str, *, include_in_schema: bool
    ) -> None:
        async def documented() -> None:
            """Never called: FastAPI reads a route's document from a function."""

        super().__init__(
            path,
            documented,
            methods=["POST"],
            summary=summary,
            description=summary,
            name=path,
            include_in_schema=include_in_schema,
        )
        self.app = application


def build_app(
    frontend: Frontend,
    hooks: Hooks,
    registry: Registry | None = None,
    plugins: Sequence[ActivePlugin] = (),
) -> ASGIApp:
    """The application over ``frontend``. It can serve before the model is loaded: generation
    and health answer 503 until then. ``plugins`` are those in use."""
    stored = StoredResponses(frontend.response_store)
    responses = Responses(frontend, stored)
    preparers: dict[str, Prepare] = {
        "/v1/completions": Completions(frontend),
        "/v1/chat/completions": Chat(frontend),
        "/v1/responses": responses,
        MESSAGES_PATH: Messages(frontend),
    }
    preparers[INVOCATIONS_PATH] = Invocations(preparers)
    frontend.llm.observe(HookObserver(hooks))
    llm = filtered(frontend.llm, hooks)
    generating: dict[str, ASGIApp] = {
        path: GenerationRoute(frontend, prepare, llm) for path, prepare in preparers.items()
    }
    plan = frontend.llm.plan.pooling
    hot = generating if plan is None else pooling_routes(frontend, plan, llm)
    http_metrics = HttpMetrics()
    api = _build_api(frontend, hot, hooks, plugins, http_metrics)
    _add_text_routes(api, frontend, responses)
    add_lookup_routes(api, stored)
    stack = build_middleware(frontend.options, hooks.middleware, registry or Registry())
    app: ASGIApp = HotRoutes(api, {**unserved_routes(plan, hot, generating), **hot})
    for middleware in reversed(stack):
        app = middleware.cls(app, *middleware.args, **middleware.kwargs)
    endpoint = frontend.options.otlp_traces_endpoint
    if endpoint is not None:
        frontend.llm.observe(make_tracing(endpoint, frontend.model_names[0]))
        app = TraceHeaders(app)
    return MeasureRequests(app, http_metrics, hot)


def _build_api(
    frontend: Frontend,
    hot: Mapping[str, ASGIApp],
    hooks: Hooks,
    plugins: Sequence[ActivePlugin],
    http_metrics: HttpMetrics,
) -> FastAPI:
    docs = frontend.options.enable_docs
    api = Application(
        title="Jackfield",
        version=jackfield.__version__,
        docs_url="/docs" if docs else None,
        redoc_url="/redoc" if docs else None,
        openapi_url="/openapi.json" if docs else None,
    )
    metrics = Metrics(frontend.llm, frontend.options.metrics_prefix, http_metrics)
    frontend.llm.observe(metrics)
    parsers = ParserMetrics(frontend.llm, frontend.options.metrics_prefix)
    hooked = PluginMetrics(hooks)
    fixed = plugin_metrics(jackfield.__version__, plugins, frontend.options.metrics_prefix)
    for path, route in hot.items():
        whose = "Anthropic" if path == MESSAGES_PATH else "OpenAI"
        if path in POOLING_PATHS and path != "/v1/embeddings":
            whose = "vLLM"
        summary = f"POST {path} as {whose} has it"
        # That is another way to paths which stand in the document themselves.
        is_shown = path != INVOCATIONS_PATH
        api.router.routes.append(AsgiRoute(path, route, summary, include_in_schema=is_shown))
    _add_model_routes(api, frontend)
    add_operations(
        api.router,
        frontend,
        lambda: metrics.text() + parsers.text() + fixed + hooked.text(),
    )
    facts = version_body(jackfield.__version__, plugins)
    api.add_api_route(
        "/version",
        lambda: _json(facts),
        methods=["GET"],
        summary="The server's version, and the plugins in use",
    )
    for router in hooks.routes:
        api.include_router(router)
    _add_error_handlers(api)
    return api


def _json(value: object) -> Response:
    return Response(dumps(value), media_type="application/json")


def _add_model_routes(app: FastAPI, frontend: Frontend) -> None:
    def card(name: str) -> dict[str, object]:
        return {
            "id": name,
            "object": "model",
            "created": frontend.created,
            "owned_by": "jackfield",
            "root": frontend.model_names[0],
            "parent": None,
            "max_model_len": frontend.llm.max_model_len,
        }

    @app.get("/v1/models", summary="The models served")
    async def models() -> Response:
        # Programs wait for it, as other servers are not there before the model is.
        frontend.require_loaded()
        return _json({"object": "list", "data": [card(name) for name in frontend.model_names]})

    @app.get("/v1/models/{model:path}", summary="One model")
    async def model(model: str) -> Response:
        frontend.require_loaded()
        return _json(card(frontend.check_model(model)))


def _add_text_routes(app: FastAPI, frontend: Frontend, responses: Responses) -> None:
    tokenization = Tokenization(frontend)
    messages = Messages(frontend)

    async def answer(request: Request, handler: JsonHandler) -> Response:
        data = await read_json_object(request.receive, frontend.options.max_body_bytes)
        return _json(await handler(data))

    @app.post("/tokenize", summary="Text or chat to token ids")
    async def tokenize(request: Request) -> Response:
        return await answer(request, tokenization.tokenize)

    @app.post(f"{MESSAGES_PATH}/count_tokens", summary="How long the prompt of a message is")
    async def count_tokens(request: Request) -> Response:
        return await answer(request, messages.count_tokens)

    @app.post("/v1/responses/input_tokens", summary="How long the prompt of a response is")
    async def input_tokens(request: Request) -> Response:
        return await answer(request, responses.count_tokens)

    @app.post("/detokenize", summary="Token ids to text")
    async def detokenize(request: Request) -> Response:
        return await answer(request, tokenization.detokenize)


def _add_error_handlers(app: FastAPI) -> None:
    async def failed(request: Request, error: Exception) -> Response:
        shown = as_request_error(error)
        headers = {name.decode(): value.decode() for name, value in error_headers(shown)}
        return Response(
            error_body(shown, route_path(request.scope)),
            status_code=shown.status,
            media_type="application/json",
            headers=headers,
        )

    async def not_routed(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException), "registered for it alone"
        if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            shown: RequestError = MethodNotAllowedError(
                f"{request.method} is not allowed on this path"
            )
        elif error.status_code == HTTPStatus.NOT_FOUND:
            shown = NotFoundError("There is nothing at this path", code="not_found")
        else:
            shown = RequestError(str(error.detail))
            shown.status = error.status_code
        response = await failed(request, shown)
        response.headers.update(error.headers or {})
        return response

    async def not_valid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError), "registered for it alone"
        first = error.errors()[0]
        name = str(first["loc"][-1])
        return await failed(request, RequestError(f"'{name}': {first['msg']}", param=name))

    async def left(request: Request, error: Exception) -> Response:
        return Response(status_code=LEFT)  # nobody reads it

    app.add_exception_handler(ClientDisconnected, left)
    app.add_exception_handler(RequestValidationError, not_valid)
    app.add_exception_handler(JackfieldError, failed)
    app.add_exception_handler(HTTPException, not_routed)
    app.add_exception_handler(Exception, failed)
