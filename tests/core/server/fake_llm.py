"""A door to no engine: streams what a test wrote down, over a byte tokenizer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from jackfield.config.plan import PoolerPlan
from jackfield.contracts.generation import ChoiceDelta, Finish, GenerationRequest
from jackfield.contracts.messages import EngineReady, EngineStats, TokenLogprobs
from jackfield.contracts.pooling import Pooled, PoolingRequest
from jackfield.contracts.text import Tokenizer
from jackfield.errors import EngineError, JackfieldError, RequestError
from jackfield.llm.parser_counts import ParserCounts
from jackfield.planning.pooling import PoolingPlan

Script = Callable[[GenerationRequest], AsyncIterator[list[ChoiceDelta]]]


class ByteTokenizer:
    """One token a byte; 256 is the end of the sequence."""

    vocab_size = 257
    special_ids = frozenset({256})
    eos_token_id = 256
    special_tokens: Mapping[str, str] = {"eos_token": "<eos>"}
    chat_template: str | None = None

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        return list(text.encode())

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = False) -> str:
        return bytes(i for i in ids if i < 256).decode("utf-8", "replace")

    def token_text(self, token_id: int) -> str:
        return "<eos>" if token_id == 256 else chr(token_id)

    def token_bytes(self, token_id: int) -> bytes | None:
        return b"<eos>" if token_id == 256 else bytes([token_id])


@dataclass(frozen=True)
class Rendered:
    text: str
    token_ids: tuple[int, ...]


class FakePrompts:
    """Renders chats as ``role: content`` lines; keeps what it was asked for."""

    def __init__(self, max_model_len: int) -> None:
        self.tokenizer = ByteTokenizer()
        self.max_model_len = max_model_len
        self.last_chat: dict[str, Any] = {}

    def counting(self) -> FakePrompts:
        return FakePrompts(1 << 62)

    def from_text(
        self,
        text: str,
        *,
        add_special_tokens: bool = True,
        truncate_prompt_tokens: int | None = None,
        param: str = "prompt",
    ) -> tuple[int, ...]:
        ids = self.tokenizer.encode(text)
        return self.from_ids(ids, truncate_prompt_tokens=truncate_prompt_tokens, param=param)

    def from_pair(
        self,
        text: str,
        other: str,
        *,
        truncate_prompt_tokens: int | None = None,
        params: tuple[str, str] = ("text_1", "text_2"),
    ) -> tuple[int, ...]:
        return self.from_text(
            text + other, truncate_prompt_tokens=truncate_prompt_tokens, param=params[1]
        )

    def from_ids(
        self,
        ids: Sequence[int],
        *,
        truncate_prompt_tokens: int | None = None,
        param: str = "prompt",
    ) -> tuple[int, ...]:
        ids = ids[-truncate_prompt_tokens:] if truncate_prompt_tokens else ids
        if any(not 0 <= i < 257 for i in ids):
            raise RequestError(f"{param}: a token id is out of range", param=param)
        if not ids:
            raise RequestError(f"{param} must not be empty", param=param)
        if len(ids) >= self.max_model_len:
            raise RequestError(f"{param}: too long", param, "context_length_exceeded")
        return tuple(ids)

    def from_chat(self, messages: Sequence[Mapping[str, Any]], **options: Any) -> Rendered:
        self.last_chat = {"messages": messages, **options}
        lines = [f"{message['role']}: {message.get('content')}" for message in messages]
        text = "\n".join(lines)
        return Rendered(text, self.from_ids(self.tokenizer.encode(text), param="messages"))


@dataclass
class FakePlan:
    generation_defaults: Mapping[str, object] = field(default_factory=dict)
    served_model_names: tuple[str, ...] = ("fake", "alias")
    tokenizer_directory: Path = Path("nowhere")
    tool_parser: str | None = None
    reasoning_parser: str | None = None
    pooling: PoolingPlan | None = None


EMBED = PoolingPlan("embed", PoolerPlan(kind="last"), matryoshka=())
CLASSIFY = PoolingPlan(
    "classify",
    PoolerPlan(kind="last", scores=True),
    activation="softmax",
    labels=("a", "b", "c", "d"),
)
CROSS = PoolingPlan(
    "classify", PoolerPlan(kind="last", scores=True), activation="none", labels=("a",)
)


def letters(request: GenerationRequest) -> AsyncIterator[list[ChoiceDelta]]:
    """Every choice says ``abc...``, a letter a step, until ``max_tokens``."""

    async def stream() -> AsyncIterator[list[ChoiceDelta]]:
        total = request.sampling.max_tokens or 3
        for step in range(total):
            await asyncio.sleep(0)
            yield [letter(request, index, step, total) for index in range(request.sampling.n)]

    return stream()


def letter(request: GenerationRequest, index: int, step: int, total: int) -> ChoiceDelta:
    token = 97 + (step + index) % 26
    prompt: tuple[TokenLogprobs, ...] = ()
    if step == 0 and request.sampling.prompt_logprobs is not None:
        prompt = tuple(logprob(i) for i in request.prompt_token_ids[1:])
    return ChoiceDelta(
        index=index,
        text=chr(token),
        token_ids=(token,),
        logprobs=() if request.sampling.logprobs is None else (logprob(token),),
        prompt_logprobs=prompt,
        num_cached_tokens=2 if step == 0 else 0,
        finish=Finish("length") if step == total - 1 else None,
    )


def logprob(token: int) -> TokenLogprobs:
    return TokenLogprobs(token, -0.5, 1, [token, 120], [-0.5, -1.5])


class FakeLLM:
    """Implements ``Door``. ``active`` and ``closed`` count the streams."""

    def __init__(
        self,
        script: Script = letters,
        *,
        plan: FakePlan | None = None,
        max_model_len: int = 1000,
    ) -> None:
        self.script = script
        self.plan = plan or FakePlan()
        self.max_model_len = max_model_len
        self.tokenizer: Tokenizer | None = ByteTokenizer()
        self.prompts: Any = FakePrompts(max_model_len)
        self.ready: EngineReady | None = EngineReady(100, 16, max_model_len, 257, [])
        self.stats: EngineStats | None = EngineStats(1, 2, 50, 3, 40, 30, 20, 10, 5)
        self.death: JackfieldError | None = None
        self.num_waiting = 0
        self.num_restarts = 0
        self.parser_counts: list[ParserCounts] = []
        self.is_asleep = False
        self.slept: list[int] = []
        self.requests: list[GenerationRequest] = []
        self.pooled: list[PoolingRequest] = []
        self.observers: list[Any] = []
        self.structures: list[tuple[str, bool]] | None = None
        """Tool choices it was asked a structure for; None: its parser has none."""
        self.active = 0
        self.closed = 0
        self.resets = 0

    @property
    def is_ready(self) -> bool:
        return self.ready is not None and self.death is None and not self.is_asleep

    def observe(self, observer: Any) -> None:
        self.observers.append(observer)

    def reset_prefix_cache(self) -> None:
        self.resets += 1

    async def collective_rpc(
        self,
        method: str,
        timeout: float | None = None,
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> list[object]:
        if method == "slow":
            raise TimeoutError(f"slow has not returned within {timeout} s")
        if method == "fails":
            raise RequestError("fails raised ValueError: no")
        if method != "echo":
            raise RequestError(f"{method} is no method of worker 'fake'", param="method")
        return [{"args": list(args), "kwargs": dict(kwargs or {}), "timeout": timeout}]

    async def sleep(self, level: int) -> None:
        self.is_asleep = True
        self.slept.append(level)

    async def wake_up(self) -> None:
        self.is_asleep = False

    async def stream(self, request: GenerationRequest) -> AsyncIterator[list[ChoiceDelta]]:
        if self.death is not None:
            raise EngineError("the engine process died")
        if request.sampling.logprobs is not None and request.sampling.logprobs > 20:
            raise RequestError("logprobs must be at most 20", param="logprobs")
        self.requests.append(request)
        self.active += 1
        try:
            async for deltas in self.script(request):
                yield deltas
        finally:
            self.active -= 1
            self.closed += 1

    def tool_structure(
        self, tools: Sequence[Mapping[str, object]], choice: str, *, parallel: bool
    ) -> Mapping[str, object] | None:
        if self.structures is not None:
            self.structures.append((choice, parallel))
            return {"type": "structural_tag", "format": {"type": "const_string", "value": choice}}
        return None

    async def collect(self, request: GenerationRequest) -> list[ChoiceDelta]:
        return [delta async for deltas in self.stream(request) for delta in deltas]

    async def pool(self, request: PoolingRequest) -> Pooled:
        """The first id, the last, how many there are, and 1; of a classifier, one a label. Where
        each token has a vector, the same for all."""
        self.pooled.append(request)
        ids = request.prompt_token_ids
        vector = np.array([ids[0], ids[-1], len(ids), 1], dtype=np.float32)
        plan = self.plan.pooling
        if plan is not None and plan.by_token:
            return Pooled(np.tile(vector, (len(ids), 1)))
        labels = () if plan is None else plan.labels
        return Pooled(vector[: len(labels) or None])
