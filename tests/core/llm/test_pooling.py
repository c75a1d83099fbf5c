"""Vectors and scores of real engines equal transformers', pooled in float64."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.checkpoints import make, reference
from tests.sentence_models import classifier, embedding, reference_classifier

from jackfield import LLM, PoolingParams, SamplingParams
from jackfield.errors import ConfigError, RequestError

Float64Array = npt.NDArray[np.float64]

PROMPTS = [[7], [3, 4, 5, 6, 7], list(range(3, 43)), list(range(100, 164)), [3, 4, 5]]
"""One token; longer than a step; as long as the context; a prefix of another."""
OPTIONS: dict[str, object] = {
    "device": "cpu",
    "max_model_len": 64,
    "max_num_batched_tokens": 16,
    "max_num_seqs": 4,
    "use_tqdm_on_load": False,
}


def start(directory: Path, **options: object) -> LLM:
    return LLM(str(directory), **{**OPTIONS, **options})


def hidden_states(ids: Sequence[int]) -> Float64Array:
    """[T, hidden] of the tiny Qwen3."""
    model = reference(make("Qwen3ForCausalLM")).model
    with torch.no_grad():
        states = model(torch.tensor([list(ids)])).last_hidden_state[0]
    found: Float64Array = states.double().numpy()
    return found


def unit(vector: Float64Array) -> Float64Array:
    found: Float64Array = vector / np.linalg.norm(vector)
    return found


def last(states: Float64Array) -> Float64Array:
    found: Float64Array = states[-1]
    return found


def mean(states: Float64Array) -> Float64Array:
    found: Float64Array = states.mean(axis=0)
    return found


def first(states: Float64Array) -> Float64Array:
    found: Float64Array = states[0]
    return found


def assert_close(found: npt.ArrayLike, right: Float64Array) -> None:
    assert np.abs(np.array(found) - right).max() <= 2e-5 * np.abs(right).max()


@pytest.mark.parametrize(
    ("mode", "pool"), [("lasttoken", last), ("mean_tokens", mean), ("cls_token", first)]
)
def test_embeddings_are_pooled_as_the_checkpoint_says_whatever_the_chunks(
    mode: str, pool: Callable[[Float64Array], Float64Array]
) -> None:
    with start(embedding(mode)) as llm:
        found = llm.embed(PROMPTS, use_tqdm=False)
        again = llm.embed(PROMPTS, PoolingParams(normalize=False), use_tqdm=False)
        assert [one.prompt_token_ids for one in found] == [tuple(ids) for ids in PROMPTS]
        for ids, one, raw in zip(PROMPTS, found, again, strict=True):
            right = pool(hidden_states(ids))
            assert_close(one.outputs.embedding, unit(right))
            assert_close(raw.outputs.embedding, right)
            assert one.outputs.hidden_size == 64
            # What the prefix cache holds was computed by other requests, and must not change it.
            assert raw.num_cached_tokens == (
                0 if mode != "lasttoken" else (len(ids) - 1) // 16 * 16
            )


def test_a_language_model_makes_embeddings_when_asked_to_and_is_not_asked_for_text() -> None:
    with start(
        make("Qwen3ForCausalLM"),
        task="embed",
        override_pooler_config={"pooling_type": "mean", "normalize": False},
        hf_overrides={"matryoshka_dimensions": [8, 16]},
    ) as llm:
        right = mean(hidden_states(PROMPTS[1]))
        assert_close(llm.encode(PROMPTS[1], use_tqdm=False)[0].outputs.data, right)
        cut = PoolingParams(dimensions=8, normalize=True)
        assert_close(
            llm.embed(PROMPTS[1], cut, use_tqdm=False)[0].outputs.embedding, unit(right[:8])
        )
        with pytest.raises(RequestError, match="one of 8, 16 for this model, not 9"):
            llm.embed(PROMPTS[1], PoolingParams(dimensions=9), use_tqdm=False)
        with pytest.raises(RequestError, match="makes vectors and generates nothing"):
            llm.generate("a", SamplingParams(max_tokens=1), use_tqdm=False)
        with pytest.raises(RequestError, match="served for embed, not for classify"):
            llm.classify("a", use_tqdm=False)
        with pytest.raises(RequestError, match="maximum context length is 64 tokens"):
            llm.embed([3] * 65, use_tqdm=False)


def test_scores_of_embeddings_are_cosines() -> None:
    with start(embedding()) as llm:
        assert llm.tokenizer is not None
        texts = ["one", "another", "two words"]
        vectors = [unit(last(hidden_states(llm.tokenizer.encode(text)))) for text in texts]
        found = llm.score(texts[0], texts, use_tqdm=False)
        scores = [one.outputs.score for one in found]
        assert np.allclose(scores, [vectors[0] @ other for other in vectors], atol=1e-5)
        pairs = llm.score(texts[:2], texts[1:], use_tqdm=False)
        right = [vectors[0] @ vectors[1], vectors[1] @ vectors[2]]
        assert np.allclose([one.outputs.score for one in pairs], right, atol=1e-5)
        with pytest.raises(RequestError, match="data_1 has 2 texts and data_2 has 3"):
            llm.score(texts[:2], texts, use_tqdm=False)


@pytest.mark.parametrize("model_type", ["qwen2", "qwen3", "llama", "mistral"])
def test_classifiers_say_what_transformers_says(model_type: str) -> None:
    directory = classifier(model_type)
    model = reference_classifier(directory)
    with start(directory) as llm:
        found = llm.classify(PROMPTS, use_tqdm=False)
        raw = llm.encode(PROMPTS, PoolingParams(use_activation=False), use_tqdm=False)
    for ids, one, scores in zip(PROMPTS, found, raw, strict=True):
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0].double()
        assert_close(scores.outputs.data, logits.numpy())
        assert_close(one.outputs.probs, logits.softmax(-1).numpy())
        assert one.outputs.num_classes == 3


def test_a_classifier_may_have_kept_the_head_of_its_language_model(tmp_path: Path) -> None:
    shutil.copytree(classifier(), tmp_path, dirs_exist_ok=True)
    tensors = load_file(tmp_path / "model.safetensors")
    head = {"lm_head.weight": torch.ones(512, 64)}
    save_file({**tensors, **head}, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with start(tmp_path) as llm:
        found = llm.encode(PROMPTS[:1], PoolingParams(use_activation=False), use_tqdm=False)
    with torch.no_grad():
        logits = reference_classifier(classifier())(torch.tensor([PROMPTS[0]])).logits[0].double()
    assert_close(found[0].outputs.data, logits.numpy())


def test_a_cross_encoder_scores_pairs() -> None:
    directory = classifier("llama", 1)
    model = reference_classifier(directory)
    with start(directory) as llm:
        assert llm.tokenizer is not None
        ids = llm.tokenizer.encode("query") + llm.tokenizer.encode("document")
        with torch.no_grad():
            right = float(model(torch.tensor([ids])).logits[0].sigmoid())
        found = llm.score("query", ["document", "other"], use_tqdm=False)
        assert abs(found[0].outputs.score - right) < 1e-5
        assert found[0].prompt_token_ids == tuple(ids)
        assert len(found) == 2


def test_a_reranker_that_answers_no_or_yes_scores_by_their_logits() -> None:
    directory = make("Qwen3ForCausalLM")
    model = reference(directory)
    overrides = {
        "architectures": ["Qwen3ForSequenceClassification"],
        "classifier_from_token": ["n", "y"],
        "is_original_qwen3_reranker": True,
    }
    with start(directory, task="score", hf_overrides=overrides) as llm:
        assert llm.tokenizer is not None
        ids = llm.tokenizer.encode("query") + llm.tokenizer.encode("document")
        (no,), (yes,) = llm.tokenizer.encode("n"), llm.tokenizer.encode("y")
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0, -1].double()
        right = float(logits[[no, yes]].softmax(-1)[1])
        assert abs(llm.score("query", "document", use_tqdm=False)[0].outputs.score - right) < 1e-5


def test_a_reward_models_scores_stay_as_they_are() -> None:
    directory = classifier("qwen2", 1)
    with torch.no_grad():
        right = reference_classifier(directory)(torch.tensor([PROMPTS[1]])).logits[0].double()
    with start(directory, task="reward") as llm:
        assert_close(llm.reward(PROMPTS[1], use_tqdm=False)[0].outputs.data, right.numpy())


def test_through_transformers_the_vectors_are_the_same() -> None:
    with start(make("Qwen3ForCausalLM"), task="embed", model_impl="transformers") as llm:
        found = llm.embed(PROMPTS, use_tqdm=False)
    for ids, one in zip(PROMPTS, found, strict=True):
        assert_close(one.outputs.embedding, unit(last(hidden_states(ids))))


def test_a_model_without_a_score_head_cannot_classify() -> None:
    with pytest.raises(ConfigError, match="Qwen3ForCausalLM has no head for --task classify"):
        start(make("Qwen3ForCausalLM"), task="classify")


def test_every_token_has_a_vector_whatever_the_chunks() -> None:
    pooler_config = {"pooling_type": "ALL"}
    with start(make("Qwen3ForCausalLM"), task="embed", override_pooler_config=pooler_config) as llm:
        raw = PoolingParams(normalize=False)
        found = llm.encode([*PROMPTS, *PROMPTS], raw, use_tqdm=False)
        for ids, one in zip([*PROMPTS, *PROMPTS], found, strict=True):
            vectors = np.array(one.outputs.data)
            assert vectors.shape == (len(ids), 64) and not one.num_cached_tokens
            assert_close(vectors.ravel().tolist(), hidden_states(ids).ravel())
        unit_length = np.array(llm.encode(PROMPTS[1], use_tqdm=False)[0].outputs.data)
        right = np.stack([unit(state) for state in hidden_states(PROMPTS[1])])
        assert np.allclose(unit_length, right, atol=2e-5)
        with pytest.raises(RequestError, match="served for token_embed, not for embed"):
            llm.embed("a", use_tqdm=False)
        with pytest.raises(RequestError, match="scores no pairs"):
            llm.score("a", "b", use_tqdm=False)


def test_a_reward_model_scores_every_token() -> None:
    model = reference_classifier(classifier())
    pooler_config = {"pooling_type": "ALL"}
    with start(classifier(), task="reward", override_pooler_config=pooler_config) as llm:
        (found,) = llm.reward(PROMPTS[2], use_tqdm=False)
    with torch.no_grad():
        states = model.model(torch.tensor([PROMPTS[2]])).last_hidden_state[0]
        right = model.score(states).double().numpy()
    assert_close(np.array(found.outputs.data).ravel().tolist(), right.ravel())
