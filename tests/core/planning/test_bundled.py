"""Which model is served where none is named, and what a bundled one brings with it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tests.core.planning.conftest import Plan

from jackfield.errors import BrokenPluginError, CheckpointError, PluginError

OTHER = """
from pathlib import Path

class Other:
    name = "other-model"
    api_version = 1
    tool_parser = None
    reasoning_parser = "qwen3"
    def directory(self):
        return Path({directory!r})

class Torn(Other):
    name = "torn-model"
    def directory(self):
        return Path("/no/such/directory")

class Unmade(Other):
    name = "unmade-model"
    def __init__(self):
        raise OSError("no disk")
"""


@pytest.fixture
def other(checkpoint: Path, tmp_path: Path) -> str:
    """A file with bundled models of a third party."""
    file = tmp_path / "others.py"
    file.write_text(OTHER.format(directory=str(checkpoint)))
    return str(file)


def test_without_a_model_the_bundled_one_is_served(plan: Plan) -> None:
    made = plan(model=None)
    assert made.served_model_names == ("jackfield-mini",)
    assert (made.directory / "model.safetensors").is_file()
    assert (made.tool_parser, made.reasoning_parser) == ("hermes", "qwen3")
    chosen = {choice.kind: choice for choice in made.choices}
    assert chosen["bundled_models"].reason == "default"
    assert chosen["tool_parsers"].reason == "the bundled model's"


def test_it_is_served_by_its_name(plan: Plan) -> None:
    made = plan(model="jackfield_mini")
    assert made.served_model_names == ("jackfield-mini",)
    assert {choice.kind: choice.reason for choice in made.choices}["bundled_models"] == "--model"


def test_the_users_word_goes_before_the_models(plan: Plan) -> None:
    made = plan(model=None, reasoning_parser="deepseek_r1", served_model_name="me")
    assert made.reasoning_parser == "deepseek_r1"
    assert made.served_model_names == ("me",)


def test_another_model_gets_no_parser_from_it(plan: Plan) -> None:
    made = plan()
    assert (made.tool_parser, made.reasoning_parser) == (None, None)
    assert "bundled_models" not in {choice.kind for choice in made.choices}


def test_a_directory_goes_before_a_bundled_model(
    plan: Plan, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(checkpoint.parent)
    checkpoint.rename(checkpoint.parent / "jackfield-mini")
    made = plan(model="jackfield-mini")
    assert made.directory == Path("jackfield-mini")
    assert made.tool_parser is None
    assert plan(model=None).directory.is_absolute()


def test_a_third_party_can_bring_one(plan: Plan, checkpoint: Path, other: str) -> None:
    made = plan(model="other-model", bundled_model_plugin=other)
    assert made.directory == checkpoint
    assert made.served_model_names == ("other-model",)
    assert (made.tool_parser, made.reasoning_parser) == (None, "qwen3")


def test_a_class_path_is_a_bundled_model(plan: Plan) -> None:
    path = "jackfield_bundled_models.jackfield_mini:JackfieldMini"
    assert plan(model=path).served_model_names == ("jackfield-mini",)
    with pytest.raises(BrokenPluginError, match="no_such_package"):
        plan(model="no_such_package:Model")


def test_a_broken_one_is_named(plan: Plan, other: str) -> None:
    with pytest.raises(CheckpointError, match="/no/such/directory"):
        plan(model="torn-model", bundled_model_plugin=other)
    with pytest.raises(PluginError, match=r"unmade-model.*no disk"):
        plan(model="unmade-model", bundled_model_plugin=other)


def test_planning_it_imports_no_torch() -> None:
    code = (
        "import sys\n"
        "from jackfield.config.settings import make_settings\n"
        "from jackfield.planning import make_plan\n"
        "from jackfield.registry import Registry\n"
        "make_plan(make_settings({'device': 'cpu'}), Registry())\n"
        "assert not {'torch', 'transformers'} & sys.modules.keys()\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=60)
