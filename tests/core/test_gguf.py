"""GGUF headers: what is damaged, cut off or unknown is refused in a line that names it."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from tests.gguf_blocks import pack
from tests.gguf_files import Stored, write, write_split

from jackfield.checkpoint import (
    gguf_file,
    read_chat_template,
    read_generation_config,
    read_gguf,
    with_quantization,
)
from jackfield.errors import CheckpointError

ROWS = np.linspace(-1, 1, 4 * 64, dtype=np.float32).reshape(4, 64)
METADATA: Mapping[str, object] = {"general.architecture": "llama", "llama.block_count": 1}


def stored(kind: str = "F32") -> Stored:
    return Stored(kind, ROWS.shape, pack(kind, ROWS)[0])


TENSORS = {
    "token_embd.weight": stored("Q8_0"),
    "output_norm.weight": Stored("F32", (64,), pack("F32", ROWS)[0][0]),
    "blk.0.attn_q.weight": stored("Q4_0"),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write(tmp_path / "model.gguf", METADATA, TENSORS)
    return tmp_path / "model.gguf"


def refused(path: Path) -> str:
    with pytest.raises(CheckpointError) as error:
        read_gguf(path)
    assert "\n" not in str(error.value) and path.name in str(error.value)
    return str(error.value)


def test_tensors_are_where_the_file_has_them(path: Path) -> None:
    gguf = read_gguf(path)
    assert list(gguf.tensors) == list(TENSORS)
    for name, tensor in gguf.tensors.items():
        assert tensor.shape == TENSORS[name].shape
        data = path.read_bytes()[tensor.begin : tensor.end]
        assert data == TENSORS[name].data.tobytes()


def test_values_are_read_by_their_types(tmp_path: Path) -> None:
    own: dict[str, object] = {
        "a": 0.6,
        "b": True,
        "c": "text",
        "d": ["x", "", "\u00e9"],
        "e": [1, -2],
        "f": [0.5, 1e-6],
        "g": [3, 3, 3],
    }
    write(tmp_path / "model.gguf", {**METADATA, **own}, TENSORS)
    gguf = read_gguf(tmp_path / "model.gguf")
    assert gguf.number("a") == 0.6 and gguf.flag("b", False) and gguf.text("c") == "text"
    assert gguf.texts("d") == own["d"] and gguf.numbers("e") == (1, -2)
    assert gguf.numbers("f") == pytest.approx((0.5, 1e-6))
    assert gguf.integer("g") == 3
    assert gguf.integer("missing", 7) == 7 and gguf.texts("missing") == []
    for call, said in (
        (lambda: gguf.integer("c"), "c is 'text'; it must be a whole number"),
        (lambda: gguf.text("d"), "d is a list; it must be a string"),
        (lambda: gguf.text("missing"), "has no missing"),
        (lambda: gguf.integer("e"), "e differs between layers"),
    ):
        with pytest.raises(CheckpointError, match=said):
            call()


@pytest.mark.parametrize("share", [0.0, 0.001, 0.05, 0.3])
def test_a_file_that_ends_in_its_header_is_truncated(path: Path, share: float) -> None:
    data = path.read_bytes()
    header = read_gguf(path).tensors["token_embd.weight"].begin
    cut = int(header * share)
    path.write_bytes(data[:cut])
    said = refused(path)
    assert "is truncated: it ends in its header" in said or "is no GGUF file" in said


def test_a_file_that_ends_in_its_data_names_the_tensor(path: Path) -> None:
    end = read_gguf(path).tensors["output_norm.weight"].end
    path.write_bytes(path.read_bytes()[: end - 1])
    assert "is truncated: tensor output_norm.weight ends at byte" in refused(path)


@pytest.mark.parametrize("place", range(4, 240, 7))
def test_no_damaged_byte_does_more_than_a_line(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 0xFF
    path.write_bytes(data)
    try:
        read_gguf(path)
    except CheckpointError as error:
        assert "\n" not in str(error) and len(str(error)) < 600


def test_other_byte_orders_and_versions_are_named(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:4] + struct.pack(">I", 3) + data[8:])
    assert "big-endian" in refused(path)
    path.write_bytes(data[:4] + struct.pack("<I", 1) + data[8:])
    assert "its version is 1" in refused(path)


@pytest.mark.parametrize(("number", "name"), [(16, "IQ2_XXS"), (29, "IQ1_M"), (34, "TQ1_0")])
def test_types_that_cannot_be_loaded_are_refused_by_name(
    path: Path, number: int, name: str
) -> None:
    data = path.read_bytes()
    where = data.index(b"blk.0.attn_q.weight") + len("blk.0.attn_q.weight") + 4 + 16
    path.write_bytes(data[:where] + struct.pack("<I", number) + data[where + 4 :])
    assert f"tensor blk.0.attn_q.weight has the type {name}" in refused(path)


def test_a_length_beyond_all_addresses_is_a_truncated_file(path: Path) -> None:
    write(path, {**METADATA, "words": ["one", "two"]}, TENSORS)
    data = path.read_bytes()
    where = data.index(struct.pack("<Q", 3) + b"one")
    path.write_bytes(data[:where] + struct.pack("<Q", 2**64 - 1) + data[where + 8 :])
    assert "is truncated: it ends in its header" in refused(path)


def test_a_tensor_without_numbers_is_damaged(path: Path) -> None:
    """It could claim any number of experts: each becomes a name."""
    data = path.read_bytes()
    where = data.index(b"blk.0.attn_q.weight") + len("blk.0.attn_q.weight") + 4 + 8
    path.write_bytes(data[:where] + struct.pack("<Q", 0) + data[where + 8 :])
    assert "tensor blk.0.attn_q.weight of shape [0, 64]" in refused(path)


def test_parts_are_one_model(tmp_path: Path) -> None:
    first = write_split(tmp_path, METADATA, TENSORS, 3)
    assert gguf_file(tmp_path) == first
    assert gguf_file(tmp_path / "model-00002-of-00003.gguf") == first
    assert set(read_gguf(first).tensors) == set(TENSORS)
    (tmp_path / "model-00003-of-00003.gguf").unlink()
    first.touch()
    assert "part 3 of 3" in _message(first)


def _message(first: Path) -> str:
    with pytest.raises(CheckpointError) as error:
        read_gguf(first)
    return str(error.value)


def test_several_models_in_a_directory_are_a_question(path: Path) -> None:
    write(path.with_name("mmproj-model.gguf"), METADATA, TENSORS)
    assert gguf_file(path.parent) == path
    write(path.with_name("other.gguf"), METADATA, TENSORS)
    with pytest.raises(CheckpointError, match=r"several GGUF models \(model.gguf, other.gguf\)"):
        gguf_file(path.parent)


def test_templates_and_sampling_defaults_are_in_the_metadata(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    own: dict[str, object] = {
        "tokenizer.chat_template": "{{ 1 }}",
        "general.sampling.temp": 0.6,
        "general.sampling.top_k": 20,
    }
    write(path, {**METADATA, **own}, TENSORS)
    assert read_chat_template(path, {}) == "{{ 1 }}"
    assert read_generation_config(path) == {"temperature": 0.6, "top_k": 20}
    named: dict[str, object] = {
        "tokenizer.chat_templates": ["tool_use"],
        "tokenizer.chat_template.tool_use": "{{ 2 }}",
    }
    write(path, {**METADATA, **own, **named, "longer": 1}, TENSORS)
    assert read_chat_template(path, {}) == {"default": "{{ 1 }}", "tool_use": "{{ 2 }}"}


def test_the_configuration_gets_the_type_of_each_layer(path: Path) -> None:
    said = with_quantization({}, path)["quantization_config"]
    assert said == {
        "quant_method": "gguf",
        "tensor_types": {
            "model.embed_tokens": "Q8_0",
            "model.layers.0.self_attn.q_proj": "Q4_0",
        },
    }


def test_a_tensor_of_another_model_is_named(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    write(path, METADATA, {**TENSORS, "blk.0.ssm_a.weight": stored("Q8_0")})
    with pytest.raises(CheckpointError, match=r"tensor blk\.0\.ssm_a\.weight belongs to no model"):
        with_quantization({}, path)
