"""A small HTTP/1.1 client for load generation: one connection, one request at a time.

A general client library costs more CPU per chunk than the server under test (both run on one
machine in most benchmarks), so this one does the least that a load test needs.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from urllib.parse import urlsplit

READ_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server listens; from ``http://host:port/prefix``."""

    host: str
    port: int
    prefix: str
    tls: bool

    @classmethod
    def parse(cls, url: str) -> Address:
        """Raises ``ValueError`` for anything but an http or https URL."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{url!r} is not an http or https URL")
        tls = parts.scheme == "https"
        return cls(parts.hostname, parts.port or (443 if tls else 80), parts.path.rstrip("/"), tls)


class Connection:
    """A keep-alive connection; reconnects when the server closed it."""

    def __init__(self, address: Address, headers: dict[str, str]) -> None:
        self._address = address
        self._headers = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def post(self, path: str, body: bytes) -> tuple[int, AsyncIterator[bytes]]:
        """Sends a JSON body; returns the status and the pieces of the answer as they arrive."""
        status, _, pieces = await self.post_for_headers(path, body)
        return status, pieces

    async def post_for_headers(
        self, path: str, body: bytes
    ) -> tuple[int, dict[str, str], AsyncIterator[bytes]]:
        """The same with the answer's headers, names in lower case."""
        address = self._address
        if self._writer is None or self._reader is None or self._has_ended(self._reader):
            self.close()
            context = ssl.create_default_context() if address.tls else None
            self._reader, self._writer = await asyncio.open_connection(
                address.host, address.port, ssl=context
            )
        head = (
            f"POST {address.prefix}{path} HTTP/1.1\r\nHost: {address.host}:{address.port}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n{self._headers}\r\n"
        )
        self._writer.write(head.encode("latin-1") + body)
        status, headers = await self._read_head(self._reader)
        return status, headers, self._read_body(self._reader, headers)

    def _has_ended(self, reader: asyncio.StreamReader) -> bool:
        """Whether the server, or this end, has closed it meanwhile."""
        return reader.at_eof() or (self._writer is not None and self._writer.is_closing())

    def close(self) -> None:
        """Closes the connection at once."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    async def _read_head(self, reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
        raw = await reader.readuntil(b"\r\n\r\n")
        lines = raw.decode("latin-1").split("\r\n")
        pairs = (line.split(":", 1) for line in lines[1:] if ":" in line)
        headers = {name.strip().lower(): value.strip() for name, value in pairs}
        return int(lines[0].split(" ", 2)[1]), headers

    async def _read_body(
        self, reader: asyncio.StreamReader, headers: dict[str, str]
    ) -> AsyncIterator[bytes]:
        if headers.get("transfer-encoding", "").lower() == "chunked":
            async for piece in _read_chunks(reader):
                yield piece
        else:
            yield await reader.readexactly(int(headers.get("content-length", "0")))
        if headers.get("connection", "").lower() == "close":
            self.close()


async def _read_chunks(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """The content of a body in chunks; what has come together is one piece."""
    data = b""
    while True:
        pieces, used, is_last = _whole_chunks(data)
        if pieces:
            yield pieces[0] if len(pieces) == 1 else b"".join(pieces)
        if is_last:
            return
        more = await reader.read(READ_BYTES)
        if not more:
            raise asyncio.IncompleteReadError(data[used:], None)
        data = data[used:] + more


def _whole_chunks(data: bytes) -> tuple[list[bytes], int, bool]:
    """The contents of the chunks that are all there, how many bytes they and their frames have, and
    whether the last of the body is among them."""
    contents: list[bytes] = []
    start = 0
    while (end := data.find(b"\r\n", start)) >= 0:
        size = int(data[start:end], 16)
        behind = end + size + 4
        if behind > len(data):
            break
        if not size:
            return contents, behind, True
        contents.append(data[end + 2 : behind - 2])
        start = behind
    return contents, start, False
