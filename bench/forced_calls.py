"""Forced tool calls of a served model, streamed: every one must be a valid call.

    jackfield serve DIR --enable-auto-tool-choice --tool-call-parser hermes
    python bench/forced_calls.py http://localhost:8000/v1 [--tools 200]

From the repository's root. So many random tools, each asked for twice at temperature 1: as the
function that is named, and as one of three with ``required``. Needs the openai and jsonschema
packages. A call that was cut at ``max_tokens`` is counted apart. A server of random weights is the
hardest test.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from openai import OpenAI

sys.path.insert(0, str(Path(__file__).parent.parent))
from tests.plugins.grammars.schemas import random_schema

NUM_CLIENTS = 8
MAX_TOKENS = 400
NAMES = ("city", "unit", "count", "tags", "when", "owner", "is_urgent")


def random_tool(chance: random.Random, name: str) -> dict[str, Any]:
    """A function with up to four parameters of random schemas."""
    names = chance.sample(NAMES, chance.randrange(5))
    parameters = {
        "type": "object",
        "properties": {each: random_schema(chance, depth=2) for each in names},
        "required": [each for each in names if chance.random() < 0.7],
    }
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


def ask(client: OpenAI, model: str, tools: list[Any], choice: Any, seed: int) -> str:
    """The verdict on one streamed answer."""
    stream = client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": "Use a tool."}],
        tools=tools,
        tool_choice=choice,
        parallel_tool_calls=False,
        temperature=1.0,
        seed=seed,
        max_tokens=MAX_TOKENS,
        stream=True,
    )
    name, arguments, content, finish = "", "", "", None
    for chunk in stream:
        for each in chunk.choices:
            content += each.delta.content or ""
            finish = each.finish_reason or finish
            for call in each.delta.tool_calls or ():
                assert call.index == 0 and call.function is not None
                name += call.function.name or ""
                arguments += call.function.arguments or ""
    if finish == "length":
        return "cut"
    schemas = {each["function"]["name"]: each["function"]["parameters"] for each in tools}
    try:
        is_valid = Draft202012Validator(schemas[name]).is_valid(json.loads(arguments))
    except (KeyError, ValueError):
        is_valid = False
    return "valid" if is_valid and not content.strip() else f"INVALID {name} {arguments} {content}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("base_url")
    parser.add_argument("--tools", type=int, default=200)
    options = parser.parse_args()
    client = OpenAI(base_url=options.base_url, api_key="none", timeout=600)
    model = client.models.list().data[0].id
    tools = [random_tool(random.Random(n), f"tool_{n}") for n in range(options.tools)]
    with ThreadPoolExecutor(NUM_CLIENTS) as pool:
        named = [
            pool.submit(
                ask,
                client,
                model,
                [tool],
                {"type": "function", "function": {"name": f"tool_{n}"}},
                n,
            )
            for n, tool in enumerate(tools)
        ]
        required = [
            pool.submit(ask, client, model, tools[n : n + 3], "required", n)
            for n in range(len(tools))
        ]
        for kind, futures in (("named", named), ("required", required)):
            verdicts = [future.result() for future in futures]
            for each in verdicts:
                if each.startswith("INVALID"):
                    print(each[:300])
            print(kind, dict(Counter(each.partition(" ")[0] for each in verdicts)), flush=True)


if __name__ == "__main__":
    main()
