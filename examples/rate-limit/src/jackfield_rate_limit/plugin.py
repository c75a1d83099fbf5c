"""A limit on the requests of each API key: a token bucket a key."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import ClassVar

from jackfield.contracts.serving import Application, Receive, Scope, Send

MAX_BUCKETS = 100_000
PREFIX = "/v1/"


@dataclass(slots=True)
class Bucket:
    """What a key may still spend, as of ``at`` (monotonic seconds)."""

    tokens: float
    at: float


class RateLimitMiddleware:
    """Answers 429 with ``Retry-After`` to a key that asks too often; below ``/v1/`` alone.

    A request without a key counts for its address. Keys are kept as digests.
    """

    name: ClassVar[str] = "rate_limit"
    api_version: ClassVar[int] = 1

    @dataclass(frozen=True)
    class Options:
        """--plugin-option rate_limit.per_minute=N --plugin-option rate_limit.burst=N"""

        per_minute: float = field(default=60.0, metadata={"help": "requests of a key in a minute"})
        burst: int = field(default=10, metadata={"help": "requests of a key at once"})

        def __post_init__(self) -> None:
            if not (math.isfinite(self.per_minute) and self.per_minute > 0 and self.burst >= 1):
                raise ValueError("per_minute must be above 0, and burst at least 1")

    def __init__(self, app: Application, *, options: Options = Options()) -> None:
        self._app = app
        self._per_second = options.per_minute / 60
        self._burst = float(options.burst)
        self._buckets: OrderedDict[bytes, Bucket] = OrderedDict()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes the request on, or refuses it. O(1)."""
        wait = 0.0
        if scope["type"] == "http" and scope["path"].startswith(PREFIX):
            wait = self._spend(_whose(scope), time.monotonic())
        if not wait:
            await self._app(scope, receive, send)
            return
        body = json.dumps(
            {
                "error": {
                    "message": "Too many requests for this key; try again later",
                    "type": "rate_limit_error",
                    "param": None,
                    "code": "rate_limit_exceeded",
                }
            }
        ).encode()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
            (b"retry-after", b"%d" % math.ceil(wait)),
        ]
        await send({"type": "http.response.start", "status": 429, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def _spend(self, key: bytes, now: float) -> float:
        """0 where the request may pass; else the seconds until it may."""
        bucket = self._buckets.pop(key, None) or Bucket(self._burst, now)
        bucket.tokens = min(self._burst, bucket.tokens + (now - bucket.at) * self._per_second)
        bucket.at = now
        self._buckets[key] = bucket
        if len(self._buckets) > MAX_BUCKETS:
            self._buckets.popitem(last=False)
        if bucket.tokens < 1:
            return (1 - bucket.tokens) / self._per_second
        bucket.tokens -= 1
        return 0.0


def _whose(scope: Scope) -> bytes:
    for name, value in scope["headers"]:
        if name == b"authorization":
            return hashlib.sha256(value).digest()
    client = scope.get("client")
    return repr(client[0] if client else None).encode()
