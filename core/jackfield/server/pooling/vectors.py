"""``POST /v1/embeddings``, ``/pooling`` and ``/classify``: a vector for each input."""

from __future__ import annotations

import base64
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Generic, TypeVar

from jackfield.contracts.pooling import PoolingParams, PoolingRequest, Vector
from jackfield.errors import RequestError
from jackfield.llm.vectors import check_params, finish_vector
from jackfield.planning.pooling import PoolingPlan
from jackfield.server.chat_request import check_messages
from jackfield.server.door import Frontend
from jackfield.server.generation_route import Preparer, answer_id
from jackfield.server.inputs import Encoded, encode_input, split_inputs
from jackfield.server.pooling.prepared import MakeAnswer, PreparedPooling
from jackfield.server.pooling.request import (
    MAX_INPUTS,
    ClassifyRequest,
    EmbeddingRequest,
    InputFields,
    PoolingFields,
    PoolRequest,
)
from jackfield.server.spellings import Spelling
from jackfield.server.validation import validate

Request = TypeVar("Request", bound=InputFields)


class PoolingPreparer(Preparer):
    """What the pooling routes share."""

    def __init__(self, frontend: Frontend, plan: PoolingPlan) -> None:
        self._frontend = frontend
        self._plan = plan

    def _prepared(
        self,
        request: PoolingFields,
        answer_id: str,
        encoded: Sequence[Encoded],
        answer: MakeAnswer,
        spelling: Spelling,
    ) -> PreparedPooling:
        requests = [
            PoolingRequest(
                request_id=answer_id if len(encoded) == 1 else f"{answer_id}-{index}",
                prompt_token_ids=ids,
                prompt_text=text,
                priority=request.priority or 0,
                cache_salt=request.cache_salt,
                user=request.user,
            )
            for index, (text, ids) in enumerate(encoded)
        ]
        details = self._frontend.options.enable_prompt_tokens_details
        return PreparedPooling(requests, answer, spelling, details)


class VectorPreparer(PoolingPreparer, ABC, Generic[Request]):
    """Inputs to vectors, one each."""

    body: type[Request]
    """The request's model."""
    kind: ClassVar[str]
    """What its answers' ids begin with."""

    @abstractmethod
    def params(self, request: Request) -> PoolingParams:
        """What is done to a vector; raises for what the model cannot do."""

    @abstractmethod
    def entry(self, request: Request) -> Callable[[Vector], dict[str, object]]:
        """What the answer says of one vector, finished."""

    def prepare(
        self, data: dict[str, Any], header_id: str | None, spelling: Spelling
    ) -> PreparedPooling:
        """Checks and encodes."""
        request = validate(self.body, data)
        model = self._frontend.check_model(request.model)
        params, entry = self.params(request), self.entry(request)
        check_params(self._plan, params)
        encoded = self._encoded(request)
        own_id = answer_id(self.kind, request.request_id, header_id)

        def answer(vectors: Sequence[Vector], usage: dict[str, object]) -> dict[str, object]:
            finished = (finish_vector(one, self._plan, params) for one in vectors)
            return {
                "id": own_id,
                "object": "list",
                "created": int(time.time()),
                "model": model,
                "data": [{"index": i, **entry(one)} for i, one in enumerate(finished)],
                "usage": usage,
            }

        return self._prepared(request, own_id, encoded, answer, spelling)

    def _encoded(self, request: InputFields) -> list[Encoded]:
        if (request.input is None) == (request.messages is None):
            raise RequestError("Send either 'input' or 'messages'", param="input")
        if request.messages is not None:
            return [self._chat(request, request.messages)]
        inputs = split_inputs(request.input, "input")
        if len(inputs) > MAX_INPUTS:
            raise RequestError(
                f"'input' has {len(inputs)} texts, at most {MAX_INPUTS}", param="input"
            )
        return [encode_input(self._frontend, one, "input", request) for one in inputs]

    def _chat(self, request: InputFields, messages: list[dict[str, Any]]) -> Encoded:
        self._frontend.require_tokenizer()
        check_messages(messages)
        rendered = self._frontend.llm.prompts.from_chat(
            messages,
            add_generation_prompt=bool(request.add_generation_prompt),
            continue_final_message=bool(request.continue_final_message),
            add_special_tokens=bool(request.add_special_tokens),
            template_kwargs=request.chat_template_kwargs or {},
            truncate_prompt_tokens=request.truncate_prompt_tokens,
        )
        return rendered.text, rendered.token_ids


class Embeddings(VectorPreparer[EmbeddingRequest]):
    """As OpenAI has it."""

    body = EmbeddingRequest
    fields = frozenset(EmbeddingRequest.model_fields)
    kind = "embd-"

    def params(self, request: EmbeddingRequest) -> PoolingParams:
        return PoolingParams(dimensions=request.dimensions, normalize=request.normalize)

    def entry(self, request: EmbeddingRequest) -> Callable[[Vector], dict[str, object]]:
        write = _writer(request.encoding_format)
        return lambda vector: {"object": "embedding", "embedding": write(vector)}


class Pooling(VectorPreparer[PoolRequest]):
    """As vLLM has it."""

    body = PoolRequest
    fields = frozenset(PoolRequest.model_fields)
    kind = "pool-"

    def params(self, request: PoolRequest) -> PoolingParams:
        served = self._plan.served_for
        # ``encode`` is what vLLM calls whatever a model makes.
        if request.task not in (None, "encode", served):
            raise RequestError(
                f"'task' is {request.task}; this model is served for {served}", param="task"
            )
        return PoolingParams(request.dimensions, request.normalize, request.use_activation)

    def entry(self, request: PoolRequest) -> Callable[[Vector], dict[str, object]]:
        write = _writer(request.encoding_format)
        return lambda vector: {"object": "pooling", "data": write(vector)}


class Classification(VectorPreparer[ClassifyRequest]):
    """As vLLM has it."""

    body = ClassifyRequest
    fields = frozenset(ClassifyRequest.model_fields)
    kind = "classify-"

    def params(self, request: ClassifyRequest) -> PoolingParams:
        return PoolingParams(use_activation=request.use_activation)

    def entry(self, request: ClassifyRequest) -> Callable[[Vector], dict[str, object]]:
        return self._label

    def _label(self, probs: Vector) -> dict[str, object]:
        return {
            "label": self._plan.labels[int(probs.argmax())],
            "probs": probs.tolist(),
            "num_classes": len(probs),
        }


def _writer(encoding_format: str | None) -> Callable[[Vector], object]:
    return _as_base64 if encoding_format == "base64" else _as_numbers


def _as_base64(vector: Vector) -> str:
    """Little-endian float32, as OpenAI's clients read it."""
    return base64.b64encode(vector.astype("<f4", copy=False).tobytes()).decode()


def _as_numbers(vector: Vector) -> list[float]:
    numbers: list[float] = vector.tolist()
    return numbers
