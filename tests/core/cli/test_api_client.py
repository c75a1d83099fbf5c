"""What answers a terminal client is not always what it expects: one line says so."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from jackfield.cli.api_client import ApiClient
from jackfield.cli.main import main


@pytest.mark.parametrize(
    ("head", "body", "part"),
    [
        ("200 OK", b"<html>hello</html>", "is not the OpenAI API; its address ends with /v1"),
        ("200 OK", b'{"models": []}', "is not the OpenAI API"),
        ("200 OK", b'["a"]', "is not the OpenAI API"),
        ("200 OK", b'data: {"error": "out of memory"}\n\n', "error: out of memory"),
        ("200 OK", b"data: {broken\n\n", "is not the OpenAI API"),
        ("200 OK", b"data: 3\n\n", "is not the OpenAI API"),
        ("502 Bad Gateway", b"upstream", "the server answered 502 Bad Gateway"),
        ("503 Busy", b'{"error": "come back"}', "the server answered 503: come back"),
    ],
)
@pytest.mark.parametrize("named", [True, False])
def test_another_server_than_of_this_api_is_one_line(
    head: str, body: bytes, part: str, named: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """``named``: the model is, so that the first request is the question."""
    words = ["chat", "-q", "hi", *(["--model-name", "m"] if named else [])]
    with answering(head, body, len(body)) as url:
        assert main([*words, "--url", url]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("jackfield: error: ")
    if named or b"data" not in body:
        assert part in line


@pytest.mark.parametrize("head", ["200 OK", "404 Not Found"])
def test_an_answer_that_breaks_off_is_one_line(
    head: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with answering(head, b'{"data": [', 1000) as url:
        assert main(["complete", "-q", "hi", "--url", url]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert f"the connection to {url} broke off" in line


@pytest.mark.parametrize("url", ["http://host:port/v1", "http://[::1/v1", "http://host:99999/v1"])
def test_what_is_no_address_is_one_line(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["chat", "-q", "hi", "--url", url]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "is no URL: " in line


def test_a_wrong_option_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["chat", "--max-tokens", "many"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "jackfield: error: argument --max-tokens: invalid int value: 'many'"


def test_an_address_without_a_path_is_that_of_the_api() -> None:
    asked: list[bytes] = []
    with answering("200 OK", b'{"data": [{"id": "m"}]}', 23, asked) as url:
        for address in (url, url.removesuffix("/v1"), url.removesuffix("v1")):
            assert ApiClient(address).models() == ["m"]
    assert [request.split()[1] for request in asked] == [b"/v1/models"] * 3


@contextmanager
def answering(
    head: str, body: bytes, length: int, asked: list[bytes] | None = None
) -> Iterator[str]:
    """A server that answers every request so, and says that the body has this length. ``asked``
    gets the requests."""

    def answer(listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection:
                    request = connection.recv(65536)
                    if asked is not None:
                        asked.append(request)
                    said = f"HTTP/1.1 {head}\r\nContent-Length: {length}\r\n\r\n"
                    connection.sendall(said.encode() + body)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=answer, args=(listener,))
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
