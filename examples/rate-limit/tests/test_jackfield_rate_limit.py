"""The laws of a middleware, and the limit."""

import json

import pytest
from jackfield_rate_limit.plugin import RateLimitMiddleware

from jackfield.testing import MiddlewareContract
from jackfield.testing.middleware import answer_of, streaming_app


class TestRateLimit(MiddlewareContract):
    middleware = RateLimitMiddleware
    headers = ((b"authorization", b"Bearer mine"),)


def limited(**options):
    return RateLimitMiddleware(streaming_app, options=RateLimitMiddleware.Options(**options))


def status(app, key, path="/v1/completions"):
    return answer_of(app, [(b"authorization", b"Bearer " + key)], path)[0]["status"]


def test_a_key_that_asks_too_often_is_refused_and_others_are_not():
    app = limited(per_minute=1, burst=2)
    assert [status(app, b"ann") for _ in range(3)] == [200, 200, 429]
    assert status(app, b"bob") == 200


def test_the_refusal_is_openais_error_and_says_when_to_come_back():
    app = limited(per_minute=30, burst=1)
    status(app, b"ann")
    start, body = answer_of(app, [(b"authorization", b"Bearer ann")])
    assert dict(start["headers"])[b"retry-after"] == b"2"
    assert json.loads(body["body"])["error"]["code"] == "rate_limit_exceeded"


def test_a_bucket_fills_up_again(monkeypatch):
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    app = limited(per_minute=60, burst=1)
    assert (status(app, b"ann"), status(app, b"ann")) == (200, 429)
    now += 1.0
    assert status(app, b"ann") == 200


def test_liveness_and_metrics_are_not_limited():
    app = limited(per_minute=1, burst=1)
    assert {status(app, b"ann", "/health") for _ in range(5)} == {200}


@pytest.mark.parametrize("options", [{"per_minute": 0}, {"burst": 0}])
def test_options_are_checked(options):
    with pytest.raises(ValueError, match="above 0"):
        limited(**options)
