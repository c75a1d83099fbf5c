"""What ``LLM`` does with models that make vectors and scores."""

from __future__ import annotations

import asyncio
import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from tqdm import tqdm

from jackfield.contracts.pooling import Pooled, PoolingParams, PoolingRequest
from jackfield.errors import RequestError
from jackfield.llm.door import AsyncLLM
from jackfield.llm.pooling_outputs import (
    ClassificationOutput,
    EmbeddingOutput,
    PooledRequestOutput,
    PoolingOutput,
    ScoringOutput,
)
from jackfield.llm.scoring import make_pairs
from jackfield.llm.vectors import check_params, finish_vector
from jackfield.planning.pooling import PoolingPlan

Prompt = str | Sequence[int] | Mapping[str, object]
T = TypeVar("T")
Output = TypeVar("Output")


class OfflinePooling(ABC):
    """The methods of ``LLM`` for vectors and scores. ``pooling_params`` are for all prompts."""

    _llm: AsyncLLM
    _ids: itertools.count[int]

    @abstractmethod
    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        """Runs a coroutine in the loop's thread."""

    @abstractmethod
    def _ids_of(self, prompt: Prompt) -> tuple[tuple[int, ...], str | None]:
        """A prompt's ids, and its text if it has one."""

    def embed(
        self,
        prompts: Prompt | Sequence[Prompt],
        pooling_params: PoolingParams | None = None,
        *,
        use_tqdm: bool = True,
    ) -> list[PooledRequestOutput[EmbeddingOutput]]:
        """The embedding of every prompt, by a model with ``task="embed"``."""
        plan = self._pooling_plan("embed")
        return self._encode(plan, EmbeddingOutput, prompts, pooling_params, use_tqdm)

    def classify(
        self,
        prompts: Prompt | Sequence[Prompt],
        pooling_params: PoolingParams | None = None,
        *,
        use_tqdm: bool = True,
    ) -> list[PooledRequestOutput[ClassificationOutput]]:
        """The probabilities of the labels, for every prompt, by a sequence classifier."""
        plan = self._pooling_plan("classify")
        return self._encode(plan, ClassificationOutput, prompts, pooling_params, use_tqdm)

    def encode(
        self,
        prompts: Prompt | Sequence[Prompt],
        pooling_params: PoolingParams | None = None,
        *,
        use_tqdm: bool = True,
    ) -> list[PooledRequestOutput[PoolingOutput]]:
        """The vector of every prompt, whatever the model makes; with ``pooling_type`` ``ALL``
        ``outputs.data`` has one for each token."""
        return self._encode(self._pooling_plan(), PoolingOutput, prompts, pooling_params, use_tqdm)

    def reward(
        self,
        prompts: Prompt | Sequence[Prompt],
        pooling_params: PoolingParams | None = None,
        *,
        use_tqdm: bool = True,
    ) -> list[PooledRequestOutput[PoolingOutput]]:
        """The scores of a reward model (``task="reward"``) for every prompt."""
        plan = self._pooling_plan("classify", "token_classify")
        return self._encode(plan, PoolingOutput, prompts, pooling_params, use_tqdm)

    def score(
        self,
        data_1: str | Sequence[str],
        data_2: str | Sequence[str],
        *,
        truncate_prompt_tokens: int | None = None,
        use_tqdm: bool = True,
    ) -> list[PooledRequestOutput[ScoringOutput]]:
        """How well each pair of texts goes together: by a cross-encoder, or by the cosine of their
        embeddings. One text on the left goes with every text on the right."""
        plan = self._pooling_plan()
        firsts, seconds = (
            [data] if isinstance(data, str) else list(data) for data in (data_1, data_2)
        )
        pairs = make_pairs(
            self._llm.prompts,
            plan,
            firsts,
            seconds,
            truncate_prompt_tokens=truncate_prompt_tokens,
            params=("data_1", "data_2"),
        )
        pooled = self._call(self._pool_all([self._pooling(ids) for ids in pairs.prompts], use_tqdm))
        scores = pairs.scores([one.vector for one in pooled], plan)
        return [
            PooledRequestOutput(f"score-{next(self._ids)}", ScoringOutput(score), ids)
            for score, ids in zip(scores, pairs.seconds, strict=True)
        ]

    # --- inside ------------------------------------------------------------------------

    def _pooling_plan(self, *tasks: str) -> PoolingPlan:
        """The plan; ``RequestError`` where it is for none of the tasks, if some are named."""
        plan = self._llm.plan.pooling
        if plan is None:
            raise RequestError('this model generates text; for vectors give task="embed"')
        if tasks and plan.served_for not in tasks:
            raise RequestError(f"this model is served for {plan.served_for}, not for {tasks[0]}")
        return plan

    def _encode(
        self,
        plan: PoolingPlan,
        make: Callable[[list[float]], Output],
        prompts: Prompt | Sequence[Prompt],
        params: PoolingParams | None,
        use_tqdm: bool,
    ) -> list[PooledRequestOutput[Output]]:
        params = params or PoolingParams()
        check_params(plan, params)
        listed = [prompts] if is_one_prompt(prompts) else list(prompts)
        requests = [self._pooling(*self._ids_of(prompt)) for prompt in listed]  # type: ignore[arg-type]
        return [
            PooledRequestOutput(
                request.request_id,
                make(finish_vector(pooled.vector, plan, params).tolist()),
                request.prompt_token_ids,
                pooled.num_cached_tokens,
            )
            for request, pooled in zip(
                requests, self._call(self._pool_all(requests, use_tqdm)), strict=True
            )
        ]

    def _pooling(self, token_ids: tuple[int, ...], text: str | None = None) -> PoolingRequest:
        return PoolingRequest(f"offline-{next(self._ids)}", token_ids, text)

    async def _pool_all(self, requests: Sequence[PoolingRequest], use_tqdm: bool) -> list[Pooled]:
        return await gather_all(map(self._llm.pool, requests), len(requests), use_tqdm)


async def gather_all(work: Iterable[Coroutine[Any, Any, T]], total: int, use_tqdm: bool) -> list[T]:
    """Everything at once, in order, with a bar; the first failure ends the rest."""
    with tqdm(total=total, disable=not use_tqdm, unit="prompt") as bar:

        async def one(each: Coroutine[Any, Any, T]) -> T:
            done = await each
            bar.update(1)
            return done

        tasks = [asyncio.ensure_future(one(each)) for each in work]
        try:
            return list(await asyncio.gather(*tasks))
        finally:
            for task in tasks:
                task.cancel()


def is_one_prompt(prompts: Prompt | Sequence[Prompt]) -> bool:
    """Whether it is one and not a list of such."""
    if isinstance(prompts, str | Mapping):
        return True
    if not isinstance(prompts, Sequence):
        return False  # an iterator, which looking at would use up
    return bool(prompts) and all(isinstance(entry, int) for entry in prompts)
