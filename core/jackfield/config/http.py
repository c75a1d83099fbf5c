"""The HTTP server: where it listens, who may call it, and what a call may cost."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StringConstraints

from jackfield.config.values import HumanInt, OptionGroup, Spelling, StringList


def _not_empty(keys: tuple[str, ...]) -> tuple[str, ...]:
    """A key that is a variable without a value would neither guard the server nor open it."""
    if not all(keys):
        raise ValueError("a key is empty; give a value, or leave it out")
    return keys


Keys = Annotated[StringList, AfterValidator(_not_empty)]


class HttpOptions(OptionGroup):
    """HTTP server"""

    host: str = Field("0.0.0.0", description="address to listen on")
    port: int = Field(8000, ge=0, le=65535, description="port to listen on; 0: any free one")
    uds: str | None = Field(None, description="unix socket to listen on instead")
    api_server_count: Annotated[int, Spelling("-asc")] = Field(
        1, ge=1, le=64, description="API processes that share the port and the engine"
    )
    root_path: str = Field("", description="path prefix that a proxy in front takes off")
    api_key: Keys = Field(
        (), repr=False, description="keys of which a client must send one; none: no check"
    )
    allowed_origins: StringList = Field(("*",), description="CORS origins, a JSON list")
    allowed_methods: StringList = Field(("*",), description="CORS methods, a JSON list")
    allowed_headers: StringList = Field(("*",), description="CORS headers, a JSON list")
    allow_credentials: bool = Field(False, description="CORS credentials")
    ssl_keyfile: str | None = Field(None, description="TLS key")
    ssl_certfile: str | None = Field(None, description="TLS certificate")
    ssl_ca_certs: str | None = Field(None, description="TLS authorities that clients must be of")
    ssl_cert_reqs: int = Field(
        0, ge=0, le=2, description="client certificates: 0 none, 1 optional, 2 required"
    )
    enable_ssl_refresh: bool = Field(
        False, description="new TLS files are taken without a restart when they change"
    )
    middleware: StringList = Field(
        (),
        description="middleware plugin by name, or any ASGI middleware as module.Class or "
        "module:function, outermost first; may be repeated",
    )
    disable_fastapi_docs: bool = Field(False, description="no /docs and no /openapi.json")
    enable_reset_prefix_cache: bool = Field(
        False, description="POST /reset_prefix_cache forgets all cached prefixes"
    )
    metrics_prefix: Annotated[str, StringConstraints(pattern=r"^[a-zA-Z_][a-zA-Z0-9_]*$")] = Field(
        "jackfield", description="prefix of the metrics' names; vllm: as boards for vLLM have it"
    )
    otlp_traces_endpoint: str | None = Field(
        None, description="OpenTelemetry collector that gets a span for each request"
    )
    enable_sleep_mode: bool = Field(
        False, description="POST /sleep and /wake_up give the device's memory away for a while"
    )
    enable_tokenizer_info_endpoint: bool = Field(
        False, description="GET /tokenizer_info shows the tokenizer's configuration"
    )
    server_dev_mode: bool = Field(
        False,
        description="GET /server_info, POST /reset_prefix_cache, /collective_rpc; for development",
    )
    shutdown_timeout: float = Field(
        30.0, ge=0, description="seconds that running requests get after SIGTERM"
    )


class EngineProcessOptions(OptionGroup):
    """Engine process"""

    engine_restart_limit: int = Field(
        5,
        ge=0,
        description="early crashes of the engine in a row that end the server; 0: never replace it",
    )
    engine_heartbeat_timeout: float = Field(
        10.0, gt=0, description="seconds of silence after which a process counts as frozen"
    )
    engine_step_timeout: float = Field(
        300.0, gt=0, description="seconds after which one step of the engine counts as hung"
    )


class ApiOptions(OptionGroup):
    """API"""

    response_role: str = Field("assistant", description="role of the replies")
    return_tokens_as_token_ids: bool = Field(
        False, description="tokens in logprobs are written token_id:N"
    )
    enable_prompt_tokens_details: bool = Field(
        False, description="usage tells how many prompt tokens were cached"
    )
    enable_force_include_usage: bool = Field(
        False, description="streams end with their usage though the request does not ask for it"
    )
    enable_request_id_headers: bool = Field(False, description="replies carry X-Request-Id")
    response_store: str = Field(
        "memory", description="where /v1/responses keeps responses: memory, none, or a plugin"
    )
    max_stored_responses: HumanInt = Field(10_000, ge=0, description="most responses kept")
    max_stored_response_bytes: HumanInt = Field(
        256 << 20, ge=0, description="most bytes of kept responses together"
    )
    max_waiting_requests: HumanInt = Field(
        4096, ge=0, description="requests that may wait; the next ones get 429"
    )
    max_choices: HumanInt = Field(
        128, ge=1, description="choices of one request: n times the number of prompts"
    )
    max_body_bytes: HumanInt = Field(16 << 20, ge=1024, description="longest request body")
    max_header_bytes: Annotated[HumanInt, Spelling("--h11-max-incomplete-event-size")] = Field(
        64 << 10, ge=1024, description="longest request head"
    )
    max_headers: Annotated[int, Spelling("--h11-max-header-count")] = Field(
        100, ge=8, description="most header fields of a request"
    )
    header_timeout_seconds: float = Field(
        30.0, gt=0, description="time a client has to send the head of a request"
    )
    body_timeout_seconds: float = Field(
        60.0, gt=0, description="time a client has to send the body of a request"
    )
    read_timeout_seconds: float = Field(
        60.0, gt=0, description="time a client may leave a full buffer of its answer unread"
    )
    max_stop_strings: HumanInt = Field(16, ge=0, le=1024, description="stop strings of a request")
    max_stop_characters: HumanInt = Field(
        256, ge=1, le=65536, description="characters of one stop string"
    )
    max_logit_bias: HumanInt = Field(
        1024, ge=0, le=1 << 20, description="logit_bias entries of a request"
    )
    max_tools: HumanInt = Field(128, ge=0, le=16384, description="tools of a request")


class LogOptions(OptionGroup):
    """Logging"""

    verbose: Annotated[bool, Spelling("-v")] = Field(
        False, description="debug log; errors with their traceback"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="level of Jackfield's log"
    )
    uvicorn_log_level: Literal["debug", "info", "warning", "error", "critical", "trace"] = Field(
        "info", description="level of the HTTP server's own log"
    )
    disable_uvicorn_access_log: bool = Field(False, description="no line for each request")
    enable_log_requests: bool = Field(False, description="log each request's parameters and prompt")
    max_log_len: HumanInt | None = Field(
        None, ge=0, description="most characters of a prompt, or ids, that are logged"
    )
    disable_log_stats: bool = Field(False, description="no line with throughput while serving")
    explain_startup: bool = Field(False, description="a timeline of the start by phase")
