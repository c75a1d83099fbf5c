"""How one request wants its tokens chosen, and when to stop."""

from __future__ import annotations

import math
import operator
from typing import Any

import msgspec

from jackfield.contracts.grammar import GrammarSpec, StructuredOutputs
from jackfield.errors import RequestError

MAX_SEED = 2**63 - 1
_MAX_COUNT = 2**31 - 1
_OPTIONAL_COUNTS = (
    ("seed", -MAX_SEED - 1, MAX_SEED),
    ("max_tokens", 1, _MAX_COUNT),
    ("logprobs", -1, _MAX_COUNT),
    ("prompt_logprobs", -1, _MAX_COUNT),
    ("thinking_token_budget", 0, _MAX_COUNT),
)


class ProcessorCall(msgspec.Struct, frozen=True, array_like=True):
    """A logits processor that a request names, and what it tells it."""

    name: str
    arguments: dict[str, Any] = {}


class SamplingParams(msgspec.Struct, frozen=True, kw_only=True):
    """The sampling and stopping parameters of one request; vLLM's names and meanings.

    Immutable and checked when made: a value out of range raises ``RequestError`` with the
    field in ``param``. Bounds that depend on the model (vocabulary, context length) are
    checked where the model is known.

    ``top_k`` 0 or -1 keeps all tokens; ``temperature`` 0 is greedy and makes the other
    sampling parameters but the penalties irrelevant; ``max_tokens`` None means as many as
    the context holds; ``logprobs`` k asks for the chosen token's log-probability and the k
    most likely ones, -1 for all (of the unmodified distribution, natural logarithm);
    ``thinking_token_budget`` is how many tokens a reasoning model may think;
    ``structured_outputs`` holds the output to a schema, a regex or a grammar.
    """

    n: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int | None = None
    max_tokens: int | None = 16
    min_tokens: int = 0
    thinking_token_budget: int | None = None
    stop: tuple[str, ...] | list[str] | str | None = ()
    stop_token_ids: tuple[int, ...] | list[int] = ()
    bad_words: tuple[str, ...] | list[str] = ()
    allowed_token_ids: tuple[int, ...] | list[int] | None = None
    logit_bias: dict[int, float] | None = None
    ignore_eos: bool = False
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    logits_processors: tuple[ProcessorCall, ...] = ()
    extra_args: dict[str, Any] = {}
    include_stop_str_in_output: bool = False
    skip_special_tokens: bool = True
    spaces_between_special_tokens: bool = True
    detokenize: bool = True
    structured_outputs: StructuredOutputs | None = None
    guided_decoding: StructuredOutputs | None = None
    """The older name of ``structured_outputs``; None once that is set from it."""

    def __post_init__(self) -> None:
        if self.guided_decoding is not None:
            if self.structured_outputs is not None:
                raise RequestError(
                    "guided_decoding and structured_outputs are the same; give one",
                    param="guided_decoding",
                )
            msgspec.structs.force_setattr(self, "structured_outputs", self.guided_decoding)
            msgspec.structs.force_setattr(self, "guided_decoding", None)
        stop = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())
        msgspec.structs.force_setattr(self, "stop", stop)
        for name in ("stop_token_ids", "bad_words"):
            msgspec.structs.force_setattr(self, name, tuple(getattr(self, name)))
        if self.allowed_token_ids is not None:
            msgspec.structs.force_setattr(self, "allowed_token_ids", tuple(self.allowed_token_ids))
        self._check_numbers()
        self._check_lists()

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """``stop`` in its one normal form."""
        return tuple(self.stop or ())

    def _check_numbers(self) -> None:
        self._check_count("n", 1, 128)
        self._check_number("temperature", 0.0, 100.0)
        self._check_number("top_p", 0.0, 1.0, open_low=True)
        self._check_count("top_k", -1, _MAX_COUNT)
        self._check_number("min_p", 0.0, 1.0)
        self._check_number("repetition_penalty", 0.0, 100.0, open_low=True)
        self._check_number("presence_penalty", -2.0, 2.0)
        self._check_number("frequency_penalty", -2.0, 2.0)
        self._check_count("min_tokens", 0, _MAX_COUNT)
        for name, low, high in _OPTIONAL_COUNTS:
            if getattr(self, name) is not None:
                self._check_count(name, low, high)
        if self.max_tokens is not None and self.min_tokens > self.max_tokens:
            raise RequestError(
                f"min_tokens ({self.min_tokens}) is above max_tokens ({self.max_tokens})",
                param="min_tokens",
            )

    def _check_count(self, name: str, low: int, high: int) -> None:
        """A whole number within the bounds; numpy's become Python's."""
        value = getattr(self, name)
        if type(value) is not int:
            try:
                value = int(operator.index(value))
            except TypeError:
                message = f"{name} must be a whole number, not {value!r:.60}"
                raise RequestError(message, param=name) from None
            msgspec.structs.force_setattr(self, name, value)
        if not low <= value <= high:
            raise RequestError(
                f"{name} must be at least {low:g} and at most {high:g}, not {value}", param=name
            )

    def _check_number(self, name: str, low: float, high: float, *, open_low: bool = False) -> None:
        """low <= value <= high, low < value if ``open_low``."""
        value = getattr(self, name)
        if type(value) not in (int, float):
            try:
                value = value.__float__()
            except (AttributeError, TypeError):
                message = f"{name} must be a number, not {value!r:.60}"
                raise RequestError(message, param=name) from None
            msgspec.structs.force_setattr(self, name, value)
        # Also no NaN.
        if not ((low < value if open_low else low <= value) and value <= high):
            relation = "above" if open_low else "at least"
            raise RequestError(
                f"{name} must be {relation} {low:g} and at most {high:g}, not {value}", param=name
            )

    def _check_lists(self) -> None:
        if any(not text for text in self.stop_strings):
            raise RequestError("stop must not hold an empty string", param="stop")
        if any(not text for text in self.bad_words):
            raise RequestError("bad_words must not hold an empty string", param="bad_words")
        if self.allowed_token_ids is not None and not self.allowed_token_ids:
            raise RequestError(
                "allowed_token_ids must not be an empty list", param="allowed_token_ids"
            )
        for token, bias in (self.logit_bias or {}).items():
            if not math.isfinite(bias) or abs(bias) > 100.0:
                raise RequestError(
                    f"logit_bias of token {token} must be between -100 and 100, not {bias}",
                    param="logit_bias",
                )


REASONING_STARTS_WITHIN = 4
"""The marker that opens the thinking may stand behind so many ids of the output: whitespace,
as a rule. What stands later opens nothing; it is quoted."""


class ThinkingBudget(msgspec.Struct, frozen=True, array_like=True):
    """At most ``max_tokens`` ids between the start and the end of the thinking; then ``close_ids``
    are forced. ``ends`` are the sequences of ids by which the model ends it itself. Where the
    thinking can begin again, only the first time counts."""

    max_tokens: int
    ends: tuple[tuple[int, ...], ...]
    close_ids: tuple[int, ...]


class TokenSampling(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the engine and the worker need of ``SamplingParams``: ids and numbers only.

    Made by ``jackfield.text.prompt``, which knows the tokenizer; crosses the process border.
    ``seed`` is always set: requests without one got a random one. ``stop_token_ids`` ends a
    request (end-of-sequence ids included unless the request ignores them);
    ``min_tokens_ids`` are the ids that must not be sampled before ``min_tokens`` output
    tokens. ``top_k`` 0 means all.

    Reasoning: the answer begins behind the first ``reasoning_end_ids``, which is where a grammar
    begins too; empty where the output holds no thinking that ids could tell. Unless it
    ``starts_in_reasoning``, the output holds thinking only where ``reasoning_start_ids`` come
    first.

    With a ``grammar`` the engine's masks keep ``min_tokens``, since a grammar that is complete ends
    the output all the same.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int = 0
    min_tokens: int = 0
    min_tokens_ids: tuple[int, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    logit_bias: tuple[tuple[int, float], ...] = ()
    allowed_token_ids: tuple[int, ...] | None = None
    bad_words: tuple[tuple[int, ...], ...] = ()
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    logits_processors: tuple[ProcessorCall, ...] = ()
    extra_args: dict[str, Any] = {}
    """For the logits processors that the server was started with."""
    reasoning_start_ids: tuple[int, ...] = ()
    reasoning_end_ids: tuple[int, ...] = ()
    starts_in_reasoning: bool = False
    thinking: ThinkingBudget | None = None
    grammar: GrammarSpec | None = None

    @property
    def greedy(self) -> bool:
        """Whether the most likely token is always taken."""
        return self.temperature == 0.0
