"""Evaluates a served model: jackfield-mini through Jackfield's own ``LLM``, on this machine.

python -m tools.mini.evaluate              # the table of docs/jackfield-mini.md
python -m tools.mini.evaluate --cases 50 --failures failures.json
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path

from tools.mini.evaluation import Case, cases, table
from tools.mini.example import END

from jackfield import LLM, SamplingParams

MAX_TOKENS = 400


def main() -> None:
    """Asks, greedily, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="jackfield-mini")
    parser.add_argument("--cases", type=int, default=200, help="cases of a class")
    parser.add_argument("--failures", help="file for what went wrong, as JSON")
    options = parser.parse_args()
    asked = cases(options.cases)
    begin = time.monotonic()
    with LLM(options.model, use_tqdm_on_load=False) as llm:
        answers = answer(llm, asked)
    lines, failures = table(asked, answers)
    print("\n".join(lines))
    print(f"\n{len(asked)} answers in {time.monotonic() - begin:.0f} s")
    if options.failures:
        text = json.dumps(failures, indent=1, ensure_ascii=False)
        Path(options.failures).write_text(text, encoding="utf-8")


def answer(llm: LLM, asked: Sequence[Case]) -> list[str]:
    """The text of each answer, with its tags, and an end tag where the model ended it."""
    params = SamplingParams(temperature=0.0, max_tokens=MAX_TOKENS)
    outputs = llm.generate([case.prompt for case in asked], params, use_tqdm=False)
    chosen = [output.outputs[0] for output in outputs]
    return [one.text + (END if one.finish_reason == "stop" else "") for one in chosen]


if __name__ == "__main__":
    main()
