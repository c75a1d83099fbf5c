"""``jackfield bench throughput``: many prompts at once, tokens a second."""

from __future__ import annotations

import argparse
import random
import time

from jackfield.cli.bench.prompts import random_prompts
from jackfield.cli.bench.statistics import report
from jackfield.config.line_parser import LineParser, positive
from jackfield.contracts.sampling import SamplingParams
from jackfield.llm import LLM


def main(argv: list[str]) -> int:
    """Takes its own options and those of ``jackfield serve``."""
    args, rest = _parser().parse_known_args(argv)
    with LLM.from_arguments(rest) as llm:
        values = measure(
            llm,
            args.num_prompts,
            (args.min_input_len or args.input_len, args.input_len),
            (args.min_output_len or args.output_len, args.output_len),
            args.temperature,
            args.seed,
        )
    report("Throughput", values, args.result_filename)
    return 0


def measure(
    llm: LLM,
    count: int,
    inputs: tuple[int, int],
    outputs: tuple[int, int],
    temperature: float,
    seed: int,
) -> dict[str, object]:
    """Runs ``count`` prompts at once, lengths uniform in ``inputs`` and ``outputs``."""
    rng = random.Random(seed)
    prompts = random_prompts(count, *inputs, seed)
    params = [
        SamplingParams(max_tokens=rng.randint(*outputs), ignore_eos=True, temperature=temperature)
        for _ in prompts
    ]
    llm.generate(random_prompts(1, *inputs, seed + 1), SamplingParams(max_tokens=2), use_tqdm=False)
    begin = time.perf_counter()
    results = llm.generate(prompts, params, use_tqdm=False)
    seconds = time.perf_counter() - begin
    read = sum(len(result.prompt_token_ids) for result in results)
    written = sum(len(result.outputs[0].token_ids) for result in results)
    return {
        "num_prompts": count,
        "elapsed_time": seconds,
        "requests_per_second": count / seconds,
        "total_tokens_per_second": (read + written) / seconds,
        "output_tokens_per_second": written / seconds,
    }


def _parser() -> argparse.ArgumentParser:
    parser = LineParser(
        prog="jackfield bench throughput",
        description="Many prompts at once. Other options are those of `jackfield serve`.",
    )
    add = parser.add_argument
    add("--num-prompts", type=positive, default=256)
    add("--input-len", type=positive, default=512, help="longest input")
    add("--output-len", type=positive, default=128, help="longest output")
    add("--min-input-len", type=positive, help="shortest input (default: the longest)")
    add("--min-output-len", type=positive, help="shortest output (default: the longest)")
    add("--temperature", type=float, default=0.6)
    add("--seed", type=int, default=0)
    add("--result-filename", help="write the values as JSON")
    return parser
