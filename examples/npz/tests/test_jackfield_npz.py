"""The laws of a load format, and damaged archives."""

import numpy as np
import pytest
from jackfield_npz.plugin import NpzLoadFormat

from jackfield.contracts.loading import CheckpointFiles
from jackfield.errors import CheckpointError
from jackfield.testing import LoadFormatContract


class TestNpz(LoadFormatContract):
    load_format = NpzLoadFormat

    def write(self, directory, tensors):
        arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
        np.savez(directory / "weights.npz", **arrays)


def test_an_archive_that_is_cut_off_is_named(tmp_path):
    np.savez(tmp_path / "weights.npz", a=np.zeros(1000))
    file = tmp_path / "weights.npz"
    file.write_bytes(file.read_bytes()[:500])
    with pytest.raises(CheckpointError, match=r"weights\.npz is damaged or cut off"):
        NpzLoadFormat().check(CheckpointFiles(tmp_path, {}))


def test_a_pickle_is_never_opened(tmp_path):
    np.savez(tmp_path / "weights.npz", a=np.array([{"a": 1}], dtype=object))
    with pytest.raises(CheckpointError, match="tensor a of"):
        list(NpzLoadFormat().iter_weights(CheckpointFiles(tmp_path, {})))
