"""How long a model takes to build and fill on this machine's device.

    python bench/load_weights.py DIRECTORY [--load-format auto|dummy] [--device cpu|cuda]

DIRECTORY needs only ``config.json`` with ``--load-format dummy``. Prints seconds and memory.
"""

from __future__ import annotations

import argparse
import resource
import time
from pathlib import Path

import torch

from jackfield.checkpoint import architectures, read_config
from jackfield.compute.attention.cpu import CpuAttention
from jackfield.compute.weights import read_weights
from jackfield.contracts.loading import CheckpointFiles, LoadFormat
from jackfield.contracts.model import BuildContext, TensorParallelGroup
from jackfield_load_formats.auto import AutoLoadFormat
from jackfield_load_formats.dummy import DummyLoadFormat
from jackfield_models.llama import LlamaForCausalLM
from jackfield_models.mistral import MistralForCausalLM
from jackfield_models.qwen2 import Qwen2ForCausalLM
from jackfield_models.qwen3 import Qwen3ForCausalLM

MODELS = {
    c.__name__: c
    for c in (LlamaForCausalLM, MistralForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM)
}
FORMATS: dict[str, type[LoadFormat]] = {"auto": AutoLoadFormat, "dummy": DummyLoadFormat}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--load-format", choices=FORMATS, default="auto")
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    device, dtype = torch.device(arguments.device), torch.bfloat16
    torch.empty(1, device=device)
    config = read_config(arguments.directory)
    context = BuildContext(
        dtype=dtype,
        device=device,
        group=TensorParallelGroup(),
        attention_backend=CpuAttention(device, dtype, 16),
        max_model_len=4096,
        max_num_batched_tokens=2048,
    )
    start = time.perf_counter()
    with torch.inference_mode():
        model = MODELS[architectures(config)[0]](config, context)
        built = time.perf_counter()
        files = CheckpointFiles(arguments.directory, config)
        read_weights(model, FORMATS[arguments.load_format](), files, dtype=dtype, device=device)
        if device.type == "cuda":
            torch.cuda.synchronize()
    loaded = time.perf_counter()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    print(f"built in {built - start:.2f} s, filled in {loaded - built:.2f} s, peak RSS {peak} MiB")
    if device.type == "cuda":
        print(f"device memory: {torch.cuda.max_memory_allocated() >> 20} MiB at most")


if __name__ == "__main__":
    main()
