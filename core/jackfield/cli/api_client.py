"""The OpenAI API as a terminal client needs it: one question at a time, the answer as it comes."""

from __future__ import annotations

import http.client
import json
from collections.abc import Generator, Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from jackfield.errors import ApiError

CONNECT_SECONDS = 10.0


class ApiClient:
    """Talks to the server at ``url`` (``http://host:port/v1``). Not thread-safe."""

    def __init__(self, url: str, api_key: str | None = None) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ApiError(f"{url!r} is not an http or https URL")
        self._url = url
        self._https = parts.scheme == "https"
        self._host, self._port = parts.hostname, parts.port
        self._prefix = parts.path.rstrip("/")
        self._headers = {"Content-Type": "application/json"}
        if api_key:
            self._headers["Authorization"] = f"Bearer {api_key}"

    def models(self) -> list[str]:
        """The names that the server serves."""
        connection, response = self._send("GET", "/models", None)
        with connection:
            return [str(model["id"]) for model in json.loads(response.read())["data"]]

    def stream(self, path: str, body: Mapping[str, object]) -> Generator[dict[str, Any]]:
        """The chunks of the answer to a POST. Who leaves early closes the iterator: the server
        then stops computing. Raises ``ApiError`` for an error before or within the stream."""
        connection, response = self._send("POST", path, json.dumps(body).encode())
        with connection:
            for line in _lines(response, self._url):
                if not line.startswith(b"data: ") or line == b"data: [DONE]":
                    continue
                chunk: dict[str, Any] = json.loads(line[len(b"data: ") :])
                if "error" in chunk:
                    raise ApiError(str(chunk["error"].get("message", chunk["error"])))
                yield chunk

    def _send(
        self, method: str, path: str, body: bytes | None
    ) -> tuple[_Connection, http.client.HTTPResponse]:
        kind = http.client.HTTPSConnection if self._https else http.client.HTTPConnection
        connection = _Connection(kind(self._host, self._port, timeout=CONNECT_SECONDS))
        try:
            response = connection.request(method, self._prefix + path, body, self._headers)
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise ApiError(
                f"no server answers at {self._url} ({error}); "
                "start one with `jackfield serve MODEL`, or name one with --url"
            ) from None
        if response.status != http.HTTPStatus.OK:
            with connection:
                raise ApiError(_message(response))
        return connection, response


class _Connection:
    def __init__(self, connection: http.client.HTTPConnection) -> None:
        self._connection = connection

    def __enter__(self) -> _Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def request(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]
    ) -> http.client.HTTPResponse:
        self._connection.connect()
        # A long prompt may keep the first token waiting: only connecting has a deadline.
        self._connection.sock.settimeout(None)
        self._connection.request(method, path, body, dict(headers))
        return self._connection.getresponse()

    def close(self) -> None:
        self._connection.close()


def _lines(response: http.client.HTTPResponse, url: str) -> Iterator[bytes]:
    try:
        while line := response.readline():
            yield line.rstrip(b"\r\n")
    except (OSError, http.client.HTTPException) as error:
        raise ApiError(f"the connection to {url} broke off ({error})") from None


def _message(response: http.client.HTTPResponse) -> str:
    """What the server says is wrong; its status where it says nothing that can be read."""
    body = response.read()
    try:
        said = json.loads(body)["error"]["message"]
    except (ValueError, KeyError, TypeError):
        return f"the server answered {response.status} {response.reason}"
    return f"the server answered {response.status}: {said}"
