"""GGUF: a model in one file, or one that was cut into several; without torch.

Layout: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.
"""

from jackfield.checkpoint.gguf.files import gguf_file, gguf_patterns, is_gguf, read_gguf
from jackfield.checkpoint.gguf.header import Gguf, GgufTensor
from jackfield.checkpoint.gguf.names import checkpoint_names, quantized_layers
from jackfield.checkpoint.gguf.tensor_types import TENSOR_TYPES, TensorType
from jackfield.checkpoint.gguf.text import read_gguf_generation, read_gguf_templates

__all__ = [
    "TENSOR_TYPES",
    "Gguf",
    "GgufTensor",
    "TensorType",
    "checkpoint_names",
    "gguf_file",
    "gguf_patterns",
    "is_gguf",
    "quantized_layers",
    "read_gguf",
    "read_gguf_generation",
    "read_gguf_templates",
]
