"""Tiny random checkpoints of models that make vectors and scores.

``embedding("mean")`` is in the layout of sentence-transformers: the bare decoder's weights, and
the steps that pool and normalize. ``classifier(...)`` has a score head.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from functools import cache
from pathlib import Path

import torch
from tests.checkpoints import make, write_tokenizer
from tokenizers import Tokenizer, processors
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, PreTrainedModel

_CLASSIFIER = "ForSequenceClassification"
_ENCODER_TYPES = {
    "Bert": "bert",
    "Camembert": "camembert",
    "DistilBert": "distilbert",
    "MPNet": "mpnet",
    "ModernBert": "modernbert",
    "NomicBert": "nomic_bert",
    "Roberta": "roberta",
    "XLMRoberta": "xlm-roberta",
}
_DIRECTORY = tempfile.TemporaryDirectory(prefix="jackfield-sentence-models-")


@cache
def embedding(mode: str = "lasttoken", *, normalize: bool = True) -> Path:
    """Qwen3-Embedding's layout. ``mode`` as in sentence-transformers' ``pooling_mode_...``."""
    source = make("Qwen3ForCausalLM")
    directory = Path(tempfile.mkdtemp(prefix=f"embedding-{mode}-", dir=_DIRECTORY.name))
    # As the bare model writes its weights, and the config as that of a language model.
    AutoModel.from_pretrained(source, dtype=torch.float32).save_pretrained(directory)
    shutil.copy(source / "config.json", directory)
    write_tokenizer(directory)
    steps = ["Transformer", "Pooling", *(["Normalize"] if normalize else [])]
    listed = [
        {
            "idx": index,
            "name": str(index),
            "path": "" if index == 0 else f"{index}_{step}",
            "type": f"sentence_transformers.models.{step}",
        }
        for index, step in enumerate(steps)
    ]
    (directory / "modules.json").write_text(json.dumps(listed))
    (directory / "1_Pooling").mkdir()
    modes = ("cls_token", "mean_tokens", "max_tokens", "lasttoken")
    config = {f"pooling_mode_{each}": each == mode for each in modes}
    config_text = json.dumps({"word_embedding_dimension": 64, **config})
    (directory / "1_Pooling" / "config.json").write_text(config_text)
    return directory


@cache
def classifier(model_type: str = "qwen2", num_labels: int = 3, **config: object) -> Path:
    """A decoder with a score head."""
    directory = Path(tempfile.mkdtemp(prefix=f"{model_type}-classifier-", dir=_DIRECTORY.name))
    values = {
        "vocab_size": 512,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "initializer_range": 0.15,
        "pad_token_id": 0,
        "id2label": {index: f"label {index}" for index in range(num_labels)},
        **config,
    }
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(
        AutoConfig.for_model(model_type, **values), dtype=torch.float32
    )
    model.save_pretrained(directory)
    write_tokenizer(directory)
    return directory


def reference_classifier(directory: Path) -> PreTrainedModel:
    """transformers' own model of a classifier."""
    return AutoModelForSequenceClassification.from_pretrained(
        directory, dtype=torch.float32, attn_implementation="eager"
    ).eval()


@cache
def encoder(architecture: str = "BertModel", **config: object) -> Path:
    """An encoder; ``...ForSequenceClassification`` has ``num_labels`` labels."""
    model_type = _ENCODER_TYPES[architecture.removesuffix("Model").removesuffix(_CLASSIFIER)]
    directory = Path(tempfile.mkdtemp(prefix=f"{architecture}-", dir=_DIRECTORY.name))
    values = {
        "vocab_size": 512,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "max_position_embeddings": 100,
        "initializer_range": 0.15,
        "pad_token_id": 1,
        "local_attention": 16,
        **config,
    }
    torch.manual_seed(0)
    kind = AutoModelForSequenceClassification if _CLASSIFIER in architecture else AutoModel
    kind.from_config(
        AutoConfig.for_model(model_type, **values), dtype=torch.float32
    ).save_pretrained(directory)
    _write_pair_tokenizer(directory)
    return directory


def _write_pair_tokenizer(directory: Path) -> None:
    """The tiny tokenizer, which frames a text and joins two as BERT's does."""
    write_tokenizer(directory)
    path = directory / "tokenizer.json"
    tokenizer = Tokenizer.from_file(str(path))
    first, end = "<|im_start|>", "<|im_end|>"
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{first} $A {end}",
        pair=f"{first} $A {end} $B:1 {end}:1",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in (first, end)],
    )
    tokenizer.save(str(path))
    settings_path = directory / "tokenizer_config.json"
    settings = json.loads(settings_path.read_text())
    settings_path.write_text(json.dumps({**settings, "sep_token": end, "cls_token": first}))
