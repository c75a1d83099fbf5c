"""Decode steps and a long prompt for each way of quantizing a model, one engine after the other.

    python bench/quantized_rows.py DIR [--ways bfloat16,fp8,...] [options of jackfield serve]

What ``jackfield bench latency`` measures, a JSON line a way: milliseconds a decode step by batch
(input 128, 96 steps after the first token) and to the first token of a prompt. Nothing is in the
prefix cache.
"""

from __future__ import annotations

import argparse
import json
import sys

from jackfield.cli.bench.latency import measure
from jackfield.llm import LLM

WAYS: dict[str, tuple[str, ...]] = {
    "bfloat16": (),
    "fp8": ("--quantization", "fp8"),
    "int4": ("--quantization", "int4"),
    "int8": ("--quantization", "int8"),
    "nvfp4": ("--quantization", "nvfp4_online"),
    "KV fp8": ("--kv-cache-dtype", "fp8"),
}
BATCHES = (1, 8, 32, 128)
INPUT_LEN, OUTPUT_LEN, PROMPT_LEN = 128, 97, 8192
ITERATIONS = 3


def row(llm: LLM) -> dict[str, float]:
    """Milliseconds by what was measured."""
    found: dict[str, object] = {}
    for batch in BATCHES:
        values = measure(llm, batch, INPUT_LEN, OUTPUT_LEN, ITERATIONS)
        found[f"decode, batch {batch}"] = values["decode_step_ms"]
    values = measure(llm, 1, PROMPT_LEN, 1, ITERATIONS)
    found[f"first token, {PROMPT_LEN} tokens"] = values["median_first_token_ms"]
    return {name: round(float(str(ms)), 3) for name, ms in found.items()}


def main() -> int:
    """Prints each row as it is measured."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--ways", default=",".join(WAYS))
    args, rest = parser.parse_known_args()
    for way in args.ways.split(","):
        with LLM.from_arguments([*rest, "--no-enable-prefix-caching", *WAYS[way]]) as llm:
            print(json.dumps({"way": way, **row(llm)}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
