"""``jackfield serve FILE.gguf`` with nothing beside the file, over real HTTP."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import openai
import torch
from tests.checkpoints import make, reference
from tests.gguf_files import convert, write
from tests.serving import free_port, serving
from transformers import AutoTokenizer


def serve(path: Path) -> list[str]:
    words = [sys.executable, "-m", "jackfield", "serve", str(path)]
    return [*words, "--num-threads", "1", "--cpu-kv-cache-gib", "0.1"]


def test_a_file_is_all_that_serving_needs(tmp_path: Path) -> None:
    source = make("LlamaForCausalLM")
    metadata, tensors, _ = convert(source, lambda name: "F32")
    path = tmp_path / "model.gguf"
    write(path, metadata, tensors)
    with (
        serving(serve(path), tmp_path / "log") as url,
        openai.OpenAI(base_url=f"{url}/v1", api_key="-") as client,
    ):
        answer = client.chat.completions.create(
            model=str(path),
            messages=[{"role": "user", "content": "hello"}],
            temperature=0,
            max_tokens=12,
        )
    tokenizer = AutoTokenizer.from_pretrained(source)
    ids = tokenizer.apply_chat_template(
        [{"role": "user", "content": "hello"}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=False,
    )
    with torch.inference_mode():
        expected = reference(source).generate(ids, do_sample=False, max_new_tokens=12)
    text = tokenizer.decode(expected[0, ids.shape[1] :], skip_special_tokens=True)
    assert answer.choices[0].message.content == text


def test_a_truncated_file_is_one_line_and_exit_status_2(tmp_path: Path) -> None:
    metadata, tensors, _ = convert(make("Qwen3ForCausalLM"), lambda name: "Q8_0")
    path = tmp_path / "model.gguf"
    write(path, metadata, tensors)
    path.write_bytes(path.read_bytes()[:-5000])
    command = [*serve(path), "--port", str(free_port())]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    lines = done.stderr.strip().splitlines()
    assert done.returncode == 2
    assert len(lines) == 1 and str(path) in lines[0] and "is truncated: tensor blk." in lines[0]
