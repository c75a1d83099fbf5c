"""What the formats give is what transformers and safetensors read."""

from __future__ import annotations

import mmap
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.checkpoints import make
from tests.paged_steps import PagedModel, load
from torch import Tensor

from jackfield.checkpoint import read_config
from jackfield.contracts.loading import CheckpointFiles
from jackfield.errors import CheckpointError, ConfigError
from jackfield_load_formats.auto import AutoLoadFormat
from jackfield_load_formats.dummy import DummyLoadFormat
from jackfield_load_formats.pt import PtLoadFormat
from jackfield_load_formats.safetensors import SafetensorsLoadFormat
from jackfield_models.llama import LlamaForCausalLM

DTYPES = (
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
    *(torch.float8_e4m3fn, torch.float8_e5m2),
)


def files(directory: Path, *, show_progress: bool = False) -> CheckpointFiles:
    return CheckpointFiles(directory, {}, show_progress)


def some_tensors() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    tensors = {
        str(dtype): torch.randint(0, 2, (3, 5), generator=generator).to(dtype) for dtype in DTYPES
    }
    return tensors | {"empty": torch.empty(0, 3), "scalar": torch.tensor(2.5)}


def assert_same(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    assert set(ours) == set(theirs)
    for name, tensor in theirs.items():
        assert ours[name].dtype == tensor.dtype and ours[name].shape == tensor.shape, name
        assert torch.equal(raw(ours[name]), raw(tensor)), name


def raw(tensor: Tensor) -> Tensor:
    return tensor.reshape(-1).view(torch.uint8)


def test_safetensors_of_every_dtype_are_read_as_the_library_does(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file(some_tensors(), path)
    assert_same(dict(SafetensorsLoadFormat().iter_weights(files(tmp_path))), load_file(path))


def test_sharded_checkpoints_come_whole_each_tensor_once_in_file_order() -> None:
    directory = make("LlamaForCausalLM", sharded=True)
    shards = sorted(directory.glob("*.safetensors"))
    assert len(shards) > 2
    pairs = list(SafetensorsLoadFormat().iter_weights(files(directory)))
    theirs = {n: t for shard in shards for n, t in load_file(shard).items()}
    assert len(pairs) == len(dict(pairs))
    assert_same(dict(pairs), theirs)
    where = {name: shard.name for shard in shards for name in load_file(shard)}
    assert [where[name] for name, _ in pairs] == sorted(where[name] for name, _ in pairs)


def test_a_tensor_outlives_the_reader_and_a_write_does_not_reach_the_file(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    big = torch.arange(5 * mmap.PAGESIZE, dtype=torch.int32)
    save_file({"big": big, "last": big + 1}, path)
    before = path.read_bytes()
    kept = dict(SafetensorsLoadFormat().iter_weights(files(tmp_path)))
    assert torch.equal(kept["big"], big) and torch.equal(kept["last"], big + 1)
    kept["last"].zero_()
    assert torch.equal(kept["big"], big)
    assert path.read_bytes() == before


def test_a_reader_that_is_abandoned_ends_its_thread(tmp_path: Path) -> None:
    save_file(some_tensors(), tmp_path / "model.safetensors")
    stream = SafetensorsLoadFormat().iter_weights(files(tmp_path))
    assert isinstance(stream, Iterator)
    next(stream)
    stream.close()  # type: ignore[attr-defined]


def test_damage_is_found_by_check_and_by_reading(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file(some_tensors(), path)
    path.write_bytes(path.read_bytes()[:-1])
    for load_format in (SafetensorsLoadFormat(), AutoLoadFormat()):
        with pytest.raises(CheckpointError, match="truncated"):
            load_format.check(files(tmp_path))
        with pytest.raises(CheckpointError, match="truncated"):
            dict(load_format.iter_weights(files(tmp_path)))


@pytest.mark.parametrize("legacy", [False, True])
def test_files_of_torch_save_are_read(tmp_path: Path, legacy: bool) -> None:
    # The old layout is older than these dtypes.
    tensors = {n: t for n, t in some_tensors().items() if not (legacy and "float8" in n)}
    path = tmp_path / "pytorch_model.bin"
    torch.save(tensors, path, _use_new_zipfile_serialization=not legacy)
    assert_same(dict(PtLoadFormat().iter_weights(files(tmp_path))), tensors)


def test_a_file_of_torch_save_runs_no_code(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (eval, ("open('ran', 'w')",))

    torch.save({"a": Evil()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="cannot read"):
        dict(PtLoadFormat().iter_weights(files(tmp_path)))
    assert not Path("ran").exists()


def test_auto_takes_safetensors_where_there_are_both(tmp_path: Path) -> None:
    torch.save({"old": torch.ones(1)}, tmp_path / "pytorch_model.bin")
    assert list(dict(AutoLoadFormat().iter_weights(files(tmp_path)))) == ["old"]
    save_file({"new": torch.ones(1)}, tmp_path / "model.safetensors")
    assert list(dict(AutoLoadFormat().iter_weights(files(tmp_path)))) == ["new"]


def test_without_files_of_its_kind_a_format_says_so(tmp_path: Path) -> None:
    for load_format in (SafetensorsLoadFormat(), PtLoadFormat(), AutoLoadFormat()):
        with pytest.raises(CheckpointError, match=str(tmp_path)):
            load_format.check(files(tmp_path))


@pytest.mark.parametrize(("is_terminal", "asked"), [(True, True), (True, False), (False, True)])
def test_the_bar_counts_the_bytes_on_a_terminal(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    is_terminal: bool,
    asked: bool,
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: is_terminal)
    save_file({"t": torch.zeros(1 << 18)}, tmp_path / "model.safetensors")
    dict(SafetensorsLoadFormat().iter_weights(files(tmp_path, show_progress=asked)))
    shown = capsys.readouterr().err
    if is_terminal and asked:
        assert "Loading weights" in shown and "1.00M/1.00M" in shown
    else:
        assert shown == ""


def test_dummy_weights_need_nothing_but_the_configuration(tmp_path: Path) -> None:
    config = make("LlamaForCausalLM") / "config.json"
    (tmp_path / "config.json").write_text(config.read_text())
    logits = []
    for _ in range(2):
        model = load(LlamaForCausalLM, tmp_path, DummyLoadFormat())
        logits.append(PagedModel(model).step({0: [3, 4, 5]})[0])
    assert torch.equal(logits[0], logits[1])
    assert logits[0].isfinite().all() and logits[0].std() > 0


def test_dummy_weights_are_larger_than_their_pool_where_asked(tmp_path: Path) -> None:
    shape = (4100, 4100)
    wanted = CheckpointFiles(tmp_path, {}, wanted={"big": shape, "norm.weight": (3,)})
    weights = dict(DummyLoadFormat().iter_weights(wanted))
    assert weights["big"].shape == shape
    assert 0.019 < float(weights["big"].std()) < 0.021
    assert torch.equal(weights["norm.weight"], torch.ones(3))


def test_dummy_weights_without_a_model_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="dummy"):
        next(DummyLoadFormat().iter_weights(files(tmp_path)))


def test_a_loaded_model_is_the_same_from_either_kind_of_file(tmp_path: Path) -> None:
    directory = make("LlamaForCausalLM")
    torch.save(load_file(directory / "model.safetensors"), tmp_path / "pytorch_model.bin")
    (tmp_path / "config.json").write_text((directory / "config.json").read_text())
    assert read_config(tmp_path) == read_config(directory)
    ours = [
        PagedModel(load(LlamaForCausalLM, where, AutoLoadFormat())).step({0: [5, 6, 7]})[0]
        for where in (directory, tmp_path)
    ]
    assert torch.equal(ours[0], ours[1])
