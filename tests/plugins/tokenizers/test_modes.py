"""The oracle is transformers' own loading of the same directory."""

from __future__ import annotations

import json
import logging
import random
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import AutoTokenizer

from jackfield.contracts.text import Tokenizer as TokenizerContract
from jackfield.errors import CheckpointError
from jackfield_tokenizers.auto import AutoTokenizerMode
from jackfield_tokenizers.fast import LONG_CHARACTERS, FastTokenizer
from jackfield_tokenizers.slow import SlowTokenizerMode

TEXTS = [
    "Hello world",
    " \u4f60\u597d",
    "a\nb\t<|im_end|> c",
    "\U0001f680!",
    "",
    "<think>x</think>",
]


def write(folder: Path, name: str, value: object) -> None:
    (folder / name).write_text(value if isinstance(value, str) else json.dumps(value))


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A byte-level BPE with a beginning-of-sequence token, whose tokenizer.json stores a
    truncation and lacks two of the tokens that tokenizer_config.json names."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: index for index, token in enumerate(alphabet)} | {"<s>": 256, "<|im_end|>": 257}
    backend = Tokenizer(models.BPE(vocab, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(["<s>", "<|im_end|>"])
    backend.post_processor = processors.TemplateProcessing("<s> $A", None, [("<s>", 256)])
    backend.enable_truncation(3)
    backend.enable_padding(length=5)
    backend.save(str(tmp_path / "tokenizer.json"))
    think = {"content": "<think>", "special": False, "normalized": False, "lstrip": False,
             "rstrip": False, "single_word": False}  # fmt: skip
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": {"__type": "AddedToken", "content": "<|im_end|>", "lstrip": False},
        "pad_token": "<pad>",
        "unk_token": None,
        "added_tokens_decoder": {"258": think},
        "chat_template": "{{ bos_token }}{{ messages[0].content }}",
    }
    write(tmp_path, "tokenizer_config.json", config)
    write(tmp_path, "config.json", {"model_type": "llama"})
    return tmp_path


def load(directory: Path) -> TokenizerContract:
    return AutoTokenizerMode().load(str(directory))


def test_ids_and_text_are_those_of_transformers(directory: Path) -> None:
    ours, theirs = load(directory), AutoTokenizer.from_pretrained(directory)
    rng = random.Random(1)
    for special in (True, False):
        for text in TEXTS:
            assert ours.encode(text, add_special_tokens=special) == theirs.encode(
                text, add_special_tokens=special
            )
        for _ in range(50):
            ids = [rng.randrange(len(theirs)) for _ in range(rng.randint(0, 20))]
            assert ours.decode(ids, skip_special_tokens=special) == theirs.decode(
                ids, skip_special_tokens=special
            )
    assert ours.vocab_size == len(theirs) == 260
    assert ours.eos_token_id == theirs.eos_token_id == 257
    assert ours.special_tokens == theirs.special_tokens_map
    assert ours.special_ids == {256, 257, theirs.convert_tokens_to_ids("<pad>")}
    assert ours.chat_template == theirs.chat_template


@pytest.mark.parametrize(
    "extra",
    [
        {"additional_special_tokens": ["<|im_end|>", "<tool>"]},
        {"extra_special_tokens": ["<tool>"]},
        {"extra_special_tokens": {"tool": "<tool>"}},
    ],
)
@pytest.mark.parametrize("name", ["tokenizer_config.json", "special_tokens_map.json"])
def test_special_tokens_without_a_name_of_their_own_are_added_too(
    directory: Path, name: str, extra: dict[str, object]
) -> None:
    config = json.loads((directory / "tokenizer_config.json").read_text())
    del config["added_tokens_decoder"]
    write(directory, "tokenizer_config.json", config)
    old = json.loads((directory / name).read_text()) if (directory / name).exists() else {}
    write(directory, name, old | extra)
    ours, theirs = load(directory), AutoTokenizer.from_pretrained(directory)
    text = "a <tool>b</tool>"
    assert ours.encode(text) == theirs.encode(text)
    assert theirs.convert_tokens_to_ids("<tool>") in ours.special_ids
    assert ours.special_tokens == theirs.special_tokens_map


def test_long_texts_are_encoded_as_short_ones_are(directory: Path) -> None:
    ours, theirs = load(directory), AutoTokenizer.from_pretrained(directory)
    for text in filter(None, TEXTS):
        long = text * (1 + 2 * LONG_CHARACTERS // len(text))
        for special in (True, False):
            assert ours.encode(long, add_special_tokens=special) == theirs.encode(
                long, add_special_tokens=special
            )
        assert isinstance(ours, FastTokenizer)
        assert ours.encode_pair(long, text) == theirs.encode(long, text)


def test_others_go_on_while_a_long_text_is_encoded(directory: Path) -> None:
    tokenizer, is_over = load(directory), threading.Event()
    num_looks = 0

    def look() -> None:
        nonlocal num_looks
        while not is_over.wait(0.001):
            num_looks += 1

    looking = threading.Thread(target=look)
    looking.start()
    meanwhile = []
    for _ in range(3):
        before = num_looks
        tokenizer.encode("the quick brown fox " * 50_000)
        meanwhile.append(num_looks - before)
    is_over.set()
    looking.join()
    # With the interpreter held nobody looks, but for once before and once after.
    assert max(meanwhile) > 5


def test_unknown_ids_have_no_text(directory: Path) -> None:
    tokenizer = load(directory)
    assert tokenizer.token_text(10**6) == "" and tokenizer.decode([10**6]) == ""
    assert tokenizer.token_text(257) == "<|im_end|>"


def test_what_a_sentencepiece_model_needs_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "config.json", {"model_type": "llama"})
    (tmp_path / "tokenizer.model").write_bytes(b"\x0a\x05")
    monkeypatch.setattr("transformers.utils.is_sentencepiece_available", lambda: False)
    with pytest.raises(CheckpointError, match="needs the packages sentencepiece and protobuf"):
        load(tmp_path)


def test_slow_mode_says_the_same(directory: Path) -> None:
    ours, slow = load(directory), SlowTokenizerMode().load(str(directory))
    for text in TEXTS:
        ids = slow.encode(text)
        assert ids == ours.encode(text)
        assert slow.decode(ids, skip_special_tokens=True) == ours.decode(
            ids, skip_special_tokens=True
        )
    for name in ("vocab_size", "special_ids", "eos_token_id", "special_tokens", "chat_template"):
        assert getattr(slow, name) == getattr(ours, name)
    for id in range(ours.vocab_size + 1):
        assert slow.token_text(id) == ours.token_text(id)
        assert slow.token_bytes(id) == ours.token_bytes(id)


def test_bytes_of_tokens_join_to_the_bytes_of_the_text(directory: Path) -> None:
    tokenizer = load(directory)
    for text in TEXTS:
        ids = tokenizer.encode(text, add_special_tokens=False)
        assert b"".join(tokenizer.token_bytes(id) or b"" for id in ids) == text.encode()


SPACE = decoders.Replace("\u2581", " ")


@pytest.mark.parametrize(
    ("steps", "token", "expected"),
    [
        ([decoders.ByteLevel()], "\u0120a", b" a"),
        ([decoders.ByteLevel()], "\u00e2\u0124", b"\xe2\x82"),
        ([decoders.ByteLevel()], "<\uff5cx\uff5c>", "<\uff5cx\uff5c>".encode()),
        ([decoders.Metaspace()], "\u2581a", b" a"),
        ([SPACE, decoders.ByteFallback(), decoders.Fuse()], "<0xE2>", b"\xe2"),
        ([SPACE, decoders.Fuse(), decoders.Strip(" ", 1, 0)], "\u2581a\u2581", b" a "),
        ([SPACE, decoders.Fuse()], "<0xE2>", b"<0xE2>"),
        ([decoders.WordPiece()], "##a", None),
        ([decoders.Replace("_", " "), decoders.Fuse()], "_a", None),
        ([SPACE, decoders.Strip(" ", 2, 0)], "a", None),
        ([], "a", None),
    ],
)
def test_bytes_follow_the_decoder(
    tmp_path: Path, steps: list[Any], token: str, expected: bytes | None
) -> None:
    backend = Tokenizer(models.WordLevel({token: 0, "x": 1}, unk_token="x"))
    if steps:
        backend.decoder = steps[0] if len(steps) == 1 else decoders.Sequence(steps)
    backend.save(str(tmp_path / "tokenizer.json"))
    tokenizer = load(tmp_path)
    assert tokenizer.token_bytes(0) == expected
    if expected is not None:  # and so does the library, in the middle of a text
        whole = tokenizer.decode([1, 0, 1])
        assert whole == "x" + expected.decode("utf-8", "replace") + "x" or whole.count("\ufffd")


def test_template_files_win_over_the_configuration(directory: Path) -> None:
    write(directory, "chat_template.json", {"chat_template": "from chat_template.json"})
    assert load(directory).chat_template == "{{ bos_token }}{{ messages[0].content }}"
    config = json.loads((directory / "tokenizer_config.json").read_text())
    config["chat_template"] = [
        {"name": "default", "template": "a"},
        {"name": "rag", "template": "b"},
    ]
    write(directory, "tokenizer_config.json", config)
    assert load(directory).chat_template == {"default": "a", "rag": "b"}
    write(directory, "chat_template.jinja", "from the file")
    assert load(directory).chat_template == "from the file"
    folder = directory / "additional_chat_templates"
    folder.mkdir()
    write(folder, "tool_use.jinja", "tools")
    expected = {"default": "from the file", "tool_use": "tools"}
    assert load(directory).chat_template == expected
    assert AutoTokenizer.from_pretrained(directory).chat_template == expected
    folder = folder.rename(directory / "chat_templates")
    assert load(directory).chat_template == expected
    del config["chat_template"]
    write(directory, "tokenizer_config.json", config)
    (directory / "chat_template.jinja").unlink()
    (folder / "tool_use.jinja").unlink()
    assert load(directory).chat_template == "from chat_template.json"


def test_older_special_tokens_map_is_read(directory: Path) -> None:
    write(
        directory, "special_tokens_map.json", {"eos_token": {"content": "<s>"}, "sep_token": "<s>"}
    )
    config = json.loads((directory / "tokenizer_config.json").read_text())
    del config["added_tokens_decoder"]
    write(directory, "tokenizer_config.json", config)
    theirs = AutoTokenizer.from_pretrained(directory)
    assert load(directory).eos_token_id == theirs.eos_token_id == 256
    assert load(directory).special_tokens == theirs.special_tokens_map


def test_directory_without_tokenizer_json_goes_to_transformers(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path, "config.json", {"model_type": "gpt2"})
    vocab = {
        token: index for index, token in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))
    }
    write(tmp_path, "vocab.json", vocab | {"<|endoftext|>": 256})
    write(tmp_path, "merges.txt", "#version: 0.2\n")
    write(tmp_path, "tokenizer_config.json", {"tokenizer_class": "GPT2Tokenizer"})
    with caplog.at_level(logging.WARNING):
        tokenizer = load(tmp_path)
    assert "no tokenizer.json" in caplog.text
    assert tokenizer.decode(tokenizer.encode("Hi \u4f60")) == "Hi \u4f60"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("tokenizer.json", "{"),
        ("tokenizer_config.json", "{"),
        ("tokenizer_config.json", "[]"),
        ("tokenizer_config.json", '{"added_tokens_decoder": {"x": {}}}'),
        ("tokenizer_config.json", '{"chat_template": 7}'),
        ("special_tokens_map.json", "nope"),
    ],
)
def test_damaged_files_are_named(directory: Path, name: str, text: str) -> None:
    write(directory, name, text)
    with pytest.raises(CheckpointError, match=name.split(".")[0]):
        load(directory)


def test_missing_directory_and_missing_files_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="does not exist"):
        load(tmp_path / "nowhere")
    with pytest.raises(CheckpointError) as caught:
        SlowTokenizerMode().load(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_auto_mode_imports_neither_torch_nor_transformers(directory: Path) -> None:
    code = (
        "import sys; from jackfield_tokenizers.auto import AutoTokenizerMode; "
        f"AutoTokenizerMode().load({str(directory)!r}).encode('a'); "
        "print([name for name in ('torch', 'transformers') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize("mode", [AutoTokenizerMode, SlowTokenizerMode])
def test_threads_may_share_a_tokenizer(directory: Path, mode: Any) -> None:
    tokenizer: TokenizerContract = mode().load(str(directory))
    expected = {text: tokenizer.encode(text) for text in TEXTS}
    errors: list[object] = []

    def work() -> None:
        try:
            for _ in range(100):
                for text, ids in expected.items():
                    assert tokenizer.encode(text) == ids
                    tokenizer.decode(ids, skip_special_tokens=True)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
