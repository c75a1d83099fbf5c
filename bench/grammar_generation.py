"""What a model writes under the schemas of a suite, judged by jsonschema.

    python bench/grammar_generation.py DIR SUITE [--schemas 200] [options of jackfield serve]

DIR is a checkpoint; one with random weights tries hardest to write nonsense. SUITE holds JSON
files of JSON-Schema-Test-Suite (``tests/draft2020-12``). Of the first so many schemas that the
server accepts, two answers each at temperature 1 and one greedy. An answer that ended must be
valid; one that was cut at ``max_tokens`` says nothing. An answer that takes longer than a minute
hangs.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from collections import Counter
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from grammar_suites import cases
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from jackfield import LLM, SamplingParams, StructuredOutputs
from jackfield.errors import RequestError

MAX_TOKENS = 150
HANG_SECONDS = 60.0


def answers(llm: LLM, schema: Any, seed: int) -> list[tuple[str, str | None]]:
    """Texts and finish reasons; ``RequestError`` where the schema is refused."""
    structure = StructuredOutputs(json=schema, disable_additional_properties=False)
    params = [
        SamplingParams(
            temperature=temperature,
            seed=seed + index,
            max_tokens=MAX_TOKENS,
            structured_outputs=structure,
        )
        for index, temperature in enumerate((1.0, 1.0, 0.0))
    ]
    prompts = ["A value, as JSON:"] * len(params)
    results = llm.generate(prompts, params, use_tqdm=False)
    return [(each.outputs[0].text, each.outputs[0].finish_reason) for each in results]


def verdict(schema: Any, text: str, finish: str | None) -> str:
    """``valid``, ``cut`` or ``invalid``; ``unjudged`` where jsonschema has no way with the schema's
    patterns."""
    if finish != "stop":
        return "cut"
    try:
        value = json.loads(text, parse_float=_exactly, parse_constant=lambda name: float("nan"))
    except ValueError:
        return "invalid"
    # As decimal numbers: 26556.6 is a multiple of 0.0001, which binary ones do not show.
    exact = json.loads(json.dumps(schema), parse_float=Decimal)
    try:
        return "valid" if Draft202012Validator(exact).is_valid(value) else "invalid"
    except re.error:
        return "unjudged"


def _exactly(number: str) -> Decimal:
    # Random weights write exponents of 20 digits too, which are infinite or 0 here.
    try:
        return Decimal(number)
    except InvalidOperation:
        return Decimal(float(number))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("checkpoint")
    parser.add_argument("suite", type=Path)
    parser.add_argument("--schemas", type=int, default=200)
    options, rest = parser.parse_known_args()
    counts: Counter[str] = Counter()
    with LLM.from_arguments([options.checkpoint, *rest]) as llm:
        for number, (name, schema, _) in enumerate(cases(options.suite)):
            if counts["schemas"] == options.schemas:
                break
            if isinstance(schema, bool):
                continue
            began = time.perf_counter()
            try:
                found = answers(llm, schema, 3 * number)
            except RequestError:
                counts["refused"] += 1
                continue
            counts["schemas"] += 1
            counts["hangs"] += time.perf_counter() - began > HANG_SECONDS
            for text, finish in found:
                judged = verdict(schema, text, finish)
                counts[judged] += 1
                if judged == "invalid":
                    print(f"invalid: {name}: {json.dumps(schema)[:300]}: {text[:200]}", flush=True)
            if counts["schemas"] % 20 == 0:
                tell(counts)
    tell(counts)


def tell(counts: Counter[str]) -> None:
    """So far."""
    told = ("schemas", "refused", "valid", "cut", "unjudged", "invalid", "hangs")
    print(", ".join(f"{each} {counts[each]}" for each in told), flush=True)


if __name__ == "__main__":
    main()
