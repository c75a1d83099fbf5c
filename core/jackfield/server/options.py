"""What the server is built from: the few options it needs, frozen."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions:
    """The HTTP frontend's options; ``jackfield.server.run`` fills them from the settings."""

    host: str = "127.0.0.1"
    port: int = 8000
    uds: str | None = None
    root_path: str = ""
    api_keys: tuple[str, ...] = ()
    allowed_origins: tuple[str, ...] = ("*",)
    allowed_methods: tuple[str, ...] = ("*",)
    allowed_headers: tuple[str, ...] = ("*",)
    allow_credentials: bool = False
    middleware: tuple[str, ...] = ()
    """Import paths (``module.Class`` or ``module:function``), outermost first."""
    ssl_keyfile: str | None = None
    ssl_certfile: str | None = None
    ssl_ca_certs: str | None = None
    ssl_cert_reqs: int = 0
    log_level: str = "info"
    access_log: bool = False
    enable_docs: bool = True
    enable_request_id_headers: bool = False
    enable_prompt_tokens_details: bool = False
    enable_reset_prefix_cache: bool = False
    """``POST /reset_prefix_cache`` exists; a control route, off unless asked for."""
    return_tokens_as_token_ids: bool = False
    response_role: str = "assistant"
    max_body_bytes: int = 16 << 20
    max_header_bytes: int = 64 << 10
    max_headers: int = 100
    header_timeout_seconds: float = 30.0
    body_timeout_seconds: float = 60.0
    max_choices: int = 128
    """The most choices of one request: n times the number of prompts."""
    max_waiting_requests: int = 4096
    shutdown_timeout_seconds: float = 30.0
    explain_startup: bool = False
