"""The bundled model, quantized: the tokens that its dequantized weights would choose."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tests.plugins.quantization.bitsandbytes_packers import BITSANDBYTES
from tests.plugins.quantization.checkpoints import quantized_copy
from tests.plugins.quantization.packers import CASES
from tests.plugins.quantization.test_methods import worker_plan
from tests.plugins.quantization.tool_packers import TOOLS
from tokenizers import Tokenizer

from jackfield.config.plan import WorkerPlan
from jackfield.contracts.sampling import TokenSampling
from jackfield.contracts.work import AdmittedRow, ScheduledBatch
from jackfield_bundled_models.jackfield_mini import JackfieldMini
from jackfield_workers.device import DeviceWorker

NUM_TOKENS = 16


def greedy(plan: WorkerPlan, prompt: list[int]) -> list[int]:
    worker = DeviceWorker()
    worker.start(plan)
    ids = np.array(prompt, dtype=np.int32)
    num_blocks = -(-(len(ids) + NUM_TOKENS) // plan.block_size)
    blocks = np.array([[0, i, i + 1] for i in range(num_blocks)], dtype=np.int32)
    output: list[int] = []
    for number in range(NUM_TOKENS):
        first = 0 if number == 0 else len(ids) + number - 1
        batch = ScheduledBatch(
            step=number,
            admitted=() if number else (AdmittedRow(0, ids, len(ids), TokenSampling()),),
            rows=np.array([0], dtype=np.int32),
            num_tokens=np.array([1 if number else len(ids)], dtype=np.int32),
            first_positions=np.array([first], dtype=np.int32),
            samples=np.array([True]),
            new_blocks=blocks[:0] if number else blocks,
        )
        output.append(int(worker.execute(batch).wait().token_ids[0]))
    worker.stop()
    return output


@pytest.mark.parametrize("case", ["mxfp4", "bitsandbytes-nf4", "hqq-4-axis-1"])
def test_the_bundled_model_writes_what_its_dequantized_weights_would(
    case: str, tmp_path: Path
) -> None:
    source = JackfieldMini().directory()
    config, pack = {**CASES, **BITSANDBYTES, **TOOLS}[case]
    directory, model = quantized_copy(
        tmp_path / "model", config, lambda weight: pack(weight.float()), source
    )
    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    prompt = tokenizer.encode("The capital of France is").ids
    with torch.inference_mode():
        whole = model.generate(
            torch.tensor([prompt]), max_new_tokens=NUM_TOKENS, do_sample=False, eos_token_id=None
        )
    assert greedy(worker_plan(directory), prompt) == whole[0, len(prompt) :].tolist()
