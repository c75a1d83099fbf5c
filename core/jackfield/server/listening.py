"""The socket the server listens on, bound before anything heavy starts."""

from __future__ import annotations

import errno
import os
import socket
import stat

from jackfield.errors import ConfigError
from jackfield.server.options import ServerOptions

BACKLOG = 2048


def bind(options: ServerOptions) -> socket.socket:
    """The listening socket; ``ConfigError`` says why there is none. Clients that connect before
    the server reads wait in the backlog."""
    if options.uds is not None:
        return _bind_path(options.uds)
    try:
        return _listen(options.host or "", options.port)
    except OSError as error:
        raise ConfigError(_reason(options, error)) from error


def _listen(host: str, port: int, *, reuse_port: bool = False) -> socket.socket:
    """At ``::`` for IPv4 too, where the system can."""
    is_6 = ":" in host
    return socket.create_server(
        (host, port),
        family=socket.AF_INET6 if is_6 else socket.AF_INET,
        backlog=BACKLOG,
        reuse_port=reuse_port,
        dualstack_ipv6=is_6 and socket.has_dualstack_ipv6(),
    )


def bind_several(options: ServerOptions, count: int) -> list[socket.socket]:
    """A listening socket for each of ``count`` processes, all at one address. The kernel spreads
    connections over sockets of a port; a path has one socket, which they share."""
    first = bind(options)
    if options.uds is not None or count == 1:
        return [first, *(first.dup() for _ in range(count - 1))]
    host, port = first.getsockname()[:2]
    # Bound by itself before: with the flag, the port of another server would be no error.
    first.close()
    return [_listen(host, port, reuse_port=True) for _ in range(count)]


def url(options: ServerOptions, listener: socket.socket) -> str:
    """Where clients find the server."""
    if options.uds is not None:
        return f"unix:{options.uds}"
    scheme = "https" if options.ssl_certfile else "http"
    host, port = listener.getsockname()[:2]
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}{options.root_path}"


def _reason(options: ServerOptions, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {options.port} is in use; choose another with --port"
    if error.errno == errno.EACCES:
        return f"port {options.port} may not be used by this user; choose another with --port"
    return f"cannot listen on {options.host}:{options.port}: {error.strerror or error}"


def _bind_path(path: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if _is_abandoned(path):
            os.unlink(path)
        listener.bind(path)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise ConfigError(f"--uds {path}: cannot listen there: {error.strerror}") from error
    return listener


def _is_abandoned(path: str) -> bool:
    """Whether the path is a socket that no process answers."""
    if not os.path.exists(path) or not stat.S_ISSOCK(os.stat(path).st_mode):
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        return probe.connect_ex(path) == errno.ECONNREFUSED
