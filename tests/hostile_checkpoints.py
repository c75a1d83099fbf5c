"""Model directories that mean harm: each kind of it, made from a tiny checkpoint that is right.

``KINDS`` names them. Whoever loads one must refuse it with one line, run no code of it, and need
little time and memory for that. Code in them would write the file ``MARKER`` beside the directory.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

MARKER = "code-was-run"
DEPTH = 100_000

Change = Callable[[Path], None]


def make_hostile(kind: str, good: Path, parent: Path) -> Path:
    """A directory of the kind, a changed copy of ``good`` in ``parent``."""
    directory = parent / kind
    shutil.copytree(good, directory)
    KINDS[kind](directory)
    return directory


def change_json(path: Path, **changes: Any) -> None:
    value = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(value | changes), encoding="utf-8")


def config(**changes: Any) -> Change:
    return lambda directory: change_json(directory / "config.json", **changes)


def text(name: str, content: str | bytes) -> Change:
    data = content.encode() if isinstance(content, str) else content
    return lambda directory: replace(directory / name, data)


def replace(path: Path, data: bytes) -> None:
    path.unlink(missing_ok=True)
    path.write_bytes(data)


def link(name: str, target: str) -> Change:
    def change(directory: Path) -> None:
        (directory / name).unlink()
        (directory / name).symlink_to(target)

    return change


def pipe(name: str) -> Change:
    def change(directory: Path) -> None:
        (directory / name).unlink()
        os.mkfifo(directory / name)

    return change


def header(value: object, data: bytes = b"") -> Change:
    """A safetensors file with this header."""
    written = value if isinstance(value, bytes) else json.dumps(value).encode()
    return text("model.safetensors", struct.pack("<Q", len(written)) + written + data)


def sparse(directory: Path) -> None:
    """A header that says it is nearly as long as it may be; the file takes no room on the disk."""
    path = directory / "model.safetensors"
    path.write_bytes(struct.pack("<Q", 99_000_000))
    os.truncate(path, 99_000_100)


class _Code:
    """What a pickle runs when it is loaded."""

    def __init__(self, marker: Path) -> None:
        self._marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self._marker,))


def pickled(directory: Path) -> None:
    """Weights as a pickle of before zip archives, with code."""
    (directory / "model.safetensors").unlink()
    code = pickle.dumps(_Code(directory.parent / MARKER), protocol=2)
    (directory / "pytorch_model.bin").write_bytes(code)


def zipped(directory: Path) -> None:
    """Weights as ``torch.save`` writes them, with code in the pickle."""
    (directory / "model.safetensors").unlink()
    with zipfile.ZipFile(directory / "pytorch_model.bin", "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(_Code(directory.parent / MARKER), 2))
        archive.writestr("archive/version", "3\n")


def bomb(directory: Path) -> None:
    """An archive whose pickle is a gigabyte once it is unpacked."""
    (directory / "model.safetensors").unlink()
    path = directory / "pytorch_model.bin"
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("archive/data.pkl", "w") as stream,
    ):
        block = bytes(1 << 24)
        for _ in range(64):
            stream.write(block)


def index(file: str) -> Change:
    def change(directory: Path) -> None:
        (directory / "model.safetensors").unlink()
        value = {"weight_map": {"model.embed_tokens.weight": file}}
        replace(directory / "model.safetensors.index.json", json.dumps(value).encode())

    return change


def deep_index(directory: Path) -> None:
    index("model.safetensors")(directory)
    replace(directory / "model.safetensors.index.json", deep("[", "]").encode())


def remote_code(directory: Path) -> None:
    """A model class of its own, which wants to be imported."""
    marker = directory.parent / MARKER
    code = f"open({str(marker)!r}, 'w')\nclass Model: pass\nclass Config: pass\n"
    replace(directory / "modeling_x.py", code.encode())
    auto_map = {"AutoConfig": "modeling_x.Config", "AutoModelForCausalLM": "modeling_x.Model"}
    change_json(
        directory / "config.json", model_type="x", architectures=["XForCausalLM"], auto_map=auto_map
    )


def deep(opening: str, closing: str) -> str:
    return opening * DEPTH + closing * DEPTH


_BIG = 10**15
KINDS: dict[str, Change] = {
    "config-links-to-itself": link("config.json", "config.json"),
    "config-is-endless": link("config.json", "/dev/zero"),
    "config-is-a-pipe": pipe("config.json"),
    "config-nests-deep": text("config.json", deep('{"a":', "}").replace(":}", ":1}", 1)),
    "config-has-no-numbers": text("config.json", '{"hidden_size": NaN, "vocab_size": Infinity}'),
    "config-has-a-long-number": text("config.json", '{"hidden_size": ' + "9" * 100_000 + "}"),
    "config-is-wide": config(hidden_size=_BIG, intermediate_size=_BIG),
    "config-has-many-layers": config(num_hidden_layers=_BIG),
    "config-has-a-vast-vocabulary": config(vocab_size=_BIG),
    "config-has-negative-heads": config(num_attention_heads=-4, num_key_value_heads=0),
    "config-has-other-types": config(hidden_size="64", rope_theta=[1]),
    "config-brings-code": remote_code,
    "weights-are-a-pipe": pipe("model.safetensors"),
    "weights-are-endless": link("model.safetensors", "/dev/zero"),
    "weights-have-a-vast-header": text("model.safetensors", b"\xff" * 8 + b"{}"),
    "weights-have-a-long-header": sparse,
    "weights-have-a-deep-header": header(deep('{"a":', "}").encode()),
    "weights-overlap": header(
        {
            "a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
            "b": {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]},
        },
        bytes(12),
    ),
    "weights-multiply-to-nothing": header(
        {"a": {"dtype": "F32", "shape": [1 << 62, 4, 0], "data_offsets": [0, 0]}}
    ),
    "weights-are-a-pickle-with-code": pickled,
    "weights-are-an-archive-with-code": zipped,
    "weights-are-a-bomb": bomb,
    "index-leads-out": index("../../../../etc/passwd"),
    "index-is-absolute": index("/etc/passwd"),
    "index-nests-deep": deep_index,
    "tokenizer-nests-deep": text("tokenizer.json", deep("[", "]")),
    "tokenizer-is-endless": link("tokenizer.json", "/dev/zero"),
    "tokenizer-config-nests-deep": text("tokenizer_config.json", deep("[", "]")),
    "tokenizer-config-links-to-itself": link("tokenizer_config.json", "tokenizer_config.json"),
    "template-nests-deep": text("chat_template.jinja", "{{ " + "(" * DEPTH + ")" * DEPTH + " }}"),
    "template-is-endless": link("tokenizer_config.json", "/dev/zero"),
    "generation-config-nests-deep": text("generation_config.json", deep("[", "]")),
    "generation-config-has-no-ids": text("generation_config.json", '{"eos_token_id": [1e999]}'),
}
