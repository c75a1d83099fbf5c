"""What the server needs of ``jackfield.llm.AsyncLLM``, and what routes share beside it."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from jackfield.contracts.generation import ChoiceDelta, GenerationRequest
from jackfield.contracts.messages import EngineReady, EngineStats
from jackfield.contracts.pooling import Pooled, PoolingRequest
from jackfield.contracts.response_store import ResponseStore
from jackfield.contracts.text import Tokenizer
from jackfield.errors import NotFoundError, OverloadedError, RequestError
from jackfield.server.errors import UnavailableError
from jackfield.server.options import ServerOptions
from jackfield.server.token_text import TokenText

if TYPE_CHECKING:
    from jackfield.llm import Observer
    from jackfield.llm.parser_counts import ParserCounts
    from jackfield.planning.pooling import PoolingPlan
    from jackfield.server.processes.siblings import Siblings
    from jackfield.text.prompt import PromptBuilder


class Plan(Protocol):
    """The part of ``ServingPlan`` that answers depend on."""

    @property
    def generation_defaults(self) -> Mapping[str, object]: ...
    @property
    def served_model_names(self) -> tuple[str, ...]: ...
    @property
    def tool_parser(self) -> str | None: ...
    @property
    def reasoning_parser(self) -> str | None: ...
    @property
    def pooling(self) -> PoolingPlan | None: ...
    @property
    def tokenizer_directory(self) -> Path: ...


class Generation(Protocol):
    """What requests are handed to: the door, or filters in front of it."""

    def stream(self, request: GenerationRequest) -> AsyncIterator[list[ChoiceDelta]]: ...
    async def collect(self, request: GenerationRequest) -> list[ChoiceDelta]: ...
    async def pool(self, request: PoolingRequest) -> Pooled: ...


class Door(Generation, Protocol):
    """The one door to generation. ``prompts`` exists once ``is_ready``."""

    @property
    def tokenizer(self) -> Tokenizer | None: ...
    @property
    def prompts(self) -> PromptBuilder: ...
    @property
    def ready(self) -> EngineReady | None: ...
    @property
    def stats(self) -> EngineStats | None: ...
    @property
    def plan(self) -> Plan: ...
    @property
    def max_model_len(self) -> int: ...
    @property
    def is_ready(self) -> bool: ...
    @property
    def is_asleep(self) -> bool: ...
    @property
    def num_waiting(self) -> int: ...
    @property
    def num_restarts(self) -> int: ...
    @property
    def parser_counts(self) -> Sequence[ParserCounts]: ...
    def observe(self, observer: Observer) -> None: ...
    def reset_prefix_cache(self) -> None: ...
    async def sleep(self, level: int) -> None: ...
    async def collective_rpc(
        self,
        method: str,
        timeout: float | None = None,
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> list[object]: ...
    async def wake_up(self) -> None: ...
    def tool_structure(
        self, tools: Sequence[Mapping[str, object]], choice: str, *, parallel: bool
    ) -> Mapping[str, object] | None: ...


class Frontend:
    """The door with the server's own state: names, bounds, and whether it is going away."""

    def __init__(
        self,
        llm: Door,
        options: ServerOptions,
        response_store: ResponseStore | None = None,
        siblings: Siblings | None = None,
    ) -> None:
        self.llm = llm
        self.options = options
        self.response_store = response_store
        """None: responses are not kept."""
        self.siblings = siblings
        """The other API processes of this server; None where this one is alone."""
        self.model_names = llm.plan.served_model_names
        self.created = int(time.time())
        self.num_active = 0
        """Generation requests under way; the response is not written yet."""
        self.is_draining = False
        """Set once, when the server was asked to stop."""

    @property
    def is_ready(self) -> bool:
        """Whether new requests are served."""
        return self.llm.is_ready and not self.is_draining

    @property
    def is_healthy(self) -> bool:
        """Whether there is an engine that serves, or sleeps, and the server is not going away."""
        return (self.llm.is_ready or self.llm.is_asleep) and not self.is_draining

    def require_ready(self) -> None:
        """Raises the 503 that a new request gets now, if it gets one."""
        if not self.is_ready:
            raise UnavailableError(f"The server {self._absence()}")

    def require_loaded(self) -> None:
        """Raises the 503 of what is known once the model is loaded. It stays while the engine is
        replaced, or sleeps."""
        if self.llm.ready is None:
            raise UnavailableError(f"The server {self._absence()}")

    def admit(self) -> None:
        """Raises the 503 or 429 that a new generation request gets now, if it gets one."""
        self.require_ready()
        if self.llm.num_waiting >= self.options.max_waiting_requests:
            raise OverloadedError("Too many requests are waiting; try again later")

    def _absence(self) -> str:
        if self.is_draining:
            return "is shutting down"
        return "sleeps" if self.llm.is_asleep else "is not ready"

    def check_model(self, name: str | None) -> str:
        """The name to answer with; ``NotFoundError`` for a model that is not served."""
        if name is None:
            return self.model_names[0]
        if name not in self.model_names:
            raise NotFoundError(
                f"The model '{name[:256]}' does not exist; "
                f"this server has {', '.join(map(repr, self.model_names))}",
                param="model",
                code="model_not_found",
            )
        return name

    def token_text(self, as_ids: bool | None = None) -> TokenText:
        """How tokens look in an answer; ``as_ids``: what the request says of it, if it does."""
        as_ids = self.options.return_tokens_as_token_ids if as_ids is None else as_ids
        return TokenText(self.llm.tokenizer, as_ids)

    def require_tokenizer(self) -> Tokenizer:
        """The tokenizer; a request that needs one is refused where there is none."""
        if self.llm.tokenizer is None:
            raise RequestError("This server runs without a tokenizer: send token ids")
        return self.llm.tokenizer


def new_id(prefix: str) -> str:
    """``chatcmpl-...``, ``cmpl-...``: never the same twice."""
    return prefix + secrets.token_hex(16)
