"""How well a checkpoint predicts a text, as this engine serves it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from jackfield.contracts.sampling import SamplingParams
from jackfield.llm import LLM


def perplexity(directory: Path, windows: Sequence[Sequence[int]], device: str) -> float:
    """exp of the mean negative log-probability of every token but the first of each window."""
    longest = max(len(window) for window in windows)
    options = ["--max-model-len", str(longest + 1), "--device", device]
    params = SamplingParams(max_tokens=1, temperature=0, prompt_logprobs=0)
    total, count = 0.0, 0
    with LLM.from_arguments([str(directory), *options, "--no-enable-prefix-caching"]) as llm:
        for output in llm.generate([list(window) for window in windows], params, use_tqdm=False):
            total += sum(entry.logprob for entry in output.prompt_logprobs)
            count += len(output.prompt_logprobs)
    return math.exp(-total / count)
