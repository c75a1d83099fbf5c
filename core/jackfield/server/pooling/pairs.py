"""``POST /score`` and ``/rerank``: how well texts go together."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from jackfield.contracts.pooling import PoolingParams, Vector
from jackfield.llm.scoring import Pairs, make_pairs
from jackfield.llm.vectors import check_params
from jackfield.server.generation_route import answer_id
from jackfield.server.pooling.prepared import PreparedPooling
from jackfield.server.pooling.request import (
    PairFields,
    RerankRequest,
    ScoreRequest,
    document_texts,
)
from jackfield.server.pooling.vectors import PoolingPreparer
from jackfield.server.spellings import Spelling
from jackfield.server.validation import validate


class PairPreparer(PoolingPreparer):
    """What the two share."""

    def _pairs(
        self,
        request: PairFields,
        firsts: Sequence[str],
        seconds: Sequence[str],
        params: tuple[str, str],
    ) -> tuple[Pairs, PoolingParams]:
        self._frontend.require_tokenizer()
        pooling = PoolingParams(use_activation=request.use_activation)
        check_params(self._plan, pooling)
        pairs = make_pairs(
            self._frontend.llm.prompts,
            self._plan,
            firsts,
            seconds,
            truncate_prompt_tokens=request.truncate_prompt_tokens,
            params=params,
        )
        return pairs, pooling


class Score(PairPreparer):
    """As vLLM has it."""

    fields = frozenset(ScoreRequest.model_fields)

    def prepare(
        self, data: dict[str, Any], header_id: str | None, spelling: Spelling
    ) -> PreparedPooling:
        """Checks and encodes."""
        request = validate(ScoreRequest, data)
        model = self._frontend.check_model(request.model)
        texts = _listed(request.text_1), _listed(request.text_2)
        pairs, params = self._pairs(request, *texts, ("text_1", "text_2"))
        own_id = answer_id("score-", request.request_id, header_id)

        def answer(vectors: Sequence[Vector], usage: dict[str, object]) -> dict[str, object]:
            scores = pairs.scores(vectors, self._plan, params)
            return {
                "id": own_id,
                "object": "list",
                "created": int(time.time()),
                "model": model,
                "data": [
                    {"index": index, "object": "score", "score": score}
                    for index, score in enumerate(scores)
                ],
                "usage": usage,
            }

        encoded = [(None, ids) for ids in pairs.prompts]
        return self._prepared(request, own_id, encoded, answer, spelling)


class Rerank(PairPreparer):
    """As Jina and Cohere have it: the best documents first."""

    fields = frozenset(RerankRequest.model_fields)

    def prepare(
        self, data: dict[str, Any], header_id: str | None, spelling: Spelling
    ) -> PreparedPooling:
        """Checks and encodes."""
        request = validate(RerankRequest, data)
        model = self._frontend.check_model(request.model)
        texts = document_texts(request.documents)
        pairs, params = self._pairs(request, [request.query], texts, ("query", "documents"))
        own_id = answer_id("rerank-", request.request_id, header_id)
        # 0 is vLLM's word for all.
        count = request.top_n or len(texts)
        with_documents = request.return_documents is not False

        def answer(vectors: Sequence[Vector], usage: dict[str, object]) -> dict[str, object]:
            scores = pairs.scores(vectors, self._plan, params)
            best = sorted(range(len(scores)), key=lambda index: -scores[index])[:count]
            results: list[dict[str, object]] = [
                {"index": index, "relevance_score": scores[index]} for index in best
            ]
            if with_documents:
                for result, index in zip(results, best, strict=True):
                    result["document"] = {"text": texts[index]}
            return {"id": own_id, "model": model, "usage": usage, "results": results}

        encoded = [(None, ids) for ids in pairs.prompts]
        return self._prepared(request, own_id, encoded, answer, spelling)


def _listed(texts: str | list[str]) -> list[str]:
    return [texts] if isinstance(texts, str) else texts
