"""The page about all options: ``python -m jackfield.config.reference > docs/configuration.md``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from jackfield.config.command_line import shown_default
from jackfield.config.foreign import FOREIGN_FLAGS
from jackfield.config.foreign_flag import Standing
from jackfield.config.settings import GROUPS, Settings, flags_of, variable_of
from jackfield.config.vllm_flags import standings

_HEAD = """\
# Configuration

`jackfield serve MODEL [options]`. Every option has one name, one default and one meaning in
four places:

1. the command line: `--max-model-len 32k`;
2. the environment: `JACKFIELD_MAX_MODEL_LEN=32k`;
3. a YAML file, `--config FILE` or `JACKFIELD_CONFIG`: `max-model-len: 32k`;
4. keyword arguments: `LLM("MODEL", max_model_len="32k")`.

The command line goes before the environment, the environment before the file, the file before
the default.

* Dashes and underscores in names are the same. A switch `--x` is turned off by `--no-x` or
  `--x=false`.
* Whole numbers take a suffix: `32k` is 32,000 and `32K` is 32,768; likewise `m`, `M`, `g`, `G`.
* Lists take several values, several flags, or a JSON list: `--api-key a b`,
  `--allowed-origins '["a"]'`.
* Objects are JSON, or dotted: `--hf-overrides '{"a": {"b": 1}}'` is `--hf-overrides.a.b 1`;
  `--hf-overrides.a+ 1,2` appends to a list. Keys of the file may be dotted too.
* What is wrong is said in one line with exit status 2; `-v` adds a traceback. Nothing is ignored:
  an unknown flag or key of the file ends the start, an unknown `JACKFIELD_` variable and any
  `VLLM_` one gets a warning. `VLLM_API_KEY` ends the start of a server that has no key. What
  Kubernetes sets for a service called `jackfield` (`JACKFIELD_PORT=tcp://...`) is no option.

This page is made by `python -m jackfield.config.reference`; a test compares.
"""
_FOREIGN = """
## vLLM's other flags

The command line of `vllm serve` runs unchanged where it asks for what is here. A flag that asks
for something else is refused by name. `taken` are the values that ask for what is so anyway.

"""
_TITLES = {
    Standing.LATER: "Not built yet",
    Standing.REFUSED: "Refused",
    Standing.ACCEPTED: "Accepted, no longer needed",
}


def page() -> Iterator[str]:
    """The page, piece by piece."""
    yield _HEAD
    yield "\n"
    yield from _table("General", ["config"])
    for group in GROUPS:
        yield "\n"
        yield from _table(str(group.__doc__), list(group.model_fields))
    yield _FOREIGN
    yield from _counts()
    for standing, title in _TITLES.items():
        yield f"\n### {title}\n\n| flag | taken | why | instead |\n| --- | --- | --- | --- |\n"
        for flag, foreign in sorted(FOREIGN_FLAGS.items()):
            if foreign.standing is standing:
                flags = ", ".join(f"`{each}`" for each in (*foreign.short, flag))
                taken = ", ".join(f"`{value}`" for value in foreign.harmless)
                yield f"| {flags} | {taken} | {foreign.reason} | {foreign.instead} |\n"


def _counts() -> Iterator[str]:
    """How many of vLLM's flags there are of each kind, and what those belong to that are left."""
    found = standings()
    counts = Counter(found.values())
    features = Counter(
        FOREIGN_FLAGS[flag].reason for flag, standing in found.items() if standing is Standing.LATER
    )
    yield f"Of its {len(found)} flags of early 2025:\n\n| | |\n| --- | --- |\n"
    yield f"| work as they say | {counts[None]} |\n"
    yield f"| accepted, no longer needed | {counts[Standing.ACCEPTED]} |\n"
    yield f"| refused by design | {counts[Standing.REFUSED]} |\n"
    yield f"| not built yet | {counts[Standing.LATER]} |\n"
    left = ", ".join(f"{feature} ({count})" for feature, count in features.most_common())
    yield f"\nNot built yet: {left}.\n"


def _table(title: str, options: list[str]) -> Iterator[str]:
    yield f"## {title}\n\n| flag | variable | default | |\n| --- | --- | --- | --- |\n"
    for option in options:
        flags = ", ".join(f"`{flag}`" for flag in flags_of(option))
        default = shown_default(option)
        shown = f"`{default}`" if default else ""
        help_text = str(Settings.model_fields[option].description)
        yield f"| {flags} | `{variable_of(option)}` | {shown} | {help_text} |\n"


if __name__ == "__main__":
    print("".join(page()), end="")
