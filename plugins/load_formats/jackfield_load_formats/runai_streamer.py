"""Weights from safetensors files through the Run:ai Model Streamer: many reads at once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor

from jackfield.checkpoint import check_safetensors
from jackfield.contracts.loading import CheckpointFiles
from jackfield_load_formats.extras import need
from jackfield_load_formats.progress import progress
from jackfield_load_formats.safetensors import weight_files


class RunaiStreamerLoadFormat:
    """Implements ``LoadFormat``. Tensors come in the order in which they were read."""

    name: ClassVar[str] = "runai_streamer"
    api_version: ClassVar[int] = 1

    @dataclass(frozen=True)
    class Options:
        """What the streamer's own environment variables say unless they are given here."""

        concurrency: int | None = field(
            default=None, metadata={"help": "reads at once (RUNAI_STREAMER_CONCURRENCY)"}
        )
        memory_limit: int | None = field(
            default=None, metadata={"help": "bytes of its buffer (RUNAI_STREAMER_MEMORY_LIMIT)"}
        )

    def __init__(self, *, options: Options | None = None) -> None:
        need(self.name, "runai_model_streamer", "runai")
        self._options = options or self.Options()

    def check(self, files: CheckpointFiles) -> None:
        check_safetensors(weight_files(files))

    def iter_weights(self, files: CheckpointFiles) -> Iterator[tuple[str, Tensor]]:
        options = self._options
        # The library has no other way to be told.
        if (concurrency := options.concurrency or files.max_parallel) is not None:
            os.environ["RUNAI_STREAMER_CONCURRENCY"] = str(concurrency)
        if options.memory_limit is not None:
            os.environ["RUNAI_STREAMER_MEMORY_LIMIT"] = str(options.memory_limit)
        from runai_model_streamer import SafetensorsStreamer

        weights = weight_files(files)
        check_safetensors(weights)
        total = sum(path.stat().st_size for path in weights.files)
        with progress(total, files.show_progress) as advance, SafetensorsStreamer() as streamer:
            streamer.stream_files([str(path) for path in weights.files])
            for name, tensor in streamer.get_tensors():
                yield name, tensor
                advance(tensor.nbytes)
