"""What a model is served for, and how its vectors are made."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tests.checkpoints import make
from tests.sentence_models import classifier, embedding

from jackfield.config.command_line import parse_arguments
from jackfield.errors import CheckpointError, ConfigError
from jackfield.planning import ServingPlan, make_plan
from jackfield.registry import Registry


def plan(directory: Path, *words: str) -> ServingPlan:
    settings, _ = parse_arguments([str(directory), "--device", "cpu", *words])
    return make_plan(settings, Registry())


@pytest.mark.parametrize(
    ("words", "task"),
    [
        ([], None),
        (["--task", "generate"], None),
        (["--runner", "generate", "--convert", "none"], None),
        (["--task", "embed"], "embed"),
        (["--task", "embedding"], "embed"),
        (["--runner", "pooling"], "embed"),
        (["--runner", "pooling", "--convert", "embed"], "embed"),
        (["--convert", "embed"], "embed"),
    ],
)
def test_a_language_model_generates_unless_told_otherwise(words: list[str], task: Any) -> None:
    made = plan(make("Qwen3ForCausalLM"), *words)
    assert (made.pooling and made.pooling.task) == task
    assert (made.engine.worker.pooler is None) == (task is None)


def test_what_a_checkpoint_is_made_for_is_seen() -> None:
    sentence, labels = plan(embedding("mean_tokens", normalize=False)), plan(classifier())
    assert sentence.pooling is not None and labels.pooling is not None
    assert (sentence.pooling.task, sentence.pooling.normalize) == ("embed", False)
    assert sentence.pooling.pooler.kind == "mean" and not sentence.engine.enable_prefix_caching
    assert (labels.pooling.task, labels.pooling.activation) == ("classify", "softmax")
    assert labels.pooling.labels == ("label 0", "label 1", "label 2")
    assert labels.engine.enable_prefix_caching
    generating = plan(embedding("mean_tokens", normalize=False), "--task", "generate")
    assert generating.pooling is None


@pytest.mark.parametrize("flag", ["--override-pooler-config", "--pooler-config"])
def test_the_users_options_go_before_the_checkpoints(flag: str) -> None:
    options = '{"pooling_type": "CLS", "normalize": false, "dimensions": 8}'
    made = plan(embedding("mean_tokens"), flag, options).pooling
    assert made is not None
    assert (made.pooler.kind, made.normalize, made.dimensions) == ("cls", False, 8)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--task", "embed", "--runner", "generate"], "contradict each other"),
        (["--pooler-config", '{"pooling_type": "LAST"}'], "is for pooling models"),
        (["--task", "embed", "--pooler-config", '{"pooling": "LAST"}'], "unknown key 'pooling'"),
        (["--task", "embed", "--pooler-config", '{"pooling_type": "STEP"}'], "'STEP' is not built"),
        (["--task", "embed", "--pooler-config", '{"normalize": 1}'], "normalize must be true or"),
        (["--task", "embed", "--pooler-config", '{"dimensions": 0}'], "whole number above 0"),
        (["--task", "score"], "has no head for --task score"),
    ],
)
def test_what_cannot_be_is_refused(words: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        plan(make("Qwen3ForCausalLM"), *words)


@pytest.mark.parametrize(
    ("change", "activation"),
    [
        ({}, "softmax"),
        ({"id2label": {"0": "a"}}, "sigmoid"),
        ({"problem_type": "multi_label_classification"}, "sigmoid"),
        ({"problem_type": "regression"}, "none"),
        ({"sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity"}}, "none"),
    ],
)
def test_scores_become_probabilities_as_the_config_says(
    change: dict[str, object], activation: str
) -> None:
    made = plan(classifier(), "--hf-overrides", json.dumps(change)).pooling
    assert made is not None and made.activation == activation


def test_words_that_a_reranker_answers_with_must_be_tokens() -> None:
    words = {"classifier_from_token": ["no way", "y"], "is_original_qwen3_reranker": True}
    with pytest.raises(ConfigError, match="'no way' is not one token of this model"):
        plan(make("Qwen3ForCausalLM"), "--task", "score", "--hf-overrides", json.dumps(words))
    words = {"classifier_from_token": ["y"], "is_original_qwen3_reranker": True}
    with pytest.raises(ConfigError, match="must name two tokens"):
        plan(make("Qwen3ForCausalLM"), "--task", "score", "--hf-overrides", json.dumps(words))


def test_steps_of_sentence_transformers_that_are_not_built_are_named(tmp_path: Path) -> None:
    for path in make("Qwen3ForCausalLM").iterdir():
        (tmp_path / path.name).symlink_to(path)
    steps = [{"type": f"sentence_transformers.models.{kind}", "path": kind} for kind in "AB"]
    (tmp_path / "modules.json").write_text(json.dumps(steps))
    assert plan(tmp_path).pooling is None, "no pooling in it: not about vectors"
    steps[0]["type"], steps[1]["type"] = "models.Pooling", "models.Dense"
    (tmp_path / "modules.json").write_text(json.dumps(steps))
    with pytest.raises(CheckpointError, match="steps of the kind Dense are not built yet"):
        plan(tmp_path)
    (tmp_path / "modules.json").write_text(json.dumps(steps[1:]))
    with pytest.raises(CheckpointError, match="steps of the kind Dense are not built yet"):
        plan(tmp_path)
    (tmp_path / "modules.json").write_text(json.dumps(steps[:1]))
    (tmp_path / "A").mkdir()
    (tmp_path / "A" / "config.json").write_text('{"pooling_mode_max_tokens": true}')
    with pytest.raises(CheckpointError, match="pooling by max_tokens is not built yet"):
        plan(tmp_path)


def test_texts_are_as_long_as_the_vectors_were_trained_for(tmp_path: Path) -> None:
    """sentence-transformers cuts longer ones: all-MiniLM-L6-v2's to 256 of 512 tokens."""
    shutil.copytree(embedding("mean_tokens"), tmp_path, dirs_exist_ok=True)
    assert plan(tmp_path).engine.worker.max_model_len == 512
    config = {"max_seq_length": 256, "do_lower_case": False}
    (tmp_path / "sentence_bert_config.json").write_text(json.dumps(config))
    assert plan(tmp_path).engine.worker.max_model_len == 256
    assert plan(tmp_path, "--max-model-len", "400").engine.worker.max_model_len == 400
    assert plan(tmp_path, "--task", "generate").engine.worker.max_model_len == 512


def test_a_decoder_that_is_not_causal_is_an_encoder_and_nothing_else(tmp_path: Path) -> None:
    """gte-Qwen2-7B-instruct: a language model's files, pooled at the last token."""
    shutil.copytree(embedding("lasttoken"), tmp_path, dirs_exist_ok=True)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "is_causal": False}))
    made = plan(tmp_path)
    assert made.config["architectures"] == ["BidirectionalModel"]
    assert made.pooling is not None and made.pooling.whole_prompts
    assert made.pooling.pooler.kind == "last" and not made.engine.enable_prefix_caching
    for words in (["--task", "generate"], ["--model-impl", "transformers"]):
        with pytest.raises(ConfigError, match="is_causal false"):
            plan(tmp_path, *words)


def test_vectors_of_all_tokens_bound_what_a_step_computes() -> None:
    words = ("--task", "embed", "--pooler-config.pooling_type", "all", "--device", "cpu")
    made = plan(make("Qwen3ForCausalLM"), *words)
    assert made.pooling is not None
    assert (made.pooling.served_for, made.pooling.token_bytes) == ("token_embed", 4 * 64)
    assert not made.engine.enable_prefix_caching
    wide = (*words, "--hf-overrides.hidden_size", str(1 << 14))
    worker = plan(make("Qwen3ForCausalLM"), *wide).engine.worker
    assert worker.max_num_batched_tokens == (48 << 20) // (4 << 14)
    with pytest.raises(ConfigError, match="--max-num-batched-tokens 1024 is above 768: a step has"):
        plan(make("Qwen3ForCausalLM"), *wide, "--max-num-batched-tokens", "1024")
