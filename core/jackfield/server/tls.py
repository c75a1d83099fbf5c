"""New certificates without a restart."""

from __future__ import annotations

import asyncio
import logging
import os
import ssl

from jackfield.server.options import ServerOptions

log = logging.getLogger(__name__)

CHECK_SECONDS = 10.0


async def refresh_certificates(
    context: ssl.SSLContext, options: ServerOptions, seconds: float = CHECK_SECONDS
) -> None:
    """Loads the files again whenever one has changed, for connections made from then on; runs until
    cancelled. Files that cannot be used are told, and the old ones stay."""
    assert options.ssl_certfile is not None, "called where there is TLS"
    files = [options.ssl_certfile, options.ssl_keyfile, options.ssl_ca_certs]
    seen = _stamps(files)
    while True:
        await asyncio.sleep(seconds)
        now = _stamps(files)
        if now == seen:
            continue
        seen = now
        try:
            context.load_cert_chain(options.ssl_certfile, options.ssl_keyfile)
            if options.ssl_ca_certs is not None:
                context.load_verify_locations(options.ssl_ca_certs)
        except OSError as error:
            log.error("the new TLS files cannot be used, the old ones stay: %s", error)
        else:
            log.info("new TLS files are in use")


def _stamps(files: list[str | None]) -> list[int]:
    """When each was written; 0 for a file that is not there, as in the midst of a change."""
    stamps = []
    for file in files:
        try:
            stamps.append(0 if file is None else os.stat(file).st_mtime_ns)
        except OSError:
            stamps.append(0)
    return stamps
