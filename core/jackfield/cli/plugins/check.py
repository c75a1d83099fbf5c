"""``jackfield plugins check DIST|FILE``: the conformance kits, on what is installed or on a file.

What only the author knows (how a model writes calls, how a checkpoint is written) is skipped here;
the package's own test says it.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from jackfield.cli.plugins.entries import entries_named, kind_named, parser
from jackfield.config.plan import PluginSource
from jackfield.errors import ConfigError
from jackfield.registry import HOOKS, KINDS, Registry
from jackfield.registry.conformance import missing_members
from jackfield.registry.sources import source_classes

_SKIP = 'pytest.skip("the plugin\'s own test must say: {}")'


@dataclass(frozen=True, slots=True)
class Kit:
    """A kit's class, the attribute that names the plugin, and the method that is the author's."""

    name: str
    attribute: str
    author: str = ""
    what: str = ""


KITS = {
    "tool_parsers": Kit("ToolParserContract", "parser", "render", "how calls are written"),
    "reasoning_parsers": Kit(
        "ReasoningParserContract", "parser", "render", "how a thought is written"
    ),
    "grammars": Kit("GrammarContract", "backend"),
    "schedulers": Kit("SchedulerContract", "scheduler"),
    "queue_policies": Kit("QueuePolicyContract", "policy"),
    "executors": Kit("ExecutorContract", "executor"),
    "workers": Kit("WorkerContract", "worker", "plan", "with which plan it starts"),
    "models": Kit("ModelContract", "model", "context", "a small config.json"),
    "quantization": Kit("QuantizationContract", "method"),
    "load_formats": Kit(
        "LoadFormatContract", "load_format", "write", "how a checkpoint is written"
    ),
    "attention_backends": Kit("AttentionBackendContract", "backend"),
    "tokenizers": Kit("TokenizerContract", "mode", "write", "which files it reads"),
    "config_formats": Kit("ConfigFormatContract", "config_format", "write", "which files it reads"),
    "platforms": Kit("PlatformContract", "platform"),
    "logits_processors": Kit(
        "LogitsProcessorContract", "processor", "new", "with which arguments it acts"
    ),
    "middleware": Kit("MiddlewareContract", "middleware", "answer", "which request passes"),
    "bundled_models": Kit("BundledModelContract", "model"),
    "response_stores": Kit("ResponseStoreContract", "store"),
}
"""Kinds that are not here have no laws but those of every plugin."""


def main(argv: list[str]) -> int:
    """Runs pytest on generated tests; its exit status."""
    made = parser("check", "Runs the conformance kits on a distribution or a file.")
    made.add_argument("what", metavar="DIST|FILE", help="a distribution, a plugin, or a .py file")
    made.add_argument("--kind", help="kind of the plugins in a file, where several would fit")
    args, pytest_words = made.parse_known_args(argv)
    if importlib.util.find_spec("pytest") is None or importlib.util.find_spec("hypothesis") is None:
        raise ConfigError("the kits need pytest: pip install 'jackfield[testing]'")
    kind = None if args.kind is None else kind_named(args.kind)
    path = Path(args.what)
    found = _of_file(path, kind) if path.suffix == ".py" else _of_installed(args.what, kind)
    text = "".join(_head()) + "".join(_tests(index, *each) for index, each in enumerate(found))
    with tempfile.TemporaryDirectory(prefix="jackfield-check-") as directory:
        test = Path(directory, "test_conformance.py")
        test.write_text(text, encoding="utf-8")
        command = [sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider"]
        parent = str(path.parent.absolute()) if path.suffix == ".py" else ""
        entries = [parent, *sys.path]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, entries))}
        command += ["--rootdir", directory, "-c", os.devnull, *pytest_words, str(test)]
        return subprocess.run(command, cwd=directory, env=environment).returncode


def _of_installed(name: str, kind: str | None) -> list[tuple[str, str]]:
    """(kind, module:Class) of each plugin."""
    named = entries_named(Registry(), name)
    entries = [each for each in named if each.kind != HOOKS and kind in (None, each.kind)]
    if not entries:
        has = ", ".join(dict.fromkeys(each.kind for each in named))
        lacks = "hooks have no kit" if kind in (None, HOOKS) else f"no {kind}"
        raise ConfigError(f"{name} has {has}, and {lacks}")
    return [(entry.kind, entry.value) for entry in entries]


def _of_file(path: Path, kind: str | None) -> list[tuple[str, str]]:
    if not path.is_file():
        raise ConfigError(f"{path}: there is no such file")
    # The flag of any kind would do: the file is imported to see what is in it.
    offers = source_classes(PluginSource(kind or "tool_parsers", str(path)))
    if not offers:
        raise ConfigError(f"{path} has no class with a name and an api_version")
    found = []
    for offer in offers:
        fitting = [kind] if kind else list(_fitting(offer.found))
        if len(fitting) != 1:
            kinds = " and ".join(fitting) or "no kind"
            raise ConfigError(f"class {offer.found.__name__} fits {kinds}; say which with --kind")
        found.append((fitting[0], f"{path.stem}:{offer.found.__qualname__}"))
    return found


def _fitting(found: type[object]) -> Iterator[str]:
    for kind in KINDS.values():
        if kind.contract is not None:
            importlib.import_module(kind.contract.partition(":")[0])
            if not missing_members(kind, found):
                yield kind.name


def _head() -> Iterator[str]:
    yield "import importlib\n\nimport pytest\n\n"
    yield "from jackfield.testing import PluginContract\n\n\n"
    yield "def found(value):\n"
    yield "    module, _, name = value.partition(':')\n"
    yield "    found = importlib.import_module(module)\n"
    yield "    for part in name.split('.'):\n"
    yield "        found = getattr(found, part)\n"
    yield "    return found\n"


def _tests(index: int, kind: str, value: str) -> str:
    """The test classes of one plugin."""
    label = f"{kind}_{value.rpartition(':')[2].replace('.', '_')}_{index}"
    text = (
        f"\n\nclass Test_{label}(PluginContract):\n"
        f"    kind = {kind!r}\n    plugin = found({value!r})\n"
    )
    kit = KITS.get(kind)
    if kit is None:
        return text
    text += (
        f"\n\nfrom jackfield.testing import {kit.name}\n\n\n"
        f"class Test_laws_of_{label}({kit.name}):\n    {kit.attribute} = found({value!r})\n"
    )
    if kit.author:
        text += f"\n    def {kit.author}(self, *arguments):\n        {_SKIP.format(kit.what)}\n"
    return text
