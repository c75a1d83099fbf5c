"""The fields that chat and completion requests share."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from jackfield.errors import RequestError

# How far the options that bound these may be raised; see ``request_limits``.
MAX_STOPS = 1024
MAX_STOP_CHARACTERS = 65536
MAX_LOGIT_BIAS = 1 << 20

MAX_WORDS = 1024
MAX_TOKENS = 1 << 19
MAX_PROCESSORS = 32

StopString = Annotated[str, StringConstraints(max_length=MAX_STOP_CHARACTERS)]
Stops = StopString | Annotated[list[StopString], Field(max_length=MAX_STOPS)]
# Each is encoded twice, while others wait.
BadWord = Annotated[str, StringConstraints(max_length=256)]
ShortText = Annotated[str, StringConstraints(max_length=1024)]
TokenId = Annotated[int, Field(ge=0, lt=2**31)]


class StrictModel(BaseModel):
    """Takes no value of another type than declared, and no field that it does not know, unless that
    is null."""

    model_config = ConfigDict(extra="forbid", strict=True)
    # ``model_fields`` takes longer than all of what it is asked for with every object.
    _known: ClassVar[frozenset[str]] = frozenset()

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        cls._known = frozenset(cls.model_fields)

    @model_validator(mode="before")
    @classmethod
    def _without_silence(cls, data: Any) -> Any:
        known = cls._known
        if type(data) is not dict or data.keys() <= known:
            return data
        return {name: data[name] for name in data if name in known or data[name] is not None}


class StreamOptions(StrictModel):
    """What a stream says beside the text."""

    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None
    include_obfuscation: Literal[False] | None = None


def stream_options(given: StreamOptions | None, always_usage: bool) -> StreamOptions:
    """What a request's stream says beside the text; ``always_usage``: its usage, asked or not."""
    options = given or StreamOptions()
    return options.model_copy(update={"include_usage": True}) if always_usage else options


class SamplingFields(StrictModel):
    """Sampling, stopping and bookkeeping, in every generation request; None is silence.

    Fields named as in ``SamplingParams`` are passed there as they are, and checked there.
    """

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    seed: int | None = None
    min_tokens: int | None = None
    stop_token_ids: Annotated[list[TokenId], Field(max_length=MAX_WORDS)] | None = None
    bad_words: Annotated[list[BadWord], Field(max_length=MAX_WORDS)] | None = None
    allowed_token_ids: Annotated[list[TokenId], Field(max_length=MAX_TOKENS)] | None = None
    logit_bias: Annotated[dict[str, float], Field(max_length=MAX_LOGIT_BIAS)] | None = None
    ignore_eos: bool | None = None
    include_stop_str_in_output: bool | None = None
    skip_special_tokens: bool | None = None
    spaces_between_special_tokens: bool | None = None

    # Checked by ``structured``, which knows the kinds.
    response_format: dict[str, Any] | None = None
    structured_outputs: dict[str, Any] | None = None

    # Checked by ``processors``, which knows what the server allows.
    logits_processors: Annotated[list[Any], Field(max_length=MAX_PROCESSORS)] | None = None
    vllm_xargs: Annotated[dict[str, Any], Field(max_length=MAX_PROCESSORS)] | None = None

    priority: Annotated[int, Field(ge=-(2**31), lt=2**31)] | None = None
    cache_salt: Annotated[str, StringConstraints(min_length=1, max_length=1024)] | None = None
    request_id: Annotated[str, StringConstraints(max_length=128, pattern=r"^[!-~]+$")] | None = None

    # Accepted: bookkeeping of the caller or of OpenAI's service, without any effect on the output;
    # a queue policy may look at the user.
    user: ShortText | None = None
    service_tier: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_options: dict[str, Any] | None = None
    prompt_cache_retention: str | None = None


class RequestFields(SamplingFields):
    """What chat and completion requests share beside."""

    sampling_fields: ClassVar[frozenset[str]] = frozenset(
        {
            "n",
            "temperature",
            "top_p",
            "top_k",
            "min_p",
            "repetition_penalty",
            "presence_penalty",
            "frequency_penalty",
            "seed",
            "max_tokens",
            "min_tokens",
            "stop",
            "stop_token_ids",
            "bad_words",
            "allowed_token_ids",
            "ignore_eos",
            "prompt_logprobs",
            "include_stop_str_in_output",
            "skip_special_tokens",
            "spaces_between_special_tokens",
        }
    )

    model: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    n: int | None = None
    stop: Stops | None = None
    max_tokens: int | None = None
    prompt_logprobs: int | None = None
    truncate_prompt_tokens: Annotated[int, Field(ge=-1, lt=2**31)] | None = None
    truncation_side: Literal["left"] | None = None
    add_special_tokens: bool | None = None
    return_token_ids: bool | None = None
    return_tokens_as_token_ids: bool | None = None

    metadata: dict[str, Any] | None = None
    store: bool | None = None
    prediction: dict[str, Any] | None = None


def check_bookkeeping(request: RequestFields) -> None:
    """Refuses ``store``, ``stream_options`` without ``stream``, as OpenAI does, and what cannot be
    streamed."""
    if request.store:
        raise RequestError(
            "'store' cannot be true: nothing is kept here but responses of /v1/responses",
            param="store",
            code="unsupported_parameter",
        )
    if request.stream_options is not None and not request.stream:
        raise RequestError("'stream_options' needs 'stream': true", param="stream_options")
    if request.stream and request.prompt_logprobs is not None:
        raise RequestError("'prompt_logprobs' cannot be streamed", param="prompt_logprobs")
