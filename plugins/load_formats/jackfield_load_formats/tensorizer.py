"""Weights from a file of CoreWeave's tensorizer: on this machine, over HTTP or from S3."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from torch import Tensor

from jackfield.contracts.loading import CheckpointFiles
from jackfield.errors import CheckpointError
from jackfield_load_formats.extras import need

FILE = "model.tensors"


class TensorizerLoadFormat:
    """Implements ``LoadFormat`` for a file with the tensors of the checkpoint, under its names
    (``TensorSerializer.write_state_dict``)."""

    name: ClassVar[str] = "tensorizer"
    api_version: ClassVar[int] = 1

    @dataclass(frozen=True)
    class Options:
        """Where the file is, and how it is read."""

        tensorizer_uri: str | None = field(
            default=None, metadata={"help": f"path, http or s3 address; default: MODEL/{FILE}"}
        )
        num_readers: int = field(default=1, metadata={"help": "reads at once"})
        verify_hash: bool = field(default=False, metadata={"help": "check each tensor's hash"})

    def __init__(self, *, options: Options | None = None) -> None:
        need(self.name, "tensorizer", "tensorizer")
        self._options = options or self.Options()

    def check(self, files: CheckpointFiles) -> None:
        uri = self._uri(files)
        if "://" not in uri and not Path(uri).is_file():
            raise CheckpointError(
                f"there is no file {uri}; --model-loader-extra-config.tensorizer_uri says another"
            )

    def iter_weights(self, files: CheckpointFiles) -> Iterator[tuple[str, Tensor]]:
        self.check(files)
        from tensorizer import TensorDeserializer

        opened = TensorDeserializer(
            self._uri(files),
            device="cpu" if files.device is None else files.device,
            num_readers=files.max_parallel or self._options.num_readers,
            verify_hash=self._options.verify_hash,
        )
        with opened as tensors:
            for name in tensors.keys():
                yield name, tensors[name]

    def _uri(self, files: CheckpointFiles) -> str:
        return self._options.tensorizer_uri or str(files.directory / FILE)
