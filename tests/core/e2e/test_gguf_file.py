"""``jackfield serve FILE.gguf`` with nothing beside the file, over real HTTP."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import openai
import torch
from tests.checkpoints import make, reference
from tests.core.e2e.test_bundled_model import wait_until_ready
from tests.gguf_files import convert, write
from transformers import AutoTokenizer


def serve(path: Path, port: int = 0) -> list[str]:
    words = [sys.executable, "-m", "jackfield", "serve", str(path), "--host", "127.0.0.1"]
    return [*words, "--port", str(port), "--num-threads", "1", "--cpu-kv-cache-gib", "0.1"]


def test_a_file_is_all_that_serving_needs(tmp_path: Path) -> None:
    source = make("LlamaForCausalLM")
    metadata, tensors, _ = convert(source, lambda name: "F32")
    path = tmp_path / "model.gguf"
    write(path, metadata, tensors)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    server = subprocess.Popen(serve(path, port), stderr=subprocess.DEVNULL)
    try:
        wait_until_ready(f"http://127.0.0.1:{port}", server)
        with openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="-") as client:
            answer = client.chat.completions.create(
                model=str(path),
                messages=[{"role": "user", "content": "hello"}],
                temperature=0,
                max_tokens=12,
            )
    finally:
        server.terminate()
        assert server.wait(timeout=60) == 0
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
    done = subprocess.run(serve(path), capture_output=True, text=True, timeout=60, check=False)
    lines = done.stderr.strip().splitlines()
    assert done.returncode == 2
    assert len(lines) == 1 and str(path) in lines[0] and "is truncated: tensor blk." in lines[0]
