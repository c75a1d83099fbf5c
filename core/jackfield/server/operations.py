"""Routes for whoever runs the server: probes, metrics, and controls that a flag turns on."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel, Field

from jackfield.errors import RequestError
from jackfield.server.asgi import read_json_object
from jackfield.server.door import Frontend
from jackfield.server.errors import FailedRequestError, UnavailableError
from jackfield.server.json_bytes import dumps
from jackfield.server.metrics import engine_families
from jackfield.server.request_fields import StrictModel
from jackfield.server.validation import validate

_PROBE: dict[int | str, dict[str, Any]] = {
    200: {"description": "Yes; no body"},
    503: {"description": "No; no body"},
}


class Load(BaseModel):
    """What there is to do."""

    server_load: int = Field(description="generation requests under way")


class Sleeping(BaseModel):
    """Whether the engine sleeps."""

    is_sleeping: bool


class ServerInfo(BaseModel):
    """The options of this server, keys left out."""

    config: dict[str, Any]


class WorkerCall(StrictModel):
    """A method of the workers, and what it is called with."""

    method: str
    args: list[Any] = Field(default=[], description="plain JSON values")
    kwargs: dict[str, Any] = Field(default={}, description="plain JSON values, by name")
    timeout: float | None = Field(None, gt=0, description="seconds to wait; default: no limit")


class WorkerResults(BaseModel):
    """What the method has returned."""

    results: list[Any] = Field(description="a value a worker, in rank order")


def add_operations(router: APIRouter, frontend: Frontend, expose: Callable[[], bytes]) -> None:
    """Adds the routes that are on; ``expose`` makes the text of ``/metrics``."""
    options = frontend.options
    _add_probes(router, frontend)
    _add_observation(router, frontend, expose)
    if options.enable_reset_prefix_cache or options.server_dev_mode:
        _add_prefix_cache(router, frontend)
    if options.enable_sleep_mode:
        _add_sleep(router, frontend)
    if options.enable_tokenizer_info:
        _add_tokenizer_info(router, frontend)
    if options.server_dev_mode:
        _add_server_info(router, options.shown_settings)
        _add_worker_calls(router, frontend)


def _answer(value: object) -> Response:
    return Response(dumps(value), media_type="application/json")


def _add_probes(router: APIRouter, frontend: Frontend) -> None:
    async def is_live() -> Response:
        return Response(status_code=200)

    async def is_healthy() -> Response:
        return Response(status_code=200 if frontend.is_healthy else 503)

    async def is_ready() -> Response:
        return Response(status_code=200 if frontend.is_ready else 503)

    for path, probe, question in (
        ("/health", is_healthy, "Is there an engine that serves, or sleeps?"),
        ("/health/live", is_live, "Does this process answer?"),
        ("/health/ready", is_ready, "Are new requests served?"),
    ):
        for method in ("GET", "HEAD"):
            router.add_api_route(
                path,
                probe,
                methods=[method],
                summary=question,
                responses=_PROBE,
                response_class=Response,
                operation_id=f"{method.lower()}{path.replace('/', '_')}",
            )
    for method in ("GET", "POST"):
        router.add_api_route(
            "/ping",
            is_healthy,
            methods=[method],
            summary="The same as /health",
            responses=_PROBE,
            response_class=Response,
            operation_id=f"{method.lower()}_ping",
        )


def _add_observation(router: APIRouter, frontend: Frontend, expose: Callable[[], bytes]) -> None:
    siblings = frontend.siblings
    if siblings is not None:
        of_engine = engine_families(frontend.options.metrics_prefix)
        siblings.tell(expose, lambda: frontend.num_active, of_engine)

    @router.get(
        "/metrics",
        summary="Prometheus metrics",
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    )
    async def metrics() -> Response:
        text = expose() if siblings is None else await siblings.metrics()
        return Response(text, media_type=CONTENT_TYPE_LATEST)

    @router.get("/load", summary="Generation requests under way", response_model=Load)
    async def load() -> Response:
        own = frontend.num_active
        return _answer({"server_load": own if siblings is None else await siblings.num_active()})


def _add_prefix_cache(router: APIRouter, frontend: Frontend) -> None:
    @router.post(
        "/reset_prefix_cache",
        summary="Forget cached blocks that no request uses",
        response_class=Response,
        responses={200: {"description": "Done; no body"}},
    )
    async def reset_prefix_cache() -> Response:
        frontend.llm.reset_prefix_cache()
        return Response(status_code=200)


def _add_sleep(router: APIRouter, frontend: Frontend) -> None:
    done: dict[int | str, dict[str, Any]] = {200: {"description": "Done; no body"}}

    @router.post(
        "/sleep",
        summary="Let what runs finish, refuse what comes, and give the device's memory away",
        response_class=Response,
        responses=done,
    )
    async def sleep(
        level: Annotated[
            Literal["1", "2"], Query(description="1: weights go to the host; 2: they are dropped")
        ] = "1",
    ) -> Response:
        _require_engine(frontend)
        await frontend.llm.sleep(int(level))
        return Response(status_code=200)

    @router.post(
        "/wake_up",
        summary="Take the memory back, and serve",
        response_class=Response,
        responses=done,
    )
    async def wake_up() -> Response:
        _require_engine(frontend)
        await frontend.llm.wake_up()
        return Response(status_code=200)

    @router.get("/is_sleeping", summary="Whether the engine sleeps", response_model=Sleeping)
    async def is_sleeping() -> Response:
        return _answer({"is_sleeping": frontend.llm.is_asleep})


def _require_engine(frontend: Frontend) -> None:
    if not frontend.is_healthy:
        raise UnavailableError("The server is not ready")


def _add_tokenizer_info(router: APIRouter, frontend: Frontend) -> None:
    @router.get(
        "/tokenizer_info",
        summary="The tokenizer's own configuration",
        response_model=dict[str, Any],
    )
    def tokenizer_info() -> Response:
        _require_engine(frontend)
        return _answer(_tokenizer_config(frontend))


def _tokenizer_config(frontend: Frontend) -> dict[str, Any]:
    tokenizer = frontend.require_tokenizer()
    file = Path(frontend.llm.plan.tokenizer_directory) / "tokenizer_config.json"
    try:
        config: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        config = {}
    config.setdefault("tokenizer_class", type(tokenizer).__name__)
    config.setdefault("chat_template", tokenizer.chat_template)
    return config


def _add_server_info(router: APIRouter, settings: Mapping[str, Any]) -> None:
    @router.get("/server_info", summary="The options of this server", response_model=ServerInfo)
    async def server_info() -> Response:
        return _answer({"config": settings})


def _add_worker_calls(router: APIRouter, frontend: Frontend) -> None:
    @router.post(
        "/collective_rpc",
        summary="Call a method of every worker",
        response_model=WorkerResults,
    )
    async def collective_rpc(request: Request) -> Response:
        _require_engine(frontend)
        data = await read_json_object(request.receive, frontend.options.max_body_bytes)
        call = validate(WorkerCall, data)
        try:
            results = await frontend.llm.collective_rpc(
                call.method, call.timeout, call.args, call.kwargs
            )
        except TimeoutError as error:
            raise FailedRequestError(str(error)) from None
        except RequestError as error:
            if error.param is None:
                raise FailedRequestError(error.message) from None
            raise
        return _answer({"results": results})
