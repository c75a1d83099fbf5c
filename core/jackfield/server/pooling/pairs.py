"""``POST /score`` and ``/rerank``: how well texts go together."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from jackfield.contracts.pooling import Vector
from jackfield.llm.scoring import Pairs, make_pairs
from jackfield.server.generation_route import answer_id
from jackfield.server.pooling.prepared import PreparedPooling
from jackfield.server.pooling.request import RerankRequest, ScoreRequest, document_texts
from jackfield.server.pooling.vectors import PoolingPreparer
from jackfield.server.spellings import Spelling
from jackfield.server.validation import validate


class PairPreparer(PoolingPreparer):
    """What the two share."""

    def _pairs(
        self,
        firsts: Sequence[str],
        seconds: Sequence[str],
        limit: int | None,
        params: tuple[str, str],
    ) -> Pairs:
        self._frontend.require_tokenizer()
        return make_pairs(
            self._frontend.llm.prompts,
            self._plan,
            firsts,
            seconds,
            truncate_prompt_tokens=limit,
            params=params,
        )


class Score(PairPreparer):
    """As vLLM has it."""

    fields = frozenset(ScoreRequest.model_fields)

    def prepare(
        self, data: dict[str, Any], header_id: str | None, spelling: Spelling
    ) -> PreparedPooling:
        """Checks and encodes."""
        request = validate(ScoreRequest, data)
        model = self._frontend.check_model(request.model)
        pairs = self._pairs(
            _listed(request.text_1),
            _listed(request.text_2),
            request.truncate_prompt_tokens,
            ("text_1", "text_2"),
        )
        own_id = answer_id("score-", request.request_id, header_id)

        def answer(vectors: Sequence[Vector], usage: dict[str, object]) -> dict[str, object]:
            scores = pairs.scores(vectors, self._plan)
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
        pairs = self._pairs(
            [request.query], texts, request.truncate_prompt_tokens, ("query", "documents")
        )
        own_id = answer_id("rerank-", request.request_id, header_id)
        # 0 is vLLM's word for all.
        count = request.top_n or len(texts)
        with_documents = request.return_documents is not False

        def answer(vectors: Sequence[Vector], usage: dict[str, object]) -> dict[str, object]:
            scores = pairs.scores(vectors, self._plan)
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
