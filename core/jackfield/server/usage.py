"""Token counts of one answer, as OpenAI's ``usage``."""

from __future__ import annotations

from collections.abc import Iterable

from jackfield.contracts.generation import ChoiceDelta


class Usage:
    """Counts while the answer is made. ``details`` adds ``prompt_tokens_details``, ``reasoning``
    the number of tokens that were thinking."""

    def __init__(self, num_prompt_tokens: int, details: bool, reasoning: bool = False) -> None:
        self._num_prompt = num_prompt_tokens
        self._details = details
        self._reasoning = reasoning
        self._num_output = 0
        self._num_reasoning = 0
        self._num_cached: dict[int, int] = {}

    def count(self, prompt: int, deltas: Iterable[ChoiceDelta]) -> None:
        """Adds what came for prompt number ``prompt`` of the request."""
        for delta in deltas:
            self._num_output += len(delta.token_ids)
            self._num_reasoning += delta.num_reasoning_tokens
            if delta.num_cached_tokens and self._details:
                self._num_cached[prompt] = delta.num_cached_tokens

    def as_json(self) -> dict[str, object]:
        """The ``usage`` object so far."""
        usage: dict[str, object] = {
            "prompt_tokens": self._num_prompt,
            "total_tokens": self._num_prompt + self._num_output,
            "completion_tokens": self._num_output,
        }
        if self._details:
            usage["prompt_tokens_details"] = {"cached_tokens": sum(self._num_cached.values())}
        if self._reasoning:
            usage["completion_tokens_details"] = {"reasoning_tokens": self._num_reasoning}
        return usage
