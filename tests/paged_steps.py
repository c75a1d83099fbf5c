"""Models of checkpoints, to be run over a paged KV cache without an engine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from jackfield.checkpoint import read_config, with_overrides
from jackfield.compute.attention.cpu import CpuAttention
from jackfield.compute.weights import read_weights
from jackfield.contracts.loading import CheckpointFiles, LoadFormat
from jackfield.contracts.model import BuildContext, Model, TensorParallelGroup
from jackfield.testing.paged_model import BLOCK_SIZE, PagedModel

__all__ = ["BLOCK_SIZE", "PagedModel", "context", "load"]


def context(
    directory: Path | None = None,
    *,
    dtype: torch.dtype = torch.float32,
    group: TensorParallelGroup | None = None,
    max_model_len: int = 512,
) -> BuildContext:
    device = torch.device("cpu")
    return BuildContext(
        dtype=dtype,
        device=device,
        group=group or TensorParallelGroup(),
        attention_backend=CpuAttention(device, dtype, BLOCK_SIZE),
        max_model_len=max_model_len,
        max_num_batched_tokens=max_model_len,
        directory="" if directory is None else str(directory),
    )


@torch.inference_mode()
def load(
    model_class: type[Model],
    directory: Path,
    load_format: LoadFormat,
    *,
    dtype: torch.dtype = torch.float32,
    overrides: Mapping[str, object] | None = None,
) -> Model:
    """The model of a checkpoint, loaded."""
    config = with_overrides(read_config(directory), overrides or {})
    model = model_class(config, context(directory, dtype=dtype))
    files = CheckpointFiles(directory, config)
    read_weights(model, load_format, files, dtype=dtype, device=torch.device("cpu"))
    return model
