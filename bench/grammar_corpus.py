"""Real schemas to a suite that bench/grammar_suites.py reads: instances for each schema.

    python bench/grammar_corpus.py SCHEMAS OUT [--seed 0]

SCHEMAS is a folder of JSON Schemas, one a file, without references to other documents; packages
of PyPI and npm have many (cfn-lint, kubernetes-validate, webpack, @asyncapi/specs, ...). For each
schema that jsonschema takes, OUT gets a file with ``schema`` and ``tests``: up to four valid
instances, whose properties come in the order of the schema, and up to eight that a small change
made invalid. jsonschema judges both; a schema for which no valid instance was found is left out.
"""

from __future__ import annotations

import argparse
import copy
import json
import random
import re
import signal
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from jsonschema.exceptions import SchemaError  # type: ignore[import-untyped]
from jsonschema.validators import validator_for  # type: ignore[import-untyped]
from referencing.exceptions import Unresolvable

NUM_VALID = 4
NUM_INVALID = 8
MAX_TRIES = 60
MAX_DEPTH = 12
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
ANYTHING: tuple[Any, ...] = ("text", 3, 2.5, True, None, [], ["a"], {}, {"a": 1})


class TooDeepError(Exception):
    """A schema that leads on and on."""


class Instances:
    """Instances of a schema, most of them valid."""

    def __init__(self, root: Any, chance: random.Random) -> None:
        self._root = root
        self._chance = chance
        self._share = 0.5

    def make(self, share: float) -> Any:
        """One with about this share of the properties that are not required."""
        self._share = share
        return self._value(self._root, 0)

    def _value(self, node: Any, depth: int) -> Any:
        if depth > MAX_DEPTH:
            raise TooDeepError
        if not isinstance(node, Mapping):
            return self._chance.choice(ANYTHING)
        node = self._merged(node, depth)
        if "const" in node:
            return node["const"]
        if node.get("enum"):
            return self._chance.choice(node["enum"])
        kind = node.get("type") or _implied_type(node)
        if isinstance(kind, list):
            kind = self._chance.choice(kind)
        makers = {
            "object": self._object,
            "array": self._array,
            "string": self._string,
            "integer": self._integer,
            "number": self._number,
        }
        if kind in makers:
            return makers[kind](node, depth)
        if kind == "boolean":
            return self._chance.random() < 0.5
        return None if kind == "null" else self._chance.choice(ANYTHING)

    def _merged(self, node: Mapping[str, Any], depth: int) -> dict[str, Any]:
        """The node with its references, and one branch of its alternatives, put in."""
        result = dict(node)
        for _ in range(30):
            parts: list[Any] = []
            if "$ref" in result:
                parts.append(self._target(result.pop("$ref")))
            parts += result.pop("allOf", [])
            for key in ("anyOf", "oneOf"):
                branches = result.pop(key, None)
                if branches:
                    parts.append(self._branch(branches, depth))
            if not parts:
                return result
            for part in parts:
                if isinstance(part, Mapping):
                    result = _both(result, part)
        raise TooDeepError

    def _branch(self, branches: list[Any], depth: int) -> Any:
        if depth < MAX_DEPTH // 2:
            return self._chance.choice(branches)
        return min(branches, key=lambda each: len(json.dumps(each)))

    def _target(self, reference: str) -> Any:
        node = self._root
        for part in reference.lstrip("#").split("/")[1:]:
            name = part.replace("~1", "/").replace("~0", "~").replace("%25", "%")
            node = node[int(name)] if isinstance(node, list) else node[name]
        return node

    def _object(self, node: Mapping[str, Any], depth: int) -> dict[str, Any]:
        required = set(node.get("required", ()))
        share = self._share if depth < 3 else self._share / 3
        result: dict[str, Any] = {}
        for name, each in node.get("properties", {}).items():
            if name not in required and (each is False or self._chance.random() > share):
                continue
            try:
                result[name] = self._value(each, depth + 1)
            except TooDeepError:
                if name in required:
                    raise
        others = node.get("additionalProperties", True)
        for name in node.get("required", ()):
            result.setdefault(name, self._value(others, depth + 1))
        for pattern, each in node.get("patternProperties", {}).items():
            if self._chance.random() < 0.7:
                name = text_of(pattern, self._chance)
                if name is not None:
                    result[name] = self._value(each, depth + 1)
        if isinstance(others, Mapping) and (not result or self._chance.random() < 0.3):
            name = self._chance.choice(("key", "other-name", "K_2"))
            result[name] = self._value(others, depth + 1)
        return result

    def _array(self, node: Mapping[str, Any], depth: int) -> list[Any]:
        prefix, rest = node.get("prefixItems", []), node.get("items", True)
        if isinstance(rest, list):
            prefix, rest = rest, node.get("additionalItems", True)
        least, most = int(node.get("minItems", 0)), node.get("maxItems", 1000)
        wanted = self._chance.randint(0, 2 if depth < 4 else 1)
        size = max(least, min(most, max(wanted, len(prefix))))
        if size > 200:
            raise TooDeepError
        result: list[Any] = []
        for index in range(size):
            part = prefix[index] if index < len(prefix) else rest
            if part is False:
                break
            for _ in range(8):
                item = self._value(part, depth + 1)
                if not node.get("uniqueItems") or item not in result:
                    result.append(item)
                    break
        return result

    def _string(self, node: Mapping[str, Any], depth: int) -> str:
        least, most = int(node.get("minLength", 0)), int(node.get("maxLength", 10_000))
        if "pattern" in node:
            for _ in range(20):
                text = text_of(node["pattern"], self._chance)
                if text is not None and least <= len(text) <= most:
                    return text
        if node.get("format") in FORMATS:
            return FORMATS[node["format"]]
        text = self._chance.choice(WORDS)
        return (text + "x" * max(0, least - len(text)))[:most]

    def _integer(self, node: Mapping[str, Any], depth: int) -> int:
        low, high = _limits(node)
        step = node.get("multipleOf", 1) or 1
        value = self._chance.choice((low, high, (low + high) // 2, low + 1))
        return int(-(-value // step) * step)

    def _number(self, node: Mapping[str, Any], depth: int) -> float:
        low, high = _limits(node)
        return float(self._chance.choice((low, high, (low + high) / 2))) if high > low else low


def _limits(node: Mapping[str, Any]) -> tuple[Any, Any]:
    low, high = node.get("minimum"), node.get("maximum")
    for key, shift in (("exclusiveMinimum", 1), ("exclusiveMaximum", -1)):
        limit = node.get(key)
        if isinstance(limit, bool) or limit is None:
            continue
        low, high = (limit + shift, high) if shift > 0 else (low, limit + shift)
    if low is None:
        low = 0 if high is None or high >= 0 else high - 10
    return low, low + 10 if high is None else high


def _implied_type(node: Mapping[str, Any]) -> str | None:
    hints = {
        "object": ("properties", "required", "additionalProperties", "patternProperties"),
        "array": ("items", "minItems", "maxItems", "prefixItems"),
        "string": ("pattern", "minLength", "maxLength", "format"),
        "number": ("minimum", "maximum", "multipleOf"),
    }
    return next((kind for kind, keys in hints.items() if any(key in node for key in keys)), None)


def _both(one: dict[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """A node that says what two say, roughly."""
    result = dict(one)
    for key, value in other.items():
        if key in ("properties", "patternProperties") and key in result:
            merged = dict(result[key])
            for name, each in value.items():
                merged[name] = {"allOf": [merged[name], each]} if name in merged else each
            result[key] = merged
        elif key == "required":
            result[key] = list(dict.fromkeys([*result.get(key, []), *value]))
        elif key in ("allOf", "anyOf", "oneOf", "$ref") and key in result:
            result["allOf"] = [*result.get("allOf", []), {key: value}]
        elif key == "type" and key in result:
            result[key] = _shared_types(result[key], value)
        else:
            result.setdefault(key, value)
    return result


def _shared_types(one: Any, other: Any) -> Any:
    first, second = ([each] if isinstance(each, str) else each for each in (one, other))
    shared = [each for each in first if each in second]
    return shared or one


def text_of(pattern: str, chance: random.Random) -> str | None:
    """A text in which the regex finds a match; None where none was made."""
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis import strategies as st

    try:
        strategy = st.from_regex(pattern)
    except (re.error, TypeError):
        return None
    key = (pattern,)
    if key not in _TEXTS:
        found: list[str] = []

        @settings(
            max_examples=12,
            database=None,
            derandomize=True,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(strategy)
        def gather(text: str) -> None:
            if all(" " <= each < "\u0100" and each.isprintable() for each in text):
                found.append(text)

        try:
            gather()
        except Exception:  # a regex that hypothesis cannot satisfy
            found.clear()
        _TEXTS[key] = found
    return chance.choice(_TEXTS[key]) if _TEXTS[key] else None


_TEXTS: dict[tuple[str], list[str]] = {}


def mutations(value: Any, chance: random.Random) -> Iterator[Any]:
    """The instance with one thing changed, again and again."""
    places = list(_places(value, ()))
    for _ in range(MAX_TRIES):
        changed = copy.deepcopy(value)
        place = chance.choice(places)
        old = _at(changed, place)
        new = chance.choice(_changes(old, chance))
        if not place:
            yield new
            continue
        holder = _at(changed, place[:-1])
        if new is _GONE:
            del holder[place[-1]]
        else:
            holder[place[-1]] = new
        yield changed


_GONE = object()


def _changes(old: Any, chance: random.Random) -> list[Any]:
    found: list[Any] = [_GONE, None, "no such value", -99999, 1.5, [], {}, True]
    if isinstance(old, dict):
        found.append({**old, "no_such_property": 1})
    elif isinstance(old, list):
        found += [old + old, [*old, {"no_such_property": 1}], old[:-1]]
    elif isinstance(old, str):
        found += [old + "!", old[:-1], old.upper(), "", old * 40]
    elif isinstance(old, int | float) and not isinstance(old, bool):
        found += [str(old), old + 100_000, old + 0.5, -old - 1]
    return [each for each in found if each is not _GONE or old is not None]


def _places(value: Any, place: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    yield place
    if isinstance(value, dict):
        for key, each in value.items():
            yield from _places(each, (*place, key))
    elif isinstance(value, list):
        for index, each in enumerate(value):
            yield from _places(each, (*place, index))


def _at(value: Any, place: tuple[Any, ...]) -> Any:
    for each in place:
        value = value[each]
    return value


def tests_of(schema: Any, seed: int) -> list[dict[str, Any]]:
    """Valid and invalid instances; none where no valid one was found."""
    validator_class = validator_for(schema, default=Draft202012Validator)
    validator_class.check_schema(schema)
    validator = validator_class(schema)
    chance = random.Random(seed)
    maker = Instances(schema, chance)
    texts: dict[str, bool] = {}
    for attempt in range(MAX_TRIES):
        if sum(texts.values()) == NUM_VALID:
            break
        try:
            made = maker.make((0.0, 0.3, 0.7, 1.0)[attempt % 4])
            text = json.dumps(made, allow_nan=False)
        except (TooDeepError, ValueError, KeyError, RecursionError):
            continue
        if validator.is_valid(made):
            texts[text] = True
    for valid in list(texts):
        count = 0
        for changed in mutations(json.loads(valid), chance):
            if changed is _GONE or count == NUM_INVALID // 4 * 2:
                continue
            text = json.dumps(changed)
            if text not in texts and not validator.is_valid(changed):
                texts[text] = False
                count += 1
    invalid = [text for text, is_valid in texts.items() if not is_valid]
    chance.shuffle(invalid)
    kept = [text for text, is_valid in texts.items() if is_valid]
    told = [*((text, True) for text in kept), *((text, False) for text in invalid[:NUM_INVALID])]
    return [{"data": json.loads(text), "valid": is_valid} for text, is_valid in told]


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
        except (SchemaError, Unresolvable, TimeoutError, re.error, RecursionError) as error:
            counts[type(error).__name__] += 1
            continue
        finally:
            signal.alarm(0)
        if not any(test["valid"] for test in tests):
            counts["no valid instance"] += 1
            continue
        counts["schemas"] += 1
        counts["valid"] += sum(test["valid"] for test in tests)
        counts["invalid"] += sum(not test["valid"] for test in tests)
        content = {"description": path.stem, "schema": schema, "tests": tests}
        (options.out / path.name).write_text(json.dumps(content))
    print(dict(counts))


if __name__ == "__main__":
    main()
