"""What grammar backends make of JSON Schema suites: counts per backend.

    python bench/grammar_suites.py DIRECTORY [--backends xgrammar guidance auto] [--verbose]

DIRECTORY holds JSON files, those of JSON-Schema-Test-Suite (``tests/draft2020-12``; the source
distribution of jsonschema on PyPI has them under ``json/``) or of MaskBench (``schema`` and
``tests`` in each file). Schemas are taken as they are: objects stay open for
properties that nobody listed.

right: every instance is judged as the suite has it. narrow: some valid instance could not be
generated as the suite writes it. wrong: some invalid instance could be generated. refused: a
request with this schema gets a 400. slow: it would get one because compiling takes too long.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from jackfield.contracts.grammar import (
    COMPILE_SECONDS,
    CompiledGrammar,
    GrammarBackend,
    GrammarSpec,
    Vocabulary,
)
from jackfield.errors import RequestError
from jackfield.registry import Registry
from jackfield.text.json_schema import check_bounds

DRAFTS = {f"draft{n}": f"http://json-schema.org/draft-0{n}/schema#" for n in (4, 6, 7)}
BYTES = Vocabulary(tuple(bytes((byte,)) for byte in range(256)), {})
Case = tuple[str, Any, list[dict[str, Any]]]


def cases(directory: Path) -> Iterator[Case]:
    """Name, schema and instances."""
    for path in sorted(directory.rglob("*.json")):
        content = json.loads(path.read_text())
        for group in content if isinstance(content, list) else [content]:
            if isinstance(group, dict) and "schema" in group:
                name = f"{path.stem}: {group.get('description', '')}"
                yield name, _in_dialect(group["schema"], path), group.get("tests", [])


def _in_dialect(schema: Any, path: Path) -> Any:
    """The schema says which draft it is of, as the suite does by its folder."""
    draft = next((DRAFTS[part] for part in path.parts if part in DRAFTS), None)
    if draft is None or not isinstance(schema, dict):
        return schema
    return {"$schema": draft, **schema}


def allows(compiled: CompiledGrammar, instance: object) -> bool:
    """Whether the instance, as JSON with spaces, is an output that may end."""
    matcher = compiled.matcher()
    if not all(map(matcher.accept, json.dumps(instance, ensure_ascii=False).encode())):
        return False
    masks = np.zeros((1, BYTES.mask_words), dtype=np.int32)
    matcher.fill_bitmask(masks, 0)
    return bool(masks[0, BYTES.size // 32] >> (BYTES.size % 32) & 1)


def judge(backend: GrammarBackend, schema: Any, tests: list[dict[str, Any]]) -> tuple[str, str]:
    """A verdict and why."""
    began = time.perf_counter()
    try:
        check_bounds(schema)
        compiled = backend.compile(GrammarSpec(kind="json_schema", text=json.dumps(schema)))
    except RequestError as error:
        return "refused", error.message
    if time.perf_counter() - began > COMPILE_SECONDS:
        return "slow", f"{time.perf_counter() - began:.1f} s"
    verdicts = [(test, allows(compiled, test["data"])) for test in tests]
    wrong = [test["data"] for test, allowed in verdicts if allowed and not test["valid"]]
    missed = [test["data"] for test, allowed in verdicts if not allowed and test["valid"]]
    if wrong:
        return "wrong", f"{len(wrong)} invalid, such as {json.dumps(wrong[0])[:120]}"
    return ("narrow", json.dumps(missed[0])[:120]) if missed else ("right", "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("directory", type=Path)
    parser.add_argument("--backends", nargs="+", default=["xgrammar", "guidance", "auto"])
    parser.add_argument("--verbose", action="store_true")
    options = parser.parse_args()
    suite = list(cases(options.directory))
    print(f"{len(suite)} schemas")
    for name in options.backends:
        backend: GrammarBackend = Registry().make("grammars", name, BYTES)
        counts: Counter[str] = Counter()
        for case, schema, tests in suite:
            verdict, why = judge(backend, schema, tests)
            counts[verdict] += 1
            if options.verbose and verdict != "right":
                print(f"{name:9} {verdict:8} {case}: {why}")
        told = ", ".join(
            f"{each} {counts[each]}" for each in ("right", "narrow", "refused", "slow", "wrong")
        )
        print(f"{name:9} {told}", flush=True)


if __name__ == "__main__":
    main()
