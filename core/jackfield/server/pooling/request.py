"""The bodies of the pooling routes."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, WithJsonSchema

from jackfield.errors import RequestError
from jackfield.server.inputs import inputs_schema
from jackfield.server.request_fields import ShortText, StrictModel

MAX_INPUTS = 2048
"""OpenAI's bound of the texts in one request."""

Texts = str | Annotated[list[str], Field(min_length=1, max_length=MAX_INPUTS)]
Dimensions = Annotated[int, Field(ge=1, lt=2**31)]


class PoolingFields(StrictModel):
    """What all of them have; None is silence."""

    model: str | None = None
    truncate_prompt_tokens: Annotated[int, Field(ge=-1, lt=2**31)] | None = None
    truncation_side: Literal["right"] | None = None
    priority: Annotated[int, Field(ge=-(2**31), lt=2**31)] | None = None
    cache_salt: Annotated[str, StringConstraints(min_length=1, max_length=1024)] | None = None
    request_id: Annotated[str, StringConstraints(max_length=128, pattern=r"^[!-~]+$")] | None = None
    user: ShortText | None = None


class InputFields(PoolingFields):
    """Texts, ids or one conversation."""

    # Checked by ``split_inputs``.
    input: Annotated[Any, WithJsonSchema(inputs_schema(maxItems=MAX_INPUTS))] = None
    messages: Annotated[list[dict[str, Any]], Field(min_length=1)] | None = None
    add_special_tokens: bool | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    chat_template_kwargs: dict[str, Any] | None = None


class VectorFields(InputFields):
    """How vectors are written."""

    encoding_format: Literal["float", "base64"] | None = None
    embed_dtype: Literal["float32"] | None = None
    endianness: Literal["native", "little"] | None = None


class EmbeddingRequest(VectorFields):
    """OpenAI's embedding request with vLLM's extra parameters."""

    dimensions: Dimensions | None = None
    normalize: bool | None = None


class PoolRequest(VectorFields):
    """Whatever vectors the model makes."""

    task: Literal["embed", "classify", "token_embed", "token_classify", "encode"] | None = None
    dimensions: Dimensions | None = None
    normalize: bool | None = None
    use_activation: bool | None = None


class ClassifyRequest(InputFields):
    """Texts to label."""

    use_activation: bool | None = None


class PairFields(PoolingFields):
    """What requests about pairs of texts share; a classifier's scores are activated or not."""

    use_activation: bool | None = None
    max_tokens_per_query: Literal[0] | None = None
    max_tokens_per_doc: Literal[0] | None = None


class ScoreRequest(PairFields):
    """Pairs of texts: one on the left with each on the right, or by twos."""

    text_1: Texts
    text_2: Texts


class RerankRequest(PairFields):
    """Documents to sort by how well they answer a query; Jina's and Cohere's fields."""

    query: str
    documents: Annotated[list[str | dict[str, Any]], Field(min_length=1, max_length=MAX_INPUTS)]
    top_n: Annotated[int, Field(ge=0, lt=2**31)] | None = None
    return_documents: bool | None = None


def document_texts(documents: list[str | dict[str, Any]]) -> list[str]:
    """Documents are texts, or objects that have one."""
    texts = []
    for index, document in enumerate(documents):
        text = document if isinstance(document, str) else document.get("text")
        if not isinstance(text, str):
            raise RequestError(
                f"'documents[{index}]' must be a text or an object with a 'text'",
                param=f"documents[{index}]",
            )
        texts.append(text)
    return texts
