"""How well pairs of texts go together: by the cosine of their embeddings, or by a cross-encoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jackfield.contracts.pooling import PoolingParams, Vector
from jackfield.errors import RequestError
from jackfield.llm.vectors import cosine, finish_vector
from jackfield.planning.pooling import PoolingPlan
from jackfield.text.prompt import PromptBuilder


@dataclass(frozen=True, slots=True)
class Pairs:
    """The pairs of a request as prompts. ``firsts`` are the first texts, one for all pairs or one
    for each, and ``seconds`` the others; of a cross-encoder ``firsts`` is empty and ``seconds``
    are whole pairs."""

    firsts: tuple[tuple[int, ...], ...]
    seconds: tuple[tuple[int, ...], ...]

    @property
    def prompts(self) -> tuple[tuple[int, ...], ...]:
        """All that is computed."""
        return self.firsts + self.seconds

    def scores(
        self, vectors: Sequence[Vector], plan: PoolingPlan, params: PoolingParams | None = None
    ) -> list[float]:
        """One for each pair; ``vectors`` are those of ``prompts``, in their order."""
        if not self.firsts:
            params = params or PoolingParams()
            return [float(finish_vector(one, plan, params)[0]) for one in vectors]
        firsts, seconds = vectors[: len(self.firsts)], vectors[len(self.firsts) :]
        if len(firsts) == 1:
            firsts = [firsts[0]] * len(seconds)
        return [cosine(one, other) for one, other in zip(firsts, seconds, strict=True)]


def make_pairs(
    prompts: PromptBuilder,
    plan: PoolingPlan,
    firsts: Sequence[str],
    seconds: Sequence[str],
    *,
    truncate_prompt_tokens: int | None = None,
    params: tuple[str, str] = ("text_1", "text_2"),
) -> Pairs:
    """Checked and encoded. One first text goes with every second one; else they go by twos."""
    if len(firsts) not in (1, len(seconds)):
        raise RequestError(
            f"{params[0]} has {len(firsts)} texts and {params[1]} has {len(seconds)}: give one, or "
            "as many",
            param=params[0],
        )
    if plan.by_token:
        raise RequestError("this model has a vector for each token: it scores no pairs")
    if plan.task == "embed":
        both = [
            tuple(
                prompts.from_text(text, truncate_prompt_tokens=truncate_prompt_tokens, param=param)
                for text in texts
            )
            for texts, param in zip((firsts, seconds), params, strict=True)
        ]
        return Pairs(*both)
    if not plan.scores_pairs:
        raise RequestError(
            f"this model tells {len(plan.labels)} labels apart; only one with a single label, or "
            "an embedding model, scores pairs"
        )
    repeated = firsts if len(firsts) == len(seconds) else [firsts[0]] * len(seconds)
    whole = tuple(
        prompts.from_pair(one, other, truncate_prompt_tokens=truncate_prompt_tokens, params=params)
        for one, other in zip(repeated, seconds, strict=True)
    )
    return Pairs((), whole)
