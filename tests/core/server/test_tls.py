"""TLS: served, asked of clients, renewed."""

from __future__ import annotations

import asyncio
import logging
import ssl
import subprocess
from pathlib import Path

import pytest
from tests.core.server.fake_llm import FakeLLM
from tests.core.server.http_server import serving
from tests.waiting import until

from jackfield.errors import ConfigError
from jackfield.server.lifecycle import uvicorn_config
from jackfield.server.options import ServerOptions
from jackfield.server.tls import refresh_certificates


def certificate(directory: Path, name: str) -> dict[str, str]:
    """A self-signed certificate; the options that name it."""
    key, cert = directory / "key.pem", directory / "cert.pem"
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"
        f" -keyout {key} -out {cert} -subj /CN={name} -addext subjectAltName=DNS:{name}"
    )
    subprocess.run(command.split(), check=True, capture_output=True)
    return {"ssl_keyfile": str(key), "ssl_certfile": str(cert)}


async def common_name(port: int) -> str:
    """Who the server says it is."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    pem = ssl.DER_cert_to_PEM_cert(der)
    shown = subprocess.run(
        ["openssl", "x509", "-noout", "-subject"], input=pem, capture_output=True, text=True
    )
    return shown.stdout.strip().rpartition("=")[2].strip()


async def test_a_server_speaks_tls(tmp_path: Path) -> None:
    async with serving(FakeLLM(), **certificate(tmp_path, "one")) as url:
        assert await common_name(int(url.rpartition(":")[2])) == "one"


async def test_new_files_are_taken_and_broken_ones_are_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    options = ServerOptions(**certificate(tmp_path, "one"))  # type: ignore[arg-type]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(str(options.ssl_certfile), options.ssl_keyfile)
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    caplog.set_level(logging.INFO, "jackfield.server.tls")
    refreshing = asyncio.create_task(refresh_certificates(context, options, seconds=0.02))
    async with server:
        assert await common_name(port) == "one"
        certificate(tmp_path, "two")
        await until(lambda: "in use" in caplog.text)
        assert await common_name(port) == "two"
        caplog.clear()
        Path(str(options.ssl_certfile)).write_text("nonsense")
        await until(lambda: "the old ones stay" in caplog.text)
        assert await common_name(port) == "two"
    refreshing.cancel()
    await asyncio.wait({refreshing})


def test_a_certificate_that_is_not_there_ends_the_start() -> None:
    options = ServerOptions(ssl_certfile="nowhere.pem", ssl_keyfile="nowhere.key")
    with pytest.raises(ConfigError, match=r"nowhere\.pem"):
        uvicorn_config(lambda *_: None, options)  # type: ignore[arg-type]
