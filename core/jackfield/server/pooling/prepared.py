"""A pooling request that was checked: its prompts, and how the answer is made of their vectors."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from jackfield.contracts.pooling import Pooled, PoolingRequest, Vector
from jackfield.server.asgi import Exchange
from jackfield.server.delivery import deliver_body, run_all
from jackfield.server.door import Generation
from jackfield.server.json_bytes import dumps
from jackfield.server.spellings import Spelling

LARGE_ANSWER_NUMBERS = 16384
"""From here on an answer is written in a thread: it must not hold up the others."""

MakeAnswer = Callable[[Sequence[Vector], dict[str, object]], dict[str, object]]
"""The vectors of the prompts, as the engine gave them, and the usage to the answer's JSON."""


@dataclass(frozen=True, slots=True)
class PreparedPooling:
    """What ``GenerationRoute`` delivers. ``usage_details`` tells cached tokens."""

    requests: Sequence[PoolingRequest]
    answer: MakeAnswer
    spelling: Spelling
    usage_details: bool

    async def deliver(self, llm: Generation, exchange: Exchange) -> None:
        """Computes and answers."""
        await deliver_body(lambda: self._body(llm), self.spelling, exchange)

    async def _body(self, llm: Generation) -> bytes:
        pooled = await run_all(llm.pool, self.requests)
        if sum(one.vector.size for one in pooled) < LARGE_ANSWER_NUMBERS:
            return self._written(pooled)
        return await asyncio.to_thread(self._written, pooled)

    def _written(self, pooled: Sequence[Pooled]) -> bytes:
        return dumps(self.answer([one.vector for one in pooled], self._usage(pooled)))

    def _usage(self, pooled: Sequence[Pooled]) -> dict[str, object]:
        count = sum(len(request.prompt_token_ids) for request in self.requests)
        usage: dict[str, object] = {"prompt_tokens": count, "total_tokens": count}
        if self.usage_details:
            cached = sum(one.num_cached_tokens for one in pooled)
            usage["prompt_tokens_details"] = {"cached_tokens": cached}
        return usage
