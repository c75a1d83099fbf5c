"""Encoders over steps of several prompts give what transformers gives, one prompt at a time."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
import torch
from tests.checkpoints import make
from tests.paged_steps import PagedModel, context, load
from tests.sentence_models import embedding, encoder
from tokenizers import Tokenizer, processors
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer

from jackfield.contracts.model import QuantizationMethod
from jackfield.errors import CheckpointError, ConfigError
from jackfield_load_formats.safetensors import SafetensorsLoadFormat
from jackfield_models.encoder import Encoder, EncoderForSequenceClassification

CLASSIFIERS = ["Bert", "DistilBert", "ModernBert", "Roberta", "XLMRoberta"]
FAMILIES = [*CLASSIFIERS, "Camembert", "MPNet", "NomicBert"]
PROMPTS = {0: [7], 1: [3, 4, 5, 6, 7], 2: list(range(3, 43)), 3: list(range(100, 190))}


def assert_close(found: torch.Tensor, right: torch.Tensor) -> None:
    assert found.shape == right.shape
    assert (found.double() - right.double()).abs().max() <= 2e-5 * right.abs().max()


@pytest.mark.parametrize("family", FAMILIES)
def test_hidden_states_are_those_of_each_prompt_alone(family: str) -> None:
    directory = encoder(f"{family}Model")
    found = PagedModel(load(Encoder, directory, SafetensorsLoadFormat())).step(PROMPTS)
    right = AutoModel.from_pretrained(directory, dtype=torch.float32).eval()
    for row, ids in PROMPTS.items():
        with torch.no_grad():
            assert_close(found[row], right(torch.tensor([ids])).last_hidden_state[0])


@pytest.mark.parametrize("family", CLASSIFIERS)
def test_scores_of_the_first_token_are_the_classifiers(family: str) -> None:
    directory = encoder(f"{family}ForSequenceClassification", num_labels=3)
    model = load(EncoderForSequenceClassification, directory, SafetensorsLoadFormat())
    found = PagedModel(model).step(PROMPTS)
    right = AutoModelForSequenceClassification.from_pretrained(directory, dtype=torch.float32)
    for row, ids in PROMPTS.items():
        with torch.no_grad():
            assert_close(found[row][0], right.eval()(torch.tensor([ids])).logits[0])


def test_bert_tells_the_second_text_by_the_separator() -> None:
    directory = encoder("BertModel")
    tokenizer = AutoTokenizer.from_pretrained(directory)
    pair = tokenizer.backend_tokenizer.encode("a query", "the document")
    assert set(pair.type_ids) == {0, 1}
    found = PagedModel(load(Encoder, directory, SafetensorsLoadFormat())).step({0: pair.ids})
    right = AutoModel.from_pretrained(directory, dtype=torch.float32).eval()
    with torch.no_grad():
        states = right(torch.tensor([pair.ids]), token_type_ids=torch.tensor([pair.type_ids]))
    assert_close(found[0], states.last_hidden_state[0])


def test_bert_tells_no_texts_apart_where_its_tokenizer_does_not(tmp_path: Path) -> None:
    """multilingual-e5-small: a BERT with the tokenizer of XLM-R."""
    shutil.copytree(encoder("BertModel"), tmp_path, dirs_exist_ok=True)
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    first, end = "<|im_start|>", "<|im_end|>"
    tokenizer.post_processor = processors.TemplateProcessing(
        f"{first} $A {end}", f"{first} $A {end} {end} $B {end}", [(first, 1), (end, 2)]
    )
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    pair = AutoTokenizer.from_pretrained(tmp_path)("a query", "the document", return_tensors="pt")
    ids = pair["input_ids"][0].tolist()
    found = PagedModel(load(Encoder, tmp_path, SafetensorsLoadFormat())).step({0: ids})
    right = AutoModel.from_pretrained(tmp_path, dtype=torch.float32).eval()
    with torch.no_grad():
        assert_close(found[0], right(**pair).last_hidden_state[0])


@pytest.mark.parametrize("source", [make("Qwen2ForCausalLM"), embedding()], ids=["whole", "bare"])
def test_tokens_of_a_decoder_that_is_not_causal_see_what_follows(
    source: Path, tmp_path: Path
) -> None:
    shutil.copytree(source, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "is_causal": False}))
    found = PagedModel(load(Encoder, tmp_path, SafetensorsLoadFormat())).step(PROMPTS)
    right = AutoModel.from_pretrained(tmp_path, dtype=torch.float32).eval()
    for row, ids in PROMPTS.items():
        with torch.no_grad():
            assert_close(found[row], right(torch.tensor([ids])).last_hidden_state[0])


def test_a_checkpoint_of_another_task_gives_its_states() -> None:
    directory = encoder("BertForSequenceClassification")
    found = PagedModel(load(Encoder, directory, SafetensorsLoadFormat())).step({0: [3, 4, 5]})
    right = AutoModel.from_pretrained(directory, dtype=torch.float32).eval()
    with torch.no_grad():
        assert_close(found[0], right(torch.tensor([[3, 4, 5]])).last_hidden_state[0])


def test_an_encoder_is_not_quantized_without_a_word() -> None:
    with pytest.raises(ConfigError, match="encoders run unquantized"):
        Encoder(
            {"model_type": "bert"},
            replace(context(), quantization=cast(QuantizationMethod, object())),
        )


def test_what_a_checkpoint_lacks_is_named() -> None:
    bare = encoder("XLMRobertaModel")
    with pytest.raises(CheckpointError, match=r"lacks classifier\."):
        load(EncoderForSequenceClassification, bare, SafetensorsLoadFormat())
