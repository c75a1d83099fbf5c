"""Finding a model's directory and reading what it says about itself, without torch.

A checkpoint is a directory with ``config.json`` and weights, as Hugging Face lays it out, or a
GGUF file, which stands wherever a directory does. All that can be known from the file headers is
refused here, before anything heavy is imported.
"""

from jackfield.checkpoint.description import (
    architectures,
    context_length,
    read_config,
    read_generation_config,
    torch_dtype_name,
    with_overrides,
)
from jackfield.checkpoint.gguf import (
    TENSOR_TYPES,
    Gguf,
    GgufTensor,
    checkpoint_names,
    gguf_file,
    is_gguf,
    read_gguf,
)
from jackfield.checkpoint.locating import resolve_model
from jackfield.checkpoint.quantization import with_quantization
from jackfield.checkpoint.reading import read_optional_json
from jackfield.checkpoint.sentence_transformers import SentencePooling, read_sentence_pooling
from jackfield.checkpoint.text_files import read_chat_template
from jackfield.checkpoint.weight_files import (
    TensorEntry,
    WeightFiles,
    check_pt,
    check_safetensors,
    check_weights,
    pt_files,
    read_safetensors_header,
    safetensors_files,
)

__all__ = [
    "TENSOR_TYPES",
    "Gguf",
    "GgufTensor",
    "SentencePooling",
    "TensorEntry",
    "WeightFiles",
    "architectures",
    "check_pt",
    "check_safetensors",
    "check_weights",
    "checkpoint_names",
    "context_length",
    "gguf_file",
    "is_gguf",
    "pt_files",
    "read_chat_template",
    "read_config",
    "read_generation_config",
    "read_gguf",
    "read_optional_json",
    "read_safetensors_header",
    "read_sentence_pooling",
    "resolve_model",
    "safetensors_files",
    "torch_dtype_name",
    "with_overrides",
    "with_quantization",
]
