"""``jackfield plugins new KIND NAME [DIR]``: a package with a plugin, its test and a README."""

from __future__ import annotations

import importlib.util
import re
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from jackfield.cli.plugins.entries import kind_named, parser
from jackfield.errors import ConfigError
from jackfield.registry import HOOKS, KINDS
from jackfield.registry.kinds import singular

_TEMPLATE = ".txt"


def main(argv: list[str]) -> int:
    """Writes the package and says what to do with it."""
    made = parser(
        "new",
        "Writes a package with a plugin that works, a test that runs its conformance kit, and a "
        "README. Kinds are those of `jackfield plugins list`, in the singular if you like.",
    )
    made.add_argument("kind", metavar="KIND", help="tool-parser, scheduler, hooks, ...")
    made.add_argument("name", metavar="NAME", help="what users will type; a model's architecture")
    made.add_argument("directory", nargs="?", metavar="DIR", help="default: jackfield-NAME")
    args = made.parse_args(argv)
    kind = kind_named(args.kind)
    if kind in KINDS and KINDS[kind].contract is None:
        raise ConfigError(f"there is no contract for {kind} yet")
    values = _values(kind, args.name)
    directory = Path(args.directory or values["distribution"])
    if directory.exists() and any(directory.iterdir()):
        raise ConfigError(f"{directory} is there and not empty; name another directory")
    for path, text in _package(kind, values):
        target = directory / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
    print(
        f"{directory}: {_described(kind)} called {values['name']}. Next:\n"
        f"  cd {directory} && pip install -e '.[test]' && pytest\n"
        f"  {values['use']}"
    )
    return 0


def _values(kind: str, given: str) -> dict[str, str]:
    """What the templates' marks stand for."""
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", given):
        raise ConfigError(f"{given!r} is no name: letters, digits and hyphens, a letter first")
    plain = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", given).replace("-", "_").lower()
    camel = "".join(part[:1].upper() + part[1:] for part in re.split(r"[-_]", given))
    module = f"jackfield_{plain}"
    if importlib.util.find_spec(module) is not None:
        raise ConfigError(f"there is a package {module} already; choose another name")
    name, found = plain, camel + (KINDS[kind].contract_name if kind in KINDS else "Hooks")
    if kind == "models":
        # The checkpoint asks for a model by its architecture.
        name = found = camel if camel.endswith("ForCausalLM") else f"{camel}ForCausalLM"
    api = max(KINDS[kind].api_versions) if kind in KINDS else 1
    extra = "" if kind == HOOKS else f" [api-{api}]"
    return {
        "name": name,
        "module": module,
        "class": found,
        "distribution": module.replace("_", "-"),
        "kind": kind,
        "group": f"jackfield.{kind}",
        "api": str(api),
        "target": f"{module}.plugin:{found}{extra}",
        "summary": f"{_described(kind).capitalize()} for Jackfield.",
        "contract": f"`{KINDS[kind].contract}`" if kind in KINDS else "`jackfield.hooks.HookSpecs`",
        "page": f"docs/plugin-kinds/{kind}.md" if kind in KINDS else "docs/plugins.md",
        "use": _use(kind, name),
    }


def _use(kind: str, name: str) -> str:
    if kind in (HOOKS, "models"):
        return "jackfield serve MODEL"
    if kind == "bundled_models":
        return f"jackfield serve {name} --load-format dummy --tokenizer-mode TOKENIZER"
    return f"jackfield serve MODEL {KINDS[kind].flag} {name}"


def _described(kind: str) -> str:
    """The kind in words, with an article."""
    words = singular(kind).replace("_", " ")
    words = {"quantization": "quantization method", "hook": "set of hooks"}.get(words, words)
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def _package(kind: str, values: dict[str, str]) -> list[tuple[str, str]]:
    """Every file of the package: its path, and its text."""
    scaffold = files("jackfield.scaffold")
    module = f"src/{values['module']}"
    found = [
        ("pyproject.toml", scaffold / "common" / "pyproject.toml.txt"),
        ("README.md", scaffold / "common" / "README.md.txt"),
        (f"{module}/plugin.py", scaffold / kind / "plugin.py.txt"),
        (f"tests/test_{values['module']}.py", scaffold / kind / "test_plugin.py.txt"),
    ]
    extra = scaffold / kind / "package"
    if extra.is_dir():
        found += [(f"{module}/{path}", file) for path, file in _walk(extra, "")]
    texts = [(path, _filled(file.read_text(encoding="utf-8"), values)) for path, file in found]
    return [*texts, (f"{module}/__init__.py", f'"""{values["summary"]}"""\n')]


def _walk(folder: Traversable, prefix: str) -> list[tuple[str, Traversable]]:
    found = []
    for each in folder.iterdir():
        if each.is_dir():
            found += _walk(each, f"{prefix}{each.name}/")
        elif each.name.endswith(_TEMPLATE):
            found.append((prefix + each.name.removesuffix(_TEMPLATE), each))
    return found


def _filled(text: str, values: dict[str, str]) -> str:
    for name, value in values.items():
        text = text.replace("{{" + name + "}}", value)
    return text
