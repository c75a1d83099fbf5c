"""The two orders in which checkpoints have the rows of queries and keys.

A rotary embedding turns pairs of a head's elements: neighbours in Mistral's files and in GGUF
files of Llama's, an element of the first half and one of the second in Hugging Face's (RoFormer,
arXiv 2104.09864, section 3.2; the pairs are a convention).
"""

from __future__ import annotations

from torch import Tensor

from jackfield.errors import CheckpointError


def halves_of_heads(name: str, tensor: Tensor, heads: object) -> Tensor:
    """The rows of ``heads`` heads, neighbours as pairs, in Hugging Face's order."""
    rows = tensor.shape[0]
    if not isinstance(heads, int) or rows % (2 * heads):
        raise CheckpointError(f"tensor {name} has {rows} rows, which are not {heads} heads")
    pairs = tensor.view(heads, rows // heads // 2, 2, -1)
    return pairs.transpose(1, 2).reshape(tensor.shape)
