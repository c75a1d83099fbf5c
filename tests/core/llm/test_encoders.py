"""Encoders: what real engines answer equals transformers' own models, prompt by prompt."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from tests.sentence_models import encoder
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer

from jackfield import LLM, PoolingParams
from jackfield.errors import ConfigError

PROMPTS = [[7], [3, 4, 5, 6, 7], list(range(3, 43)), list(range(100, 164)), [3, 4, 5]]
RAW = PoolingParams(normalize=False)


def start(directory: Path, **options: object) -> LLM:
    values = {"device": "cpu", "max_model_len": 64, "max_num_seqs": 4, "use_tqdm_on_load": False}
    return LLM(str(directory), **{**values, **options})


def assert_close(found: npt.ArrayLike, right: torch.Tensor) -> None:
    values = right.double().numpy()
    assert np.abs(np.array(found) - values).max() <= 2e-5 * np.abs(values).max()


def test_states_are_pooled_at_the_first_token_and_nothing_is_kept_of_a_prompt() -> None:
    directory = encoder("BertModel")
    model = AutoModel.from_pretrained(directory, dtype=torch.float32).eval()
    with start(directory) as llm:
        found = llm.embed(PROMPTS, RAW, use_tqdm=False)
        again = llm.embed(PROMPTS, RAW, use_tqdm=False)
    for ids, one, other in zip(PROMPTS, found, again, strict=True):
        with torch.no_grad():
            right = model(torch.tensor([ids])).last_hidden_state[0, 0]
        assert_close(one.outputs.embedding, right)
        assert_close(other.outputs.embedding, right)
        assert other.num_cached_tokens == 0


def test_the_mean_is_over_all_tokens_however_few_fit_into_a_step() -> None:
    directory = encoder("BertModel")
    model = AutoModel.from_pretrained(directory, dtype=torch.float32).eval()
    pooler = {"pooling_type": "MEAN", "normalize": False}
    with start(directory, override_pooler_config=pooler, max_num_batched_tokens=64) as llm:
        found = llm.embed(PROMPTS, use_tqdm=False)
    for ids, one in zip(PROMPTS, found, strict=True):
        with torch.no_grad():
            right = model(torch.tensor([ids])).last_hidden_state[0].mean(0)
        assert_close(one.outputs.embedding, right)


@pytest.mark.parametrize(("family", "pooling"), [("XLMRoberta", "cls"), ("ModernBert", "mean")])
def test_cross_encoders_score_what_their_tokenizer_joins(family: str, pooling: str) -> None:
    directory = encoder(
        f"{family}ForSequenceClassification", num_labels=1, classifier_pooling=pooling
    )
    model = AutoModelForSequenceClassification.from_pretrained(directory, dtype=torch.float32)
    with start(directory) as llm:
        labels = llm.encode(PROMPTS, PoolingParams(use_activation=False), use_tqdm=False)
        score = llm.score("a query", ["the document"], use_tqdm=False)[0]
    for ids, one in zip(PROMPTS, labels, strict=True):
        with torch.no_grad():
            assert_close(one.outputs.data, model.eval()(torch.tensor([ids])).logits[0])
    pair = AutoTokenizer.from_pretrained(directory)("a query", "the document").input_ids
    assert list(score.prompt_token_ids) == pair
    with torch.no_grad():
        right = float(model(torch.tensor([pair])).logits[0].sigmoid())
    assert abs(score.outputs.score - right) < 1e-5


def test_a_step_must_hold_a_whole_prompt() -> None:
    with pytest.raises(ConfigError, match="computes a prompt in one step"):
        start(encoder("BertModel"), max_num_batched_tokens=32)


def test_the_context_is_what_has_positions() -> None:
    # Two rows of RoBERTa's positions are for padding.
    with start(encoder("XLMRobertaModel"), max_model_len=None) as llm:
        assert llm.max_model_len == 98
        assert len(llm.embed([3] * 98, use_tqdm=False)[0].prompt_token_ids) == 98
