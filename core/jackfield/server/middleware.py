"""What every request passes: bounds, authentication, request ids. Plain ASGI, no wrapping per
chunk where it can be avoided.

What only looks and passes on is no coroutine itself: each one that waits for the next costs a
little whenever the innermost goes on, which is with every token.
"""

from __future__ import annotations

import hashlib
import hmac
import importlib
import inspect
import logging
import secrets
from collections.abc import Awaitable, Mapping, Sequence
from functools import partial
from typing import Any

from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.errors import ServerErrorMiddleware
from starlette.requests import Request
from starlette.responses import Response

from jackfield.errors import RAISED, ConfigError, RequestError
from jackfield.registry import Registry
from jackfield.registry.lookup import is_class_path
from jackfield.server.asgi import (
    WRITER,
    ASGIApp,
    Message,
    Receive,
    Scope,
    Send,
    route_path,
    send_error,
)
from jackfield.server.errors import (
    AuthenticationError,
    BodyTooLargeError,
    as_request_error,
    error_body,
)
from jackfield.server.generation_route import header_value
from jackfield.server.options import ServerOptions

log = logging.getLogger(__name__)

LIVENESS_PATHS = frozenset({"/health", "/health/live", "/health/ready", "/ping"})


class RequestBounds:
    """Refuses a request with too many or too long header fields, or too long a body.

    h11 bounds a head that comes in pieces; one that comes at once is measured here.
    """

    def __init__(
        self, app: ASGIApp, max_headers: int, max_header_bytes: int, max_body_bytes: int
    ) -> None:
        self._app = app
        self._max_headers = max_headers
        self._max_header_bytes = max_header_bytes
        self._max_body_bytes = max_body_bytes

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Passes the request on, or answers 400 or 413."""
        if scope["type"] == "http":
            error = self._refusal(scope["raw_path"] + scope["query_string"], scope["headers"])
            if error is not None:
                return send_error(scope, send, error)
        return self._app(scope, receive, send)

    def _refusal(
        self, target: bytes, headers: Sequence[tuple[bytes, bytes]]
    ) -> RequestError | None:
        if len(headers) > self._max_headers:
            return RequestError(f"The request has more than {self._max_headers} header fields")
        num_bytes = len(target)
        for name, value in headers:
            num_bytes += len(name) + len(value)
            # h11 has checked that it is a number and holds the body to it.
            if name == b"content-length" and int(value) > self._max_body_bytes:
                limit = self._max_body_bytes
                return BodyTooLargeError(f"The request body is longer than {limit} bytes")
        if num_bytes > self._max_header_bytes:
            return RequestError(f"The request's head is longer than {self._max_header_bytes} bytes")
        return None


class Authentication:
    """Asks for ``Authorization: Bearer KEY`` or ``X-Api-Key: KEY`` on every path but liveness."""

    def __init__(self, app: ASGIApp, api_keys: Sequence[str]) -> None:
        self._app = app
        self._digests = [hashlib.sha256(key.encode()).digest() for key in api_keys]

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Passes the request on, or answers 401. Server start-up events pass."""
        if scope["type"] == "lifespan" or self._is_allowed(scope):
            return self._app(scope, receive, send)
        error = AuthenticationError("This server needs an API key: Authorization: Bearer KEY")
        return send_error(scope, send, error)

    def _is_allowed(self, scope: Scope) -> bool:
        if scope["type"] == "http" and route_path(scope) in LIVENESS_PATHS:
            return True
        bearer = [value for name, value in scope["headers"] if name == b"authorization"]
        plain = [value for name, value in scope["headers"] if name == b"x-api-key"]
        if len(bearer) > 1 or len(plain) > 1:
            return False
        keys = [
            key
            for kind, _, key in (value.partition(b" ") for value in bearer)
            if kind.lower() == b"bearer"
        ]
        digests = [hashlib.sha256(key.strip()).digest() for key in (*keys, *plain)]
        # Every key is compared, so that the time does not tell which one matched.
        matches = [
            hmac.compare_digest(digest, known) for digest in digests for known in self._digests
        ]
        return any(matches)


class CrossOrigin(CORSMiddleware):
    """Starlette's, past it where no browser asks: it would wrap every chunk of a stream."""

    def __call__(  # type: ignore[override]  # Starlette's is a coroutine function
        self, scope: Scope, receive: Receive, send: Send
    ) -> Awaitable[None]:
        """Answers preflights; adds headers to the answers of requests with an ``Origin``."""
        if scope["type"] == "http" and any(name == b"origin" for name, _ in scope["headers"]):
            return super().__call__(scope, receive, send)
        return self.app(scope, receive, send)


class HotRoutes:
    """Takes the paths that must be fast, for POST, before the framework sees them."""

    def __init__(self, app: ASGIApp, routes: Mapping[str, ASGIApp]) -> None:
        self._app = app
        self._routes = routes

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Dispatches."""
        app = self._app
        if scope["type"] == "http" and scope["method"] == "POST":
            app = self._routes.get(route_path(scope), app)
        return app(scope, receive, send)


class ExitGuard:
    """A plugin that calls ``sys.exit`` costs its request, not the server. Stands around what is not
    the server's own: asyncio would end the event loop."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes the request on. Where the answer had begun, the connection is closed."""
        try:
            await self._app(scope, receive, send)
        except SystemExit as error:
            log.exception("a plugin tried to end the program")
            await send_error(scope, send, as_request_error(RuntimeError(str(error))))


class RootPath:
    """Tells the path prefix under which a reverse proxy publishes the server."""

    def __init__(self, app: ASGIApp, root_path: str) -> None:
        self._app = app
        self._root_path = root_path.rstrip("/")

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Passes the request on with the prefix noted."""
        scope["root_path"] = self._root_path
        return self._app(scope, receive, send)


class WithoutWriter:
    """Stands around middleware that is not the server's own: it sees all of an answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Passes the request on without the ``WRITER``."""
        scope.get("extensions", {}).pop(WRITER, None)
        return self._app(scope, receive, send)


class RequestIdHeaders:
    """Answers with ``X-Request-Id``: the client's own, or a new one."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Adds the header to the start of the response."""
        if scope["type"] != "http":
            return self._app(scope, receive, send)
        request_id = (header_value(scope, b"x-request-id") or secrets.token_hex(16)).encode()

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [*message.get("headers", ()), (b"x-request-id", request_id)]
                message = {**message, "headers": headers}
            await send(message)

        return self._app(scope, receive, send_with_id)


def build_middleware(
    options: ServerOptions, hooked: Sequence[Any], registry: Registry
) -> list[Middleware]:
    """The stack, outermost first. Cross-origin preflights are answered before authentication,
    as browsers send them without credentials; ``hooked`` are the hooks' classes."""
    stack: list[Middleware] = []
    if options.root_path:
        stack.append(Middleware(RootPath, options.root_path))
    if options.enable_request_id_headers:
        stack.append(Middleware(RequestIdHeaders))
    if options.allowed_origins:
        stack.append(_cross_origin(options))
    stack.append(
        Middleware(
            RequestBounds, options.max_headers, options.max_header_bytes, options.max_body_bytes
        )
    )
    if options.api_keys:
        stack.append(Middleware(Authentication, options.api_keys))
    named = [load_middleware(name, registry) for name in options.middleware]
    foreign = [*map(Middleware, hooked), *named]
    if foreign:
        # A foreign middleware that raises costs its request, and the answer says no more.
        stack += [Middleware(WithoutWriter), Middleware(ServerErrorMiddleware, handler=_failed)]
        stack += foreign
    return [Middleware(ExitGuard), *stack]


async def _failed(request: Request, error: Exception) -> Response:
    shown = as_request_error(error)
    body = error_body(shown, route_path(request.scope))
    return Response(body, shown.status, media_type="application/json")


def _cross_origin(options: ServerOptions) -> Middleware:
    if options.allow_credentials and "*" in options.allowed_origins:
        raise ConfigError(
            "--allow-credentials needs --allowed-origins without '*': any site could use the "
            "browser's credentials"
        )
    return Middleware(
        CrossOrigin,
        allow_origins=list(options.allowed_origins),
        allow_methods=list(options.allowed_methods),
        allow_headers=list(options.allowed_headers),
        allow_credentials=options.allow_credentials,
    )


def load_middleware(path: str, registry: Registry) -> Middleware:
    """A middleware plugin by its name; an ASGI middleware class, or a function ``(request,
    call_next)``, by its import path. ``PluginError`` or ``ConfigError`` where there is none."""
    if not is_class_path(path):
        made: Any = partial(registry.make, "middleware", path)
        registry.factory("middleware", path)
        return Middleware(made)
    registry.find("middleware", path)
    module, _, name = path.replace(":", ".").rpartition(".")
    try:
        loaded: Any = getattr(importlib.import_module(module), name)
    except RAISED as error:
        raise ConfigError(f"--middleware {path}: cannot be imported ({error})") from error
    if inspect.isclass(loaded):
        factory: Any = loaded
        return Middleware(factory)
    if inspect.iscoroutinefunction(loaded):
        return Middleware(BaseHTTPMiddleware, dispatch=loaded)
    raise ConfigError(f"--middleware {path}: neither a class nor a coroutine function")
