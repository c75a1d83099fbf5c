"""Where a server can be reached."""

from __future__ import annotations

import socket

import pytest

from jackfield.server.listening import bind, bind_several
from jackfield.server.options import ServerOptions


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6 here")
@pytest.mark.parametrize("count", [1, 2])
def test_the_address_of_all_interfaces_takes_both_versions_of_ip(count: int) -> None:
    options = ServerOptions(host="::", port=0)
    listeners = [bind(options)] if count == 1 else bind_several(options, count)
    port = listeners[0].getsockname()[1]
    for host in ("127.0.0.1", "::1"):
        socket.create_connection((host, port), 1).close()
    for listener in listeners:
        listener.close()
