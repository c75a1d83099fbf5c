"""The sampling fields of a request, and the model's defaults where it is silent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from jackfield.contracts.sampling import SamplingParams
from jackfield.errors import RequestError
from jackfield.server.processors import processor_calls
from jackfield.server.request_fields import RequestFields
from jackfield.server.structured import structured_outputs


def sampling_params(
    request: RequestFields,
    defaults: Mapping[str, object],
    *,
    default_max_tokens: int | None,
    processor_pattern: str | None,
    **overrides: Any,
) -> SamplingParams:
    """``defaults`` are the checkpoint's (``generation_config.json``). ``default_max_tokens`` holds
    where neither they nor the request say one; ``overrides`` win over both."""
    values: dict[str, Any] = {"max_tokens": default_max_tokens, **defaults}
    for name in request.model_fields_set & request.sampling_fields:
        value = getattr(request, name)
        if value is not None:
            values[name] = value
    if request.logit_bias:
        values["logit_bias"] = _logit_bias(request.logit_bias)
    values["structured_outputs"] = structured_outputs(request)
    if request.logits_processors:
        values["logits_processors"] = processor_calls(request.logits_processors, processor_pattern)
    if request.vllm_xargs:
        values["extra_args"] = request.vllm_xargs
    values.update(overrides)
    return SamplingParams(**values)


def fitted(sampling: SamplingParams, request: RequestFields, room: int) -> SamplingParams:
    """A ``max_tokens`` that the client did not ask for is no more than the context has room for."""
    if request.max_tokens is not None or sampling.max_tokens is None:
        return sampling
    if sampling.max_tokens <= room or room < 1:
        return sampling
    return msgspec.structs.replace(sampling, max_tokens=room)


def _logit_bias(bias: Mapping[str, float]) -> dict[int, float]:
    result: dict[int, float] = {}
    for key, value in bias.items():
        # isdecimal alone would take other scripts' digits; the length bounds int()'s work.
        if not (key.isascii() and key.isdecimal() and len(key) <= 10):
            raise RequestError(f"logit_bias: {key[:32]!r} is not a token id", param="logit_bias")
        result[int(key)] = value
    return result
