"""What holding the output to a grammar costs per token: batches with and without one.

    python bench/grammar.py DIR [--batches 1 8 64] [--tokens 128] [options of jackfield serve]

Every request makes the same number of tokens, greedily. ``free``: no grammar. ``any``: a regex
that allows every text, so that the tokens are the same and only masks are added. ``json``: a
schema whose answer is long. ``mixed``: half of the requests free, half JSON. ``keys``: properties
with long names, whose tokens need not be sampled. A ratio is the least time of a token over that
of ``free``.
"""

from __future__ import annotations

import argparse
import json
import time

from jackfield import LLM, SamplingParams, StructuredOutputs

SCHEMA = {
    "type": "array",
    "items": {
        "type": "object",
        "properties": {
            "name": {"type": "string"},
            "kind": {"enum": ["cat", "dog", "bird"]},
            "age": {"type": "integer"},
            "weight": {"type": "number"},
            "toys": {"type": "array", "items": {"type": "string"}},
        },
        "required": ["name", "kind", "age", "weight", "toys"],
    },
    "minItems": 1000,
}


_PLACES = ("shipping_department", "returns_department", "accounting_office")
KEYS = {
    "type": "array",
    "items": {
        "type": "object",
        "properties": {
            f"identification_number_of_the_{place}_in_charge": {"type": "integer"}
            for place in _PLACES
        },
        "required": [f"identification_number_of_the_{place}_in_charge" for place in _PLACES],
    },
    "minItems": 1000,
}


def kinds(batch: int, tokens: int) -> dict[str, list[SamplingParams]]:
    """The parameters of each request of a batch, by what is measured."""
    plain = SamplingParams(max_tokens=tokens, temperature=0, ignore_eos=True)
    anything = SamplingParams(
        max_tokens=tokens,
        temperature=0,
        ignore_eos=True,
        structured_outputs=StructuredOutputs(regex=r"(.|\n)*"),
    )
    held = SamplingParams(
        max_tokens=tokens, temperature=0, structured_outputs=StructuredOutputs(json=SCHEMA)
    )
    keys = SamplingParams(
        max_tokens=tokens,
        temperature=0,
        structured_outputs=StructuredOutputs(json=KEYS, disable_any_whitespace=True),
    )
    return {
        "free": [plain] * batch,
        "any": [anything] * batch,
        "json": [held] * batch,
        "mixed": [held if i % 2 else plain for i in range(batch)],
        "keys": [keys] * batch,
    }


def seconds_per_token(llm: LLM, params: list[SamplingParams], tokens: int) -> float:
    """Of a sequence; all run side by side."""
    prompts = [[1000 + i, 11, 12, 13] for i in range(len(params))]
    began = time.perf_counter()
    results = llm.generate(prompts, params, use_tqdm=False)
    taken = time.perf_counter() - began
    longest = max(len(result.outputs[0].token_ids) for result in results)
    return taken / longest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    options, rest = parser.parse_known_args()
    with LLM.from_arguments(rest) as llm:
        for batch in options.batches:
            by_kind = kinds(batch, options.tokens)
            for params in by_kind.values():  # compiles grammars, captures graphs
                seconds_per_token(llm, params, options.tokens)
            best = dict.fromkeys(by_kind, float("inf"))
            for _ in range(options.rounds):
                for kind, params in by_kind.items():
                    best[kind] = min(best[kind], seconds_per_token(llm, params, options.tokens))
            print(
                json.dumps(
                    {
                        "batch": batch,
                        **{f"{kind}_ms": round(1e3 * best[kind], 3) for kind in best},
                        **{
                            f"{kind}_ratio": round(best[kind] / best["free"], 3)
                            for kind in best
                            if kind != "free"
                        },
                    }
                ),
                flush=True,
            )


if __name__ == "__main__":
    main()
