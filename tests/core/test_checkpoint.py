"""Finding and reading a checkpoint, and what is refused before anything heavy is imported."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from huggingface_hub.utils._paths import filter_repo_objects
from safetensors.torch import save_file

from jackfield.checkpoint import (
    architectures,
    check_weights,
    context_length,
    read_config,
    read_generation_config,
    read_safetensors_header,
    resolve_model,
    safetensors_files,
    torch_dtype_name,
    with_overrides,
)
from jackfield.errors import CheckpointError

TENSORS = {
    "a.weight": torch.arange(12, dtype=torch.float32).view(3, 4),
    "b.weight": torch.ones(5, dtype=torch.bfloat16),
    "c.empty": torch.empty(0, 4, dtype=torch.int64),
}


@pytest.fixture
def single(tmp_path: Path) -> Path:
    save_file(TENSORS, tmp_path / "model.safetensors", metadata={"format": "pt"})
    return tmp_path


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    save_file({"a.weight": TENSORS["a.weight"]}, tmp_path / "model-1-of-2.safetensors")
    save_file({"b.weight": TENSORS["b.weight"]}, tmp_path / "model-2-of-2.safetensors")
    weight_map = {"a.weight": "model-1-of-2.safetensors", "b.weight": "model-2-of-2.safetensors"}
    write_json(tmp_path / "model.safetensors.index.json", {"weight_map": weight_map})
    return tmp_path


def write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value))


def with_header(path: Path, header: object, data: bytes = b"") -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


# --- safetensors -----------------------------------------------------------------------


def test_a_header_says_dtype_shape_and_where_the_bytes_are(single: Path) -> None:
    path = single / "model.safetensors"
    header = read_safetensors_header(path)
    assert set(header) == set(TENSORS)
    entry = header["a.weight"]
    assert (entry.dtype, entry.shape) == ("F32", (3, 4))
    content = path.read_bytes()[entry.begin : entry.end]
    assert content == TENSORS["a.weight"].numpy().tobytes()
    begins = [entry.begin for entry in header.values()]
    assert begins == sorted(begins)


def test_a_file_cut_anywhere_is_refused_and_the_first_lost_tensor_named(single: Path) -> None:
    path = single / "model.safetensors"
    whole, header = path.read_bytes(), read_safetensors_header(path)
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        with pytest.raises(CheckpointError, match=r"model\.safetensors is truncated") as caught:
            read_safetensors_header(path)
        lost = [name for name, entry in header.items() if entry.end > size >= entry.begin]
        begun = size >= min(entry.begin for entry in header.values())
        assert not begun or any(name in str(caught.value) for name in lost)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("header", "data", "message"),
    [
        (b"no json", b"", "not JSON"),
        (b"[1]", b"", "not a JSON object"),
        ({"t": 1}, b"", "tensor t has no description"),
        ({"t": {"dtype": "F99", "shape": [1], "data_offsets": [0, 4]}}, b"0000", "dtype 'F99'"),
        ({"t": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}, b"0000", "the shape"),
        ({"t": {"dtype": "F32", "shape": [1], "data_offsets": [0]}}, b"0000", "the offsets"),
        ({"t": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}, b"0000", "cannot have 4"),
        ({"t": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}, b"0" * 8, "a gap"),
        ({"t": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, b"0" * 9, "5 bytes follow"),
    ],
)
def test_a_damaged_header_is_refused_with_file_and_tensor(
    tmp_path: Path, header: object, data: bytes, message: str
) -> None:
    path = with_header(tmp_path / "model.safetensors", header, data)
    with pytest.raises(CheckpointError, match=message) as caught:
        read_safetensors_header(path)
    assert str(path) in str(caught.value)


def test_a_header_longer_than_any_real_one_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Q", 1 << 62) + b"x" * 100)
    with pytest.raises(CheckpointError, match="header claims"):
        read_safetensors_header(path)


def test_a_whole_checkpoint_passes_single_or_sharded(single: Path) -> None:
    check_weights(single)


def test_the_index_says_which_files_there_are(sharded: Path) -> None:
    save_file({"z": torch.ones(1)}, sharded / "unrelated.safetensors")
    check_weights(sharded)
    weights = safetensors_files(sharded)
    assert weights is not None
    assert [file.name for file in weights.files] == [
        "model-1-of-2.safetensors",
        "model-2-of-2.safetensors",
    ]


def test_a_missing_shard_is_named_with_a_tensor_it_has(sharded: Path) -> None:
    (sharded / "model-2-of-2.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"model-2-of-2\.safetensors.*b\.weight"):
        check_weights(sharded)


def test_a_tensor_that_is_not_where_the_index_puts_it_is_named(sharded: Path) -> None:
    save_file({"x": torch.ones(1)}, sharded / "model-2-of-2.safetensors")
    with pytest.raises(CheckpointError, match=r"model-2-of-2\.safetensors lacks tensor b\.weight"):
        check_weights(sharded)


def test_an_index_may_list_a_tied_head_and_frequencies_that_are_not_stored(sharded: Path) -> None:
    index = sharded / "model.safetensors.index.json"
    listed = json.loads(index.read_text())["weight_map"]
    more = ("lm_head.weight", "model.layers.0.self_attn.rotary_emb.inv_freq")
    write_json(index, {"weight_map": listed | dict.fromkeys(more, "model-2-of-2.safetensors")})
    check_weights(sharded)


def test_an_index_cannot_lead_out_of_the_directory(sharded: Path) -> None:
    index = sharded / "model.safetensors.index.json"
    write_json(index, {"weight_map": {"a.weight": "../secret.safetensors"}})
    with pytest.raises(CheckpointError, match="is no file"):
        check_weights(sharded)


def test_files_of_torch_save_are_found_and_checked(tmp_path: Path) -> None:
    path = tmp_path / "pytorch_model.bin"
    torch.save(TENSORS, path)
    check_weights(tmp_path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin is truncated"):
        check_weights(tmp_path)


def test_a_directory_without_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="has no weights"):
        check_weights(tmp_path)


# --- config.json -----------------------------------------------------------------------


def test_overrides_replace_values_and_merge_sub_configurations(tmp_path: Path) -> None:
    config = {"a": 1, "rope_scaling": {"factor": 2}, "text_config": {"x": 1, "y": 2}}
    write_json(tmp_path / "config.json", config)
    overrides = {"rope_scaling": {"type": "yarn"}, "text_config": {"y": 3}}
    assert with_overrides(read_config(tmp_path), overrides) == {
        "a": 1,
        "rope_scaling": {"type": "yarn"},
        "text_config": {"x": 1, "y": 3},
    }


@pytest.mark.parametrize("text", ["{", "[]", "\x00"])
def test_a_damaged_configuration_is_refused_in_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"config\.json") as caught:
        read_config(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_directory_without_configuration_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        read_config(tmp_path)
    assert read_generation_config(tmp_path) == {}


@pytest.mark.parametrize(
    ("config", "length"),
    [
        ({"max_position_embeddings": 4096}, 4096),
        ({"n_positions": 1024}, 1024),
        ({"text_config": {"max_position_embeddings": 77}}, 77),
        ({"max_position_embeddings": 100, "rope_scaling": {"type": "linear", "factor": 2.0}}, 200),
        (
            {
                "max_position_embeddings": 32768,
                "rope_parameters": {
                    "rope_type": "yarn",
                    "factor": 4.0,
                    "original_max_position_embeddings": 32768,
                },
            },
            131072,
        ),
        (
            {
                "max_position_embeddings": 131072,
                "rope_scaling": {
                    "rope_type": "llama3",
                    "factor": 8.0,
                    "original_max_position_embeddings": 8192,
                },
            },
            131072,
        ),
        (
            {
                "model_type": "gemma3_text",
                "max_position_embeddings": 131072,
                "rope_scaling": {"rope_type": "linear", "factor": 8.0},
            },
            131072,
        ),
    ],
)
def test_the_context_is_what_the_configuration_says_and_its_scaling_gives(
    config: dict[str, object], length: int
) -> None:
    assert context_length(config) == length


def test_an_unknown_context_asks_for_the_option() -> None:
    with pytest.raises(CheckpointError, match="--max-model-len"):
        context_length({})


def test_dtype_and_architectures_are_read_in_old_and_new_spelling() -> None:
    assert torch_dtype_name({"torch_dtype": "bfloat16"}) == "bfloat16"
    assert torch_dtype_name({"dtype": "torch.float16"}) == "float16"
    assert torch_dtype_name({}) is None
    assert architectures({"architectures": ["A", "B"]}) == ("A", "B")
    with pytest.raises(CheckpointError, match="architectures"):
        architectures({"architectures": None})


# --- finding the directory -------------------------------------------------------------


def test_a_directory_is_found_before_the_hub_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise AssertionError("the hub was asked")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    (tmp_path / "owner" / "model").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert resolve_model("owner/model") == Path("owner/model")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("/no/such/directory", "there is no directory"),
        ("./nothing", "there is no directory"),
        ("~nobody-of-this-name/model", "there is no directory ~nobody-of-this-name/model"),
        ("a b", "neither a directory nor a name on the hub"),
    ],
)
def test_what_can_be_no_model_is_refused_in_one_line(name: str, message: str) -> None:
    with pytest.raises(CheckpointError, match=message) as caught:
        resolve_model(name)
    assert "\n" not in str(caught.value)


def test_a_file_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "model.bin").touch()
    with pytest.raises(CheckpointError, match="is a file"):
        resolve_model(str(tmp_path / "model.bin"))
    (tmp_path / "model.gguf").touch()
    assert resolve_model(str(tmp_path / "model.gguf")) == tmp_path / "model.gguf"


def test_offline_a_model_that_is_not_cached_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match="the hub cannot be reached") as caught:
        resolve_model("owner/model", revision="main", download_dir=str(tmp_path))
    assert "\n" not in str(caught.value)


class Hub:
    """Files of one repository, downloaded as the hub's client chooses them."""

    def __init__(self, directory: Path, *files: str) -> None:
        self.directory = directory
        self._files = files
        self.calls: list[str | None] = []

    def download(self, name: str, **options: Any) -> str:
        self.calls.append(options["revision"])
        patterns = {key: options[key] for key in ("allow_patterns", "ignore_patterns")}
        for file in filter_repo_objects(self._files, **patterns):
            path = self.directory / file
            path.parent.mkdir(exist_ok=True)
            path.touch()
        return str(self.directory)

    @property
    def downloaded(self) -> set[str]:
        files = (path for path in self.directory.rglob("*") if path.is_file())
        return {str(path.relative_to(self.directory)) for path in files}


def test_files_of_torch_save_are_downloaded_only_where_there_is_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = Hub(tmp_path / "old", "pytorch_model.bin", "code.py", "openvino/openvino_model.bin")
    old.directory.mkdir()
    monkeypatch.setattr(huggingface_hub, "snapshot_download", old.download)
    resolve_model("owner/old", revision="v1", ignore_patterns=["*.py"])
    assert (old.calls, old.downloaded) == (["v1"] * 2, {"pytorch_model.bin"})

    new = Hub(tmp_path / "new", "pytorch_model.bin", "model.safetensors")
    new.directory.mkdir()
    monkeypatch.setattr(huggingface_hub, "snapshot_download", new.download)
    resolve_model("owner/new")
    assert (new.calls, new.downloaded) == ([None], {"model.safetensors"})


@pytest.mark.parametrize(
    ("wanted", "other"),
    [
        ("model-1.safetensors", "original/model.safetensors metal/model.bin"),
        ("model-1.safetensors params.json", "consolidated.safetensors"),
        ("consolidated.safetensors params.json", ""),
        ("pytorch_model.bin 1_Pooling/config.json", "onnx/model.onnx"),
    ],
    ids=["gpt-oss", "Mistral-7B", "Mistral alone", "bge-m3"],
)
def test_weights_are_downloaded_once(
    wanted: str, other: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = Hub(tmp_path, *wanted.split(), *other.split())
    monkeypatch.setattr(huggingface_hub, "snapshot_download", hub.download)
    resolve_model("owner/model")
    assert hub.downloaded == set(wanted.split())


def test_the_weights_of_load_format_mistral_are_downloaded_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = Hub(tmp_path, "model.safetensors", "consolidated.safetensors")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", hub.download)
    resolve_model("owner/model", consolidated=True)
    assert "consolidated.safetensors" in hub.downloaded


@pytest.mark.parametrize(
    ("quantization", "wanted"),
    [
        ("Q4_K_M", "M-Q4_K_M.gguf"),
        ("q8_0", "m-q8_0.gguf"),
        ("BF16", "BF16/M-BF16-00001-of-00002.gguf BF16/M-BF16-00002-of-00002.gguf"),
        ("Q6_K", "M.Q6_K.gguf"),
    ],
)
def test_one_gguf_file_of_many_is_named_behind_a_colon(
    quantization: str, wanted: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = (
        "M-Q4_K_M.gguf M-Q4_K_S.gguf m-q8_0.gguf M.Q6_K.gguf BF16/M-BF16-00001-of-00002.gguf "
        "BF16/M-BF16-00002-of-00002.gguf mmproj-BF16.gguf config.json"
    )
    hub = Hub(tmp_path, *files.split())
    monkeypatch.setattr(huggingface_hub, "snapshot_download", hub.download)
    first = wanted.split()[0]
    assert resolve_model(f"owner/M-GGUF:{quantization}") == tmp_path / first
    assert hub.downloaded == set(wanted.split())
    with pytest.raises(CheckpointError, match="file that is called Q5_K_M"):
        resolve_model("owner/M-GGUF:Q5_K_M")


def test_neither_torch_nor_the_hub_is_imported_for_a_local_checkpoint(single: Path) -> None:
    write_json(single / "config.json", {"architectures": ["A"]})
    code = (
        "import sys; from jackfield import checkpoint as c; "
        f"d = c.resolve_model({str(single)!r}); c.read_config(d); c.check_weights(d); "
        "assert not {'torch', 'numpy', 'huggingface_hub', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
