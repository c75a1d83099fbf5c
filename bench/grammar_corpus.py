"""Real schemas to a suite that bench/grammar_suites.py reads: instances for each schema.

    python bench/grammar_corpus.py SCHEMAS OUT [--seed 0]

SCHEMAS is a folder of JSON Schemas, one a file, without references to other documents; packages
of PyPI and npm have many (cfn-lint, kubernetes-validate, webpack, @asyncapi/specs, ...). For each
schema that jsonschema takes, OUT gets a file with ``schema`` and ``tests``: up to four valid
instances, whose properties come in the order of the schema, and up to eight that a small change
made invalid. hypothesis makes instances, jsonschema judges them; a schema for which no valid
instance was found is left out.
"""

from __future__ import annotations

import argparse
import json
import operator
import random
import re
import signal
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import reduce
from itertools import islice
from pathlib import Path
from types import FrameType
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from hypothesis.errors import HypothesisException
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from jsonschema.exceptions import SchemaError  # type: ignore[import-untyped]
from jsonschema.validators import validator_for  # type: ignore[import-untyped]
from referencing.exceptions import Unresolvable

NUM_VALID, NUM_INVALID = 4, 8
NUM_TRIES = 60
MAX_CHANGES = 500
SECONDS = 20
FORMATS = {
    "date": "2024-05-17",
    "date-time": "2024-05-17T10:20:30Z",
    "time": "10:20:30Z",
    "email": "ada@example.org",
    "uri": "https://example.org/a/b?c=d",
    "uri-reference": "https://example.org/a",
    "iri": "https://example.org/a",
    "hostname": "host.example.org",
    "ipv4": "10.1.2.3",
    "ipv6": "fe80:0:0:0:1:2:3:4",
    "uuid": "123e4567-e89b-12d3-a456-426614174000",
    "duration": "P3DT4H",
    "regex": "abc",
    "json-pointer": "/a/b",
}
WORDS = ("name", "a-b", "Value 1", "x", "eu-west-1", "/path/to", "0", "ünï", 'say "hi"', "")
PRINTABLE = st.characters(max_codepoint=0xFF, exclude_categories=("Cc",))
ANYTHING = st.sampled_from(("text", 3, 2.5, True, None, [], ["a"], {}, {"a": 1}))
HINTS = {
    "object": ("properties", "required", "additionalProperties", "patternProperties"),
    "array": ("items", "minItems", "maxItems", "prefixItems"),
    "string": ("pattern", "minLength", "maxLength", "format"),
    "number": ("minimum", "maximum", "multipleOf"),
}
"""What a schema without a type is about."""

Values = st.SearchStrategy[Any]


class Instances:
    """Instances of a schema, many of them valid: what only seldom matters is left to the judge."""

    def __init__(self, root: Any) -> None:
        self._root = root
        self._made: dict[str, Values] = {}

    def of(self, node: Any) -> Values:
        """Instances of a part of the schema, which may lead to itself."""
        key = json.dumps(node)
        if key not in self._made:
            self._made[key] = st.deferred(lambda: self._of(node))
        return self._made[key]

    def _of(self, node: Any) -> Values:
        if not isinstance(node, Mapping):
            return ANYTHING
        for key in ("$ref", "allOf", "anyOf", "oneOf"):
            if key in node:
                rest = {name: value for name, value in node.items() if name != key}
                parts = [self._target(node[key])] if key == "$ref" else node[key]
                if key == "allOf":
                    return self.of(reduce(both, parts, rest))
                return st.one_of([self.of(both(rest, each)) for each in parts])
        if "const" in node or "enum" in node:
            return st.sampled_from(node.get("enum") or [node.get("const")])
        kinds = node.get("type") or [k for k, keys in HINTS.items() if set(keys) & set(node)][:1]
        kinds = [kinds] if isinstance(kinds, str) else kinds
        return st.one_of([self._of_kind(kind, node) for kind in kinds]) if kinds else ANYTHING

    def _target(self, reference: str) -> Any:
        node = self._root
        for part in reference.lstrip("#").split("/")[1:]:
            name = part.replace("~1", "/").replace("~0", "~").replace("%25", "%")
            node = node[int(name)] if isinstance(node, list) else node[name]
        return node

    def _of_kind(self, kind: str, node: Mapping[str, Any]) -> Values:
        if kind == "object":
            return self._object(node)
        if kind == "array":
            return self._array(node)
        if kind == "string":
            return _string(node)
        if kind == "boolean":
            return st.booleans()
        return st.none() if kind == "null" else _number(node, kind)

    def _object(self, node: Mapping[str, Any]) -> Values:
        others = node.get("additionalProperties", True)
        schemas = {**dict.fromkeys(node.get("required", ()), others), **node.get("properties", {})}
        names = [*node.get("properties", {}), *schemas]
        parts = {name: self.of(schemas[name]) for name in names}
        needed = {name: parts[name] for name in parts if name in node.get("required", ())}
        optional = {name: parts[name] for name in parts if name not in needed}
        optional = {name: each for name, each in optional.items() if not each.is_empty}
        result = st.fixed_dictionaries(needed, optional=optional)
        more = [(_matching(key), each) for key, each in node.get("patternProperties", {}).items()]
        if isinstance(others, Mapping):
            more.append((st.sampled_from(("key", "other-name", "K_2")), others))
        for keys, each in more:
            unlisted = st.dictionaries(keys, self.of(each), max_size=2)
            result = st.builds(lambda some, made: {**some, **made}, unlisted, result)
        return result.map(lambda made: {**{n: made[n] for n in parts if n in made}, **made})

    def _array(self, node: Mapping[str, Any]) -> Values:
        prefix, rest = node.get("prefixItems", []), node.get("items", True)
        if isinstance(rest, list):
            prefix, rest = rest, node.get("additionalItems", True)
        least, most = int(node.get("minItems", 0)), node.get("maxItems", 1000)
        first = st.tuples(*(self.of(each) for each in prefix)).map(list)
        if rest is False:
            return first
        low = max(0, least - len(prefix))
        more = st.lists(
            self.of(rest),
            min_size=low,
            max_size=max(low, min(low + 2, most - len(prefix))),
            unique_by=json.dumps if node.get("uniqueItems") else None,
        )
        return st.builds(operator.add, first, more)


def both(one: Any, other: Any) -> Any:
    """A schema that says what two say, roughly."""
    if not isinstance(one, Mapping) or not isinstance(other, Mapping):
        return one if isinstance(one, Mapping) else other
    result = dict(one)
    for key, value in other.items():
        if key in ("properties", "patternProperties"):
            names = {**result.get(key, {}), **value}
            result[key] = {
                name: both(result.get(key, {}).get(name, {}), names[name]) for name in names
            }
        elif key == "required":
            result[key] = list(dict.fromkeys([*result.get(key, []), *value]))
        elif key in ("allOf", "anyOf", "oneOf", "$ref") and key in result:
            result["allOf"] = [*result.get("allOf", []), {key: value}]
        else:
            result.setdefault(key, value)
    return result


def _matching(pattern: str) -> Values:
    # JSON Schema's regexes are those of ECMA 262, in which \w and \d are ASCII, and nothing
    # follows "$"; in Python a line feed may.
    compiled = re.compile(pattern, re.ASCII)
    return st.from_regex(compiled, alphabet=PRINTABLE).filter(str.isprintable)


def _string(node: Mapping[str, Any]) -> Values:
    least, most = int(node.get("minLength", 0)), int(node.get("maxLength", 10_000))
    if "pattern" in node:
        return _matching(node["pattern"]).filter(lambda text: least <= len(text) <= most)
    if node.get("format") in FORMATS:
        return st.just(FORMATS[node["format"]])
    return st.sampled_from(WORDS).map(lambda text: text.ljust(least, "x")[:most])


def _number(node: Mapping[str, Any], kind: str) -> Values:
    low, high = node.get("minimum"), node.get("maximum")
    for key, shift in (("exclusiveMinimum", 1), ("exclusiveMaximum", -1)):
        limit = node.get(key)
        if limit is not None and not isinstance(limit, bool):
            low, high = (limit + shift, high) if shift > 0 else (low, limit + shift)
    if low is None:
        low = 0 if high is None or high >= 0 else high - 10
    high = low + 10 if high is None else high
    step = node.get("multipleOf", 1) or 1
    whole = st.sampled_from((low, high, (low + high) // 2)).map(
        lambda each: -(-each // step) * step
    )
    return whole.map(int) if kind == "integer" else st.one_of(whole, st.just((low + high) / 2))


def draw(values: Values, number: int, count: int) -> list[Any]:
    """So many examples, the same for the same number."""
    found: list[Any] = []

    @seed(number)
    @settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(values)
    def gather(value: Any) -> None:
        found.append(value)

    try:
        gather()
    except (HypothesisException, re.error, RecursionError):  # what hypothesis cannot make
        pass
    return found


def changed(value: Any) -> Iterator[Any]:
    """The instance with one thing changed, in every way."""
    yield from (None, "no such value", -99999, 1.5, [], {}, True)
    if isinstance(value, dict):
        yield {**value, "no_such_property": 1}
        for name, part in value.items():
            yield {key: each for key, each in value.items() if key != name}
            yield from ({**value, name: each} for each in changed(part))
    elif isinstance(value, list):
        yield from (value + value, [*value, {"no_such_property": 1}])
        for place, part in enumerate(value):
            yield value[:place] + value[place + 1 :]
            yield from ([*value[:place], each, *value[place + 1 :]] for each in changed(part))
    elif isinstance(value, str):
        yield from (value + "!", value[:-1], value.upper(), value * 40)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield from (str(value), value + 100_000, value + 0.5, -value - 1)


def tests_of(schema: Any, number: int) -> list[dict[str, Any]]:
    """Valid and invalid instances; no valid one where none was found."""
    validator_class = validator_for(schema, default=Draft202012Validator)
    validator_class.check_schema(schema)
    is_valid = validator_class(schema).is_valid
    made = draw(Instances(schema).of(schema), number, NUM_TRIES)
    valid = {json.dumps(each): each for each in made if is_valid(each)}
    # The longest: hypothesis begins with the simplest.
    kept = sorted(valid, key=len)[-NUM_VALID:]
    others = [each for text in kept for each in islice(changed(valid[text]), MAX_CHANGES)]
    random.Random(number).shuffle(others)
    invalid = {json.dumps(each): each for each in others if not is_valid(each)}
    return [
        *({"data": valid[text], "valid": True} for text in kept),
        *({"data": each, "valid": False} for each in islice(invalid.values(), NUM_INVALID)),
    ]


def _too_slow(signal_number: int, frame: FrameType | None) -> None:
    raise TimeoutError


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("schemas", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    options.out.mkdir(exist_ok=True)
    signal.signal(signal.SIGALRM, _too_slow)
    counts: Counter[str] = Counter()
    for path in sorted(options.schemas.rglob("*.json")):
        schema = json.loads(path.read_text())
        signal.alarm(SECONDS)
        try:
            tests = tests_of(schema, options.seed)
        except (SchemaError, Unresolvable, TimeoutError, RecursionError, LookupError) as error:
            counts[type(error).__name__] += 1
            continue
        finally:
            signal.alarm(0)
        if not any(test["valid"] for test in tests):
            counts["no valid instance"] += 1
            continue
        counts["schemas"] += 1
        counts.update("valid" if test["valid"] else "invalid" for test in tests)
        content = {"description": path.stem, "schema": schema, "tests": tests}
        (options.out / path.name).write_text(json.dumps(content))
    print(dict(counts))


if __name__ == "__main__":
    main()
