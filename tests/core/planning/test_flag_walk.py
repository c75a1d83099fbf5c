"""The command line of ``vllm serve``, flag by flag: it changes what it says, or says why not."""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Callable, Mapping
from operator import attrgetter
from pathlib import Path
from typing import Any

import pytest
from tests.core.planning.conftest import CONFIG, write_weights
from tests.core.planning.flags import FLAGS, Accepted, Later, Refused, Works

from jackfield import checkpoint as checkpoints
from jackfield.config.command_line import parse_arguments
from jackfield.config.foreign import FOREIGN_FLAGS
from jackfield.config.foreign_flag import Standing
from jackfield.config.vllm_flags import VLLM_FLAGS, standings
from jackfield.errors import ConfigError
from jackfield.planning import make_plan
from jackfield.registry import Registry
from jackfield.server.options import options_from_settings

PAGE = (Path(__file__).parents[3] / "docs" / "configuration.md").read_text(encoding="utf-8")
STANDINGS = {Accepted: Standing.ACCEPTED, Refused: Standing.REFUSED, Later: Standing.LATER}
PARSER = """
class Mine:
    name = "mine"
    api_version = 1
    def __init__(self, context): pass
    def feed(self, delta): return [delta]
    def finish(self): return []
"""
ON_THE_HUB = "owner/model"

See = Callable[[str, str], tuple[object, list[str]]]


def of_kind(kind: type) -> list[str]:
    return [flag for flag, walked in FLAGS.items() if isinstance(walked, kind)]


@pytest.fixture
def paths(tmp_path: Path, checkpoint: Path) -> dict[str, str]:
    """A second model and a parser that was never packaged."""
    other, parser = tmp_path / "other", tmp_path / "mine.py"
    other.mkdir()
    config = json.dumps({**CONFIG, "max_position_embeddings": 77})
    (other / "config.json").write_text(config)
    write_weights(other / "model.safetensors")
    parser.write_text(PARSER)
    (checkpoint / "generation_config.json").write_text('{"temperature": 0.5}')
    return {"other": str(other), "parser": str(parser)}


@pytest.fixture
def see(
    checkpoint: Path, platforms: Path, paths: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> See:
    """What a place shows when these words are typed, and the lines that are printed."""
    asked: dict[str, object] = {}

    def resolve(name: str, **options: object) -> Path:
        if name != ON_THE_HUB:
            return Path(name)
        if options["ignore_patterns"] == ("*.safetensors", "*.bin", "*.pt", "*.pth", "*.gguf"):
            asked["tokenizer_revision"] = options["revision"]
        else:
            asked.update(options)
        return checkpoint

    monkeypatch.setattr(checkpoints, "resolve_model", resolve)

    def look(words: str, place: str) -> tuple[object, list[str]]:
        typed = shlex.split(words.format(**paths))
        model = ON_THE_HUB if place.startswith("hub.") else str(checkpoint)
        if "--model" not in typed:
            typed.insert(0, model)
        where = ["--platform-plugin", str(platforms), "--device", "host"]
        settings, notes = parse_arguments([*where, *typed])
        registry = Registry.for_settings(settings)
        plan = make_plan(settings, registry, check_weights=False)
        root, _, name = place.partition(".")
        seen: dict[str, Any] = {
            "plan": plan,
            "engine": plan.engine,
            "worker": plan.engine.worker,
            "server": options_from_settings(settings),
        }
        if root in seen:
            return attrgetter(name)(seen[root]) if _has(seen[root], name) else None, notes
        kinds = {each.kind: each.name for each in plan.choices}
        return {"config": plan.config, "hub": asked, "kind": kinds}[root].get(name), notes

    return look


def _has(root: object, name: str) -> bool:
    try:
        attrgetter(name)(root)
    except AttributeError:
        return False
    return True


def test_the_walk_goes_along_the_whole_command_line() -> None:
    assert set(FLAGS) == set(VLLM_FLAGS) and len(VLLM_FLAGS) == 147
    expected = {flag: STANDINGS.get(type(walked)) for flag, walked in FLAGS.items()}
    assert dict(standings()) == expected


@pytest.mark.parametrize("flag", FLAGS)
def test_it_is_documented(flag: str) -> None:
    assert f"`{flag}`" in PAGE


@pytest.mark.parametrize("flag", of_kind(Works))
def test_it_changes_what_it_says(flag: str, see: See, paths: Mapping[str, str]) -> None:
    walked = FLAGS[flag]
    assert isinstance(walked, Works)
    value = paths["other"] if walked.value == "{other}" else walked.value
    without, _ = see(walked.before, walked.place)
    seen, notes = see(f"{walked.before} {walked.words}", walked.place)
    assert seen == value
    assert without != value
    assert notes == []


@pytest.mark.parametrize("flag", of_kind(Accepted))
def test_it_is_accepted_with_a_line_that_says_what_to_do_now(flag: str, see: See) -> None:
    walked = FLAGS[flag]
    assert isinstance(walked, Accepted)
    _, notes = see(walked.words, "plan.engine")
    foreign = FOREIGN_FLAGS[flag]
    assert notes == [f"{flag} has no effect: {foreign.reason}; {foreign.instead}"]


@pytest.mark.parametrize("flag", [*of_kind(Later), *of_kind(Refused)])
def test_it_is_refused_by_name(flag: str) -> None:
    walked = FLAGS[flag]
    assert isinstance(walked, Later | Refused)
    with pytest.raises(ConfigError) as error:
        parse_arguments(["M", *shlex.split(walked.words)])
    foreign = FOREIGN_FLAGS[flag]
    text = f"{flag} is {foreign.standing.value}: {foreign.reason}; {foreign.instead}"
    assert str(error.value) == text
    if isinstance(walked, Later) and walked.taken:
        assert parse_arguments(["M", *shlex.split(walked.taken)])[1] == []


@pytest.mark.parametrize("flag", of_kind(Works))
def test_underscores_are_dashes(flag: str, see: See) -> None:
    walked = FLAGS[flag]
    assert isinstance(walked, Works)
    words = f"{walked.before} {walked.words}".replace(flag, f"--{flag[2:].replace('-', '_')}")
    assert see(words, walked.place)[0] == see(f"{walked.before} {walked.words}", walked.place)[0]


@pytest.mark.parametrize("device", ["neuron", "tpu", "xpu", "hpu"])
def test_hardware_that_is_not_here_is_refused_with_the_group_to_implement(
    device: str, checkpoint: Path
) -> None:
    settings, _ = parse_arguments([str(checkpoint), "--device", device])
    with pytest.raises(ConfigError, match=rf"'{device}'.*entry-point group jackfield\.platforms"):
        make_plan(settings, Registry())


def test_the_page_has_the_counts() -> None:
    counts = Counter(type(walked) for walked in FLAGS.values())
    for title, kind in (
        ("work as they say", Works),
        ("accepted, no longer needed", Accepted),
        ("refused by design", Refused),
        ("not built yet", Later),
    ):
        assert f"| {title} | {counts[kind]} |" in PAGE
