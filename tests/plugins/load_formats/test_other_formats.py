"""Formats of other programs, and libraries that may be installed, give what was written."""

from __future__ import annotations

import errno
import importlib.util
import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.checkpoints import make
from torch import Tensor

from jackfield.checkpoint import read_config
from jackfield.contracts.loading import CheckpointFiles, LoadFormat
from jackfield.errors import CheckpointError, ConfigError
from jackfield.registry import Registry
from jackfield.testing import LoadFormatContract
from jackfield_load_formats.auto import AutoLoadFormat
from jackfield_load_formats.fastsafetensors import FastSafetensorsLoadFormat
from jackfield_load_formats.mistral import MistralLoadFormat
from jackfield_load_formats.npcache import NpCacheLoadFormat
from jackfield_load_formats.pt import PtLoadFormat
from jackfield_load_formats.runai_streamer import RunaiStreamerLoadFormat
from jackfield_load_formats.safetensors import SafetensorsLoadFormat
from jackfield_load_formats.sharded_state import ShardedStateLoadFormat
from jackfield_load_formats.tensorizer import TensorizerLoadFormat


def needs(module: str) -> pytest.MarkDecorator:
    found = importlib.util.find_spec(module) is not None
    return pytest.mark.skipif(not found, reason=f"{module} is not installed")


def save_pt(directory: Path, tensors: Mapping[str, Tensor]) -> None:
    torch.save(dict(tensors), directory / "pytorch_model.bin")


def save_safetensors(directory: Path, tensors: Mapping[str, Tensor]) -> None:
    save_file(dict(tensors), directory / "model.safetensors")


class TestNpCache(LoadFormatContract):
    load_format: ClassVar[Callable[[], LoadFormat]] = NpCacheLoadFormat

    def write(self, directory: Path, tensors: Mapping[str, Tensor]) -> None:
        save_pt(directory, tensors)


class TestShardedState(LoadFormatContract):
    load_format: ClassVar[Callable[[], LoadFormat]] = ShardedStateLoadFormat

    def write(self, directory: Path, tensors: Mapping[str, Tensor]) -> None:
        save_file(dict(tensors), directory / "model-rank-0-part-0.safetensors")


@needs("fastsafetensors")
class TestFastSafetensors(LoadFormatContract):
    load_format: ClassVar[Callable[[], LoadFormat]] = FastSafetensorsLoadFormat

    def write(self, directory: Path, tensors: Mapping[str, Tensor]) -> None:
        save_safetensors(directory, tensors)


@needs("runai_model_streamer")
class TestRunaiStreamer(LoadFormatContract):
    load_format: ClassVar[Callable[[], LoadFormat]] = RunaiStreamerLoadFormat

    def write(self, directory: Path, tensors: Mapping[str, Tensor]) -> None:
        save_safetensors(directory, tensors)


@needs("tensorizer")
class TestTensorizer(LoadFormatContract):
    load_format: ClassVar[Callable[[], LoadFormat]] = TensorizerLoadFormat

    def write(self, directory: Path, tensors: Mapping[str, Tensor]) -> None:
        from tensorizer import TensorSerializer

        serializer = TensorSerializer(str(directory / "model.tensors"))
        serializer.write_state_dict(dict(tensors))
        serializer.close()


@pytest.mark.parametrize(
    ("name", "module", "extra"),
    [
        ("fastsafetensors", "fastsafetensors", "fastsafetensors"),
        ("runai_streamer", "runai_model_streamer", "runai"),
        ("tensorizer", "tensorizer", "tensorizer"),
    ],
)
def test_a_library_that_is_missing_is_named_with_the_line_that_installs_it(
    name: str, module: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda each: None if each == module else found(each)
    )
    with pytest.raises(ConfigError) as error:
        Registry().make("load_formats", name)
    assert str(error.value) == (
        f"--load-format {name} needs the package {module}: pip install 'jackfield[{extra}]'"
    )


# --- npcache ---------------------------------------------------------------------------

ODD = {
    "bfloat16": torch.randn(3, 5).bfloat16(),
    "float8": torch.randn(4).to(torch.float8_e4m3fn),
    "empty": torch.empty(0, 3),
    "scalar": torch.tensor(2.5),
    "turned": torch.arange(6.0).view(2, 3).T,
}


def test_the_cache_is_made_once_and_again_when_the_weights_change(tmp_path: Path) -> None:
    files = CheckpointFiles(tmp_path, {})
    save_pt(tmp_path, ODD)
    for _ in range(2):
        ours = dict(NpCacheLoadFormat().iter_weights(files))
        assert list(ours) == list(ODD)
        for name, tensor in ODD.items():
            assert ours[name].dtype == tensor.dtype and ours[name].shape == tensor.shape
            assert torch.equal(ours[name].float(), tensor.float()), name
    index = tmp_path / "np" / "index.json"
    made = index.stat().st_mtime_ns
    dict(NpCacheLoadFormat().iter_weights(files))
    assert index.stat().st_mtime_ns == made
    save_pt(tmp_path, {"other": torch.ones(2)})
    assert list(dict(NpCacheLoadFormat().iter_weights(files))) == ["other"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["np", "pytorch_model.bin"]


def test_a_folder_that_cannot_be_written_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**arguments: object) -> str:
        raise OSError(errno.EROFS, "Read-only file system")

    save_pt(tmp_path, ODD)
    monkeypatch.setattr(tempfile, "mkdtemp", refuse)
    with pytest.raises(CheckpointError, match="Read-only file system; take --load-format pt"):
        list(NpCacheLoadFormat().iter_weights(CheckpointFiles(tmp_path, {})))


# --- mistral ---------------------------------------------------------------------------


def mistral_names(directory: Path) -> dict[str, Tensor]:
    """A checkpoint of Hugging Face by Mistral's names, the rows of q and k turned back."""
    config: dict[str, Any] = read_config(directory)
    ours = load_file(directory / "model.safetensors")
    theirs: dict[str, Tensor] = {
        "tok_embeddings.weight": ours["model.embed_tokens.weight"],
        "norm.weight": ours["model.norm.weight"],
        "output.weight": ours["lm_head.weight"],
    }
    for layer in range(config["num_hidden_layers"]):
        own, other = f"model.layers.{layer}.", f"layers.{layer}."
        theirs[f"{other}attention_norm.weight"] = ours[f"{own}input_layernorm.weight"]
        theirs[f"{other}ffn_norm.weight"] = ours[f"{own}post_attention_layernorm.weight"]
        for number, name in ((1, "gate"), (2, "down"), (3, "up")):
            weight = ours[f"{own}mlp.{name}_proj.weight"]
            theirs[f"{other}feed_forward.w{number}.weight"] = weight
        for name in "qkvo":
            weight = ours[f"{own}self_attn.{name}_proj.weight"]
            if name in "qk":
                weight = interleaved(weight, config["head_dim"])
            theirs[f"{other}attention.w{name}.weight"] = weight
    return {name: tensor.contiguous() for name, tensor in theirs.items()}


def interleaved(weight: Tensor, head_dim: int) -> Tensor:
    """Row 2 i of a head is Hugging Face's row i, row 2 i + 1 its row i + half."""
    half = head_dim // 2
    order = [
        head * head_dim + (place // 2 if place % 2 == 0 else half + place // 2)
        for head in range(weight.shape[0] // head_dim)
        for place in range(head_dim)
    ]
    return weight[order]


def test_weights_by_mistrals_names_are_those_of_hugging_face(tmp_path: Path) -> None:
    directory = make("MistralForCausalLM")
    theirs = mistral_names(directory)
    # As Mistral Small 3.1 has them; of such a model the text model is served.
    theirs["vision_encoder.patch_conv.weight"] = torch.ones(2, 3, 4, 4)
    theirs["vision_language_adapter.w_in.weight"] = torch.ones(2, 2)
    theirs["patch_merger.merging_layer.weight"] = torch.ones(2, 8)
    theirs["pre_mm_projector_norm.weight"] = torch.ones(2)
    names = list(theirs)
    for number, part in enumerate((names[:5], names[5:])):
        file = tmp_path / f"consolidated-0000{number}-of-00002.safetensors"
        save_file({name: theirs[name] for name in part}, file)
    files = CheckpointFiles(tmp_path, read_config(directory))
    want = load_file(directory / "model.safetensors")
    for made in (MistralLoadFormat(), AutoLoadFormat()):
        made.check(files)
        ours = dict(made.iter_weights(files))
        assert set(ours) == set(want)
        for name, tensor in want.items():
            assert torch.equal(ours[name], tensor), name


def test_turned_rows_give_the_scores_of_neighbouring_pairs() -> None:
    """Rotating neighbours of q and k, as Mistral's code does with complex numbers, and rotating
    halves of the turned ones, as Hugging Face's does, give the same scores."""
    torch.manual_seed(0)
    dim, position, other = 8, 5, 11
    x, y = torch.randn(16, dtype=torch.float64), torch.randn(16, dtype=torch.float64)
    q, k = (torch.randn(dim, 16, dtype=torch.float64) for _ in "qk")
    angle = 10_000.0 ** (-torch.arange(0, dim, 2, dtype=torch.float64) / dim)

    def pairs(vector: Tensor, at: int) -> Tensor:
        turn = torch.polar(torch.ones_like(angle), angle * at)
        turned = torch.view_as_complex(vector.view(-1, 2)) * turn
        return torch.view_as_real(turned).flatten()

    def halves(vector: Tensor, at: int) -> Tensor:
        cos, sin = (angle * at).cos().repeat(2), (angle * at).sin().repeat(2)
        first, second = vector.chunk(2)
        return vector * cos + torch.cat([-second, first]) * sin

    save = {"layers.0.attention.wq.weight": q, "layers.0.attention.wk.weight": k}
    config = {"num_attention_heads": 1, "num_key_value_heads": 1}
    turned = load_mistral(save, config)
    ours = halves(turned["q"] @ x, position) @ halves(turned["k"] @ y, other)
    torch.testing.assert_close(ours, pairs(q @ x, position) @ pairs(k @ y, other))


def load_mistral(tensors: dict[str, Tensor], config: dict[str, Any]) -> dict[str, Tensor]:
    with tempfile.TemporaryDirectory() as name:
        save_file(tensors, Path(name) / "consolidated.safetensors")
        loaded = dict(MistralLoadFormat().iter_weights(CheckpointFiles(Path(name), config)))
    return {key.split("self_attn.")[1][0]: tensor for key, tensor in loaded.items()}


def test_a_name_that_mistral_does_not_have_is_refused(tmp_path: Path) -> None:
    save_file({"vision.weight": torch.ones(2)}, tmp_path / "consolidated.safetensors")
    with pytest.raises(CheckpointError, match=r"a tensor called vision\.weight"):
        list(MistralLoadFormat().iter_weights(CheckpointFiles(tmp_path, {})))
    with pytest.raises(CheckpointError, match="which are not 3 heads"):
        load_mistral({"layers.0.attention.wq.weight": torch.ones(8, 2)}, {"num_attention_heads": 3})


# --- sharded_state ---------------------------------------------------------------------


def merged(directory: Path) -> dict[str, Tensor]:
    """A checkpoint of Hugging Face as vLLM's model of it has it, the vocabulary filled up."""
    ours = load_file(directory / "model.safetensors")
    for name in [name for name in ours if "q_proj" in name]:
        parts = [ours.pop(name.replace("q_proj", f"{each}_proj")) for each in "qkv"]
        ours[name.replace("q_proj", "qkv_proj")] = torch.cat(parts)
    for name in [name for name in ours if "gate_proj" in name]:
        parts = [ours.pop(name), ours.pop(name.replace("gate_proj", "up_proj"))]
        ours[name.replace("gate_proj", "gate_up_proj")] = torch.cat(parts)
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        ours[name] = torch.cat([ours[name], torch.zeros(64, ours[name].shape[1])])
    return ours


def test_a_state_of_one_worker_is_cut_into_the_checkpoints_tensors(tmp_path: Path) -> None:
    directory = make("LlamaForCausalLM")
    want = load_file(directory / "model.safetensors")
    state = merged(directory)
    assert any("qkv_proj" in name for name in state)
    for part, name in enumerate(sorted(state)):
        save_file({name: state[name]}, tmp_path / f"model-rank-0-part-{part}.safetensors")
    wanted = {name: tuple(tensor.shape) for name, tensor in want.items()}
    files = CheckpointFiles(tmp_path, {}, wanted=wanted)
    made = ShardedStateLoadFormat()
    made.check(files)
    ours = dict(made.iter_weights(files))
    assert set(ours) == set(want)
    for name, tensor in want.items():
        assert torch.equal(ours[name], tensor), name


def test_a_state_of_several_workers_is_refused(tmp_path: Path) -> None:
    for rank in range(2):
        save_file({"a": torch.ones(1)}, tmp_path / f"model-rank-{rank}-part-0.safetensors")
    with pytest.raises(CheckpointError, match="saved by several workers"):
        ShardedStateLoadFormat().check(CheckpointFiles(tmp_path, {}))


def test_the_pattern_is_an_option(tmp_path: Path) -> None:
    save_file({"a": torch.ones(1)}, tmp_path / "p0-r0.safetensors")
    options = {"load_formats.sharded_state": {"pattern": "p{part}-r{rank}.safetensors"}}
    made: LoadFormat = Registry(options=options).make("load_formats", "sharded_state")
    files = CheckpointFiles(tmp_path, {}, wanted={"a": (1,)})
    assert list(dict(made.iter_weights(files))) == ["a"]
    bad = Registry(options={"load_formats.sharded_state": {"pattern": "x"}})
    with pytest.raises(ConfigError, match=r"it needs \{rank\} and \{part\}"):
        bad.make("load_formats", "sharded_state")


# --- several files at once -------------------------------------------------------------


@pytest.mark.parametrize("load_format", [SafetensorsLoadFormat, PtLoadFormat])
def test_reading_several_files_at_once_changes_nothing(
    load_format: Callable[[], LoadFormat], tmp_path: Path
) -> None:
    tensors = {f"t{number}": torch.full((number + 1,), float(number)) for number in range(7)}
    weight_map = {}
    for number, (name, tensor) in enumerate(tensors.items()):
        if load_format is SafetensorsLoadFormat:
            weight_map[name] = f"model-{number}.safetensors"
            save_file({name: tensor}, tmp_path / weight_map[name])
        else:
            weight_map[name] = f"pytorch_model-{number}.bin"
            torch.save({name: tensor}, tmp_path / weight_map[name])
    stem = "model.safetensors" if load_format is SafetensorsLoadFormat else "pytorch_model.bin"
    (tmp_path / f"{stem}.index.json").write_text(json.dumps({"weight_map": weight_map}))
    for at_once in (None, 1, 3, 20):
        files = CheckpointFiles(tmp_path, {}, max_parallel=at_once)
        ours = dict(load_format().iter_weights(files))
        assert list(ours) == list(tensors)
        assert all(torch.equal(ours[name], tensor) for name, tensor in tensors.items())
