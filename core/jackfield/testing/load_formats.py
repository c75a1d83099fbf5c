"""The laws of a load format. Subclass ``LoadFormatContract`` in a test file::

class TestMine(LoadFormatContract):
    load_format = MyFormat

    def write(self, directory, tensors):
        ...  # the tensors, in your format
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import Tensor

from jackfield.contracts.loading import CheckpointFiles, LoadFormat
from jackfield.errors import CheckpointError
from jackfield.testing.plugins import assert_conforms

TENSORS = {
    "model.embed_tokens.weight": torch.arange(24, dtype=torch.float32).view(6, 4),
    "model.norm.weight": torch.linspace(-1, 1, 4),
    "lm_head.weight": torch.arange(24, dtype=torch.float32).view(6, 4).T.contiguous(),
}


class LoadFormatContract:
    """Laws that hold for every load format."""

    load_format: ClassVar[Callable[[], LoadFormat]]

    def write(self, directory: Path, tensors: Mapping[str, Tensor]) -> None:
        """Writes a checkpoint of these tensors."""
        raise NotImplementedError("a kit's subclass says how its format is written")

    def files(self, directory: Path) -> CheckpointFiles:
        """What the format is given."""
        return CheckpointFiles(
            directory,
            {},
            wanted={name: tuple(tensor.shape) for name, tensor in TENSORS.items()},
            dtype=torch.float32,
            device=torch.device("cpu"),
        )

    def test_the_registry_takes_it(self) -> None:
        assert_conforms("load_formats", type(self).load_format)

    def test_every_tensor_comes_once_and_unchanged(self, tmp_path: Path) -> None:
        self.write(tmp_path, TENSORS)
        made = type(self).load_format()
        made.check(CheckpointFiles(tmp_path, {}))
        pairs = list(made.iter_weights(self.files(tmp_path)))
        names = [name for name, _ in pairs]
        assert sorted(names) == sorted(TENSORS)
        for name, tensor in pairs:
            torch.testing.assert_close(tensor, TENSORS[name])

    def test_tensors_stay_what_they_were_when_the_next_come(self, tmp_path: Path) -> None:
        """A layer may keep what it is given: no buffer is used twice."""
        self.write(tmp_path, TENSORS)
        kept = dict(type(self).load_format().iter_weights(self.files(tmp_path)))
        for name, tensor in kept.items():
            torch.testing.assert_close(tensor, TENSORS[name])

    def test_an_empty_directory_is_refused_in_one_line(self, tmp_path: Path) -> None:
        with pytest.raises(CheckpointError) as error:
            made = type(self).load_format()
            made.check(self.files(tmp_path))
            list(made.iter_weights(self.files(tmp_path)))
        assert "\n" not in str(error.value)
