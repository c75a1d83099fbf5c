"""Logit rules against transformers' processors and plain loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.core.compute.rows import CPU, admitted, new_state
from transformers import (
    MinNewTokensLengthLogitsProcessor,
    NoBadWordsLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    SequenceBiasLogitsProcessor,
)

from jackfield.compute.logit_rules import LogitRules
from jackfield.compute.transfer import Uploads
from jackfield.contracts.sampling import TokenSampling

WIDTH = 50
TOKENS = [[4, 9, 9, 30, 4, 2], [7], [1, 2, 3, 1, 2, 3, 1, 2]]
NUM_PROMPT = [3, 1, 4]


def apply(
    samplings: list[TokenSampling],
    tokens: list[list[int]] | None = None,
    num_prompt: list[int] | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """(logits before, logits after) for rows that hold ``tokens``; rows in reverse order."""
    tokens, num_prompt = tokens or TOKENS, num_prompt or NUM_PROMPT
    state = new_state(len(samplings) + 2)
    state.admit(
        [
            admitted(i + 1, tokens[i], sampling, num_prompt[i])
            for i, sampling in enumerate(samplings)
        ]
    )
    # What a longer, earlier request left behind must not count.
    for i in range(len(samplings)):
        state.token_ids[i + 1, len(tokens[i]) :] = 11
    order = list(range(len(samplings)))[::-1]
    rows = np.array([i + 1 for i in order], dtype=np.int32)
    positions = np.array([len(tokens[i]) for i in order], dtype=np.int32)
    state.flags_of_rows(rows, positions)
    before = torch.randn(len(samplings), WIDTH, generator=torch.Generator().manual_seed(1)) * 4
    after = before[order].clone()
    LogitRules(state, Uploads(CPU)).apply(
        after,
        rows,
        torch.from_numpy(rows).long(),
        torch.from_numpy(positions).long(),
        int(positions.max()),
    )
    return before, after[order]


def each_row(processors: list[object], before: torch.Tensor) -> torch.Tensor:
    """Transformers' result, one row with its own processor and tokens at a time."""
    rows = []
    for i, processor in enumerate(processors):
        ids = torch.tensor([TOKENS[i]])
        rows.append(processor(ids, before[i : i + 1].clone()))  # type: ignore[operator]
    return torch.cat(rows)


def test_repetition_penalty_is_transformers() -> None:
    penalties = [1.3, 0.7, 2.0]
    before, after = apply([TokenSampling(repetition_penalty=p) for p in penalties])
    expected = each_row([RepetitionPenaltyLogitsProcessor(p) for p in penalties], before)
    torch.testing.assert_close(after, expected)


def test_presence_and_frequency_penalties_count_the_output_only() -> None:
    samplings = [
        TokenSampling(presence_penalty=0.5, frequency_penalty=-1.25),
        TokenSampling(presence_penalty=2.0),
        TokenSampling(frequency_penalty=0.75),
    ]
    before, after = apply(samplings)
    expected = before.double().numpy()
    for i, sampling in enumerate(samplings):
        counts = np.bincount(np.array(TOKENS[i][NUM_PROMPT[i] :], dtype=int), minlength=WIDTH)
        expected[i] -= sampling.frequency_penalty * counts
        expected[i] -= sampling.presence_penalty * (counts > 0)
    np.testing.assert_allclose(after.numpy(), expected, rtol=1e-6)


def test_repetition_comes_before_the_other_penalties() -> None:
    samplings = [TokenSampling(repetition_penalty=1.5, presence_penalty=1.0)] * 3
    before, after = apply(samplings)
    expected = each_row([RepetitionPenaltyLogitsProcessor(1.5)] * 3, before)
    for i in range(3):
        expected[i, sorted(set(TOKENS[i][NUM_PROMPT[i] :]))] -= 1.0
    torch.testing.assert_close(after, expected)


@pytest.mark.parametrize(
    "words",
    [
        [[5]],
        [[4, 2, 8], [2, 3]],
        [[1, 2, 3], [2, 3, 9], [7, 6], [30, 4, 2, 10]],
        [[9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 4]],
    ],
)
def test_bad_words_are_transformers(words: list[list[int]]) -> None:
    sampling = TokenSampling(bad_words=tuple(tuple(word) for word in words))
    before, after = apply([sampling] * 3)
    processor = NoBadWordsLogitsProcessor(words, eos_token_id=torch.tensor([WIDTH - 1]))
    torch.testing.assert_close(after, each_row([processor] * 3, before))


def test_logit_bias_is_transformers_sequence_bias() -> None:
    bias = {3: 1.5, 20: -100.0, 49: 100.0}
    sampling = TokenSampling(logit_bias=tuple(bias.items()))
    before, after = apply([sampling] * 3)
    processor = SequenceBiasLogitsProcessor([[[token], value] for token, value in bias.items()])
    torch.testing.assert_close(after, each_row([processor] * 3, before))


def test_min_tokens_are_transformers() -> None:
    stops = (2, 30)
    before, after = apply([TokenSampling(min_tokens=4, min_tokens_ids=stops)] * 3)
    processors = [
        MinNewTokensLengthLogitsProcessor(n, 4, torch.tensor(stops), device="cpu")
        for n in NUM_PROMPT
    ]
    torch.testing.assert_close(after, each_row(processors, before))


def test_allowed_ids_keep_their_logits_and_no_others() -> None:
    allowed = [(1, 5), (49,), (0, 1, 2, 3)]
    before, after = apply([TokenSampling(allowed_token_ids=ids) for ids in allowed])
    expected = torch.full_like(before, -torch.inf)
    for i, ids in enumerate(allowed):
        expected[i, list(ids)] = before[i, list(ids)]
    torch.testing.assert_close(after, expected)


def test_rows_without_rules_are_not_touched() -> None:
    samplings = [
        TokenSampling(temperature=1.0),
        TokenSampling(
            logit_bias=((1, 2.0),),
            allowed_token_ids=(1, 2),
            bad_words=((2,),),
            repetition_penalty=1.1,
        ),
        TokenSampling(),
    ]
    before, after = apply(samplings)
    assert torch.equal(before[0], after[0])
    assert torch.equal(before[2], after[2])
    assert after[1].isfinite().nonzero().flatten().tolist() == [1]


def test_a_new_request_in_a_row_brings_its_own_rules() -> None:
    state = new_state(1)
    rules = LogitRules(state, Uploads(CPU))
    rows, positions = np.array([0], dtype=np.int32), torch.tensor([1])
    for token in (5, 6):
        state.admit([admitted(0, [1], TokenSampling(logit_bias=((token, 9.0),)))])
        logits = torch.zeros(1, WIDTH)
        rules.apply(logits, rows, torch.tensor([0]), positions, 1)
        assert logits[0].nonzero().flatten().tolist() == [token]
