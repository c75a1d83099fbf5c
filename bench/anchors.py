"""The offline rows of the anchor table, for one model, in one engine: JSON lines and a table.

    python bench/anchors.py DIR [--rows ttft,decode,mix] [--out FILE] [options of jackfield serve]

TTFT at batch 1 for prompts of 128 to 32,000 tokens; milliseconds per decode step at batch 1 to
256 (input 128, 256 steps, greedy); mix256: 256 prompts, input and output uniform in 100..1024,
temperature 0.6.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator

from jackfield.cli.bench.latency import measure as measure_latency
from jackfield.cli.bench.throughput import measure as measure_throughput
from jackfield.llm import LLM

TTFT_LENGTHS = (128, 1024, 8192, 32000)
DECODE_BATCHES = (1, 8, 32, 128, 256)


def rows(llm: LLM, wanted: set[str], max_batch: int) -> Iterator[dict[str, object]]:
    """One dictionary a row, in order of the table."""
    if "ttft" in wanted:
        for length in TTFT_LENGTHS:
            if length < llm.max_model_len:
                values = measure_latency(llm, 1, length, 1, 5)
                yield {"row": f"ttft_{length}", "ms": values["median_first_token_ms"]}
    if "decode" in wanted:
        for batch in DECODE_BATCHES:
            if batch <= max_batch:
                values = measure_latency(llm, batch, 128, 257, 2)
                yield {"row": f"decode_b{batch}", "ms": values["decode_step_ms"]}
    if "mix" in wanted:
        values = measure_throughput(llm, 256, (100, 1024), (100, 1024), 0.6, 0)
        yield {"row": "mix256", "tok_per_s": values["output_tokens_per_second"]}


def main() -> int:
    """Prints each row as it is measured."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--rows", default="ttft,decode,mix")
    parser.add_argument("--max-batch", type=int, default=256)
    parser.add_argument("--out")
    args, rest = parser.parse_known_args()
    begin = time.perf_counter()
    out = open(args.out, "a", encoding="utf-8") if args.out else sys.stderr
    with LLM.from_arguments(rest) as llm:
        found: list[dict[str, object]] = [{"row": "start", "s": time.perf_counter() - begin}]
        print(json.dumps(found[0]), flush=True)
        for row in rows(llm, set(args.rows.split(",")), args.max_batch):
            found.append(row)
            print(json.dumps(row), flush=True)
    for row in found:
        print(json.dumps({"model": rest[0] if rest else None, **row}), file=out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
