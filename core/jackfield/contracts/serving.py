"""What stands between the client and the API. No torch here.

Kind ``jackfield.middleware`` (``--middleware``, repeatable).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, ClassVar, Protocol

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]


class Middleware(Protocol):
    """An ASGI middleware; made once, before the server starts, as ``cls(app)``.

    It stands inside the server's own checks (bounds, cross-origin, API keys) and around every
    route. The first one named is the outermost. A class path (``--middleware module.Class``) may
    be any ASGI middleware, without ``name`` and ``api_version``.

    What it raises before the answer has begun is a status 500 for that request alone. It must not
    block: it runs in the event loop. ``scope["type"]`` may be ``http`` only.
    """

    name: ClassVar[str]
    api_version: ClassVar[int]

    def __init__(self, app: Application) -> None: ...

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one request: passes it to ``app``, or answers it."""
        ...
