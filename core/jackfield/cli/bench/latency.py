"""``jackfield bench latency``: one batch from start to end, and the time of its decode steps.

The same batch is run with one output token and with all of them: the first is the time to the
first token, the difference of the shortest of both over the number of further tokens is one decode
step. (How prompts fall into steps differs from run to run, and a shape of step that is met for the
first time may have to be captured.)
"""

from __future__ import annotations

import argparse
import time

from jackfield.cli.bench.prompts import random_prompts
from jackfield.cli.bench.statistics import report, spread
from jackfield.config.line_parser import LineParser, positive
from jackfield.contracts.sampling import SamplingParams
from jackfield.llm import LLM


def main(argv: list[str]) -> int:
    """Takes its own options and those of ``jackfield serve``."""
    args, rest = _parser().parse_known_args(argv)
    with LLM.from_arguments(rest) as llm:
        values = measure(
            llm, args.batch_size, args.input_len, args.output_len, args.num_iters, args.temperature
        )
    report("Latency", values, args.result_filename)
    return 0


def measure(
    llm: LLM, batch: int, input_len: int, output_len: int, iterations: int, temperature: float = 0.0
) -> dict[str, object]:
    """Medians over ``iterations`` runs (twice as many to the first token) after one warm-up;
    prompts are fresh in each run."""
    first, whole = [], []
    for seed in range(0, 3 * (iterations + 1), 3):
        first += [_timed(llm, batch, input_len, 1, seed + i, temperature) for i in range(2)]
        whole.append(_timed(llm, batch, input_len, output_len, seed + 2, temperature))
    first, whole = first[2:], whole[1:]
    values: dict[str, object] = {
        "batch_size": batch,
        "input_len": input_len,
        "output_len": output_len,
        **spread("first_token", first, [90]),
        **spread("latency", whole, [90]),
    }
    if output_len > 1:
        values["decode_step_ms"] = (min(whole) - min(first)) / (output_len - 1) * 1e3
    return values


def _timed(
    llm: LLM, batch: int, input_len: int, output_len: int, seed: int, temperature: float
) -> float:
    prompts = random_prompts(batch, input_len, input_len, seed)
    params = SamplingParams(max_tokens=output_len, ignore_eos=True, temperature=temperature)
    begin = time.perf_counter()
    llm.generate(prompts, params, use_tqdm=False)
    return time.perf_counter() - begin


def _parser() -> argparse.ArgumentParser:
    parser = LineParser(
        prog="jackfield bench latency",
        description="One batch, start to end. Other options are those of `jackfield serve`.",
    )
    add = parser.add_argument
    add("--batch-size", type=positive, default=8)
    add("--input-len", type=positive, default=32)
    add("--output-len", type=positive, default=128)
    add("--num-iters", type=positive, default=3)
    add("--temperature", type=float, default=0.0)
    add("--result-filename", help="write the values as JSON")
    return parser
