"""What the server is built from: the few options it needs, frozen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jackfield.config.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions:
    """The HTTP frontend's options; ``options_from_settings`` fills them."""

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
    enable_ssl_refresh: bool = False
    uvicorn_log_level: str = "info"
    access_log: bool = False
    log_requests: bool = False
    max_log_len: int | None = None
    log_stats: bool = True
    enable_docs: bool = True
    enable_request_id_headers: bool = False
    enable_force_include_usage: bool = False
    enable_prompt_tokens_details: bool = False
    enable_reset_prefix_cache: bool = False
    """``POST /reset_prefix_cache`` exists; a control route, off unless asked for."""
    metrics_prefix: str = "jackfield"
    otlp_traces_endpoint: str | None = None
    enable_sleep_mode: bool = False
    enable_tokenizer_info: bool = False
    server_dev_mode: bool = False
    shown_settings: Mapping[str, Any] = field(default_factory=dict)
    """What ``/server_info`` shows; empty without ``server_dev_mode``."""
    logits_processor_pattern: str | None = None
    return_tokens_as_token_ids: bool = False
    response_role: str = "assistant"
    response_store: str = "memory"
    """Name of a ``response_stores`` plugin; ``none``: responses are not kept."""
    max_stored_responses: int = 10_000
    max_stored_response_bytes: int = 256 << 20
    max_body_bytes: int = 16 << 20
    max_header_bytes: int = 64 << 10
    max_headers: int = 100
    header_timeout_seconds: float = 30.0
    body_timeout_seconds: float = 60.0
    read_timeout_seconds: float = 60.0
    max_choices: int = 128
    """The most choices of one request: n times the number of prompts."""
    max_stop_strings: int = 16
    max_stop_characters: int = 256
    max_logit_bias: int = 1024
    max_tools: int = 128
    max_waiting_requests: int = 4096
    shutdown_timeout_seconds: float = 30.0
    explain_startup: bool = False
    tokenizer_threads: int = 0
    """Threads for long prompts; 0: as the machine has."""


def options_from_settings(settings: Settings) -> ServerOptions:
    """The server's part of all options.

    Addresses are not logged unless somebody asks: uvicorn's access log is on with
    ``--no-disable-uvicorn-access-log`` or ``--uvicorn-log-level debug``.
    """
    wants_access_log = (
        "disable_uvicorn_access_log" in settings.model_fields_set
        or settings.uvicorn_log_level in ("debug", "trace")
    )
    named_otherwise: dict[str, Any] = {
        "api_keys": settings.api_key,
        "access_log": wants_access_log and not settings.disable_uvicorn_access_log,
        "log_requests": settings.enable_log_requests,
        "log_stats": not settings.disable_log_stats,
        "enable_docs": not settings.disable_fastapi_docs,
        "enable_tokenizer_info": settings.enable_tokenizer_info_endpoint,
        "shown_settings": _shown(settings) if settings.server_dev_mode else {},
        "shutdown_timeout_seconds": settings.shutdown_timeout,
        "tokenizer_threads": settings.tokenizer_pool_size,
    }
    others = {each.name for each in fields(ServerOptions)} - set(named_otherwise)
    return ServerOptions(**named_otherwise, **{name: getattr(settings, name) for name in others})


def _shown(settings: Settings) -> dict[str, Any]:
    """Everything but the keys."""
    return settings.model_dump(mode="json", exclude={"api_key"})
