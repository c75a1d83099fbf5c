"""Options that plugins declare: from words to a checked object for the constructor."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field

from jackfield.config.settings import make_settings
from jackfield.contracts.scheduling import SchedulerRequest
from jackfield.errors import BrokenPluginError, ConfigError
from jackfield.registry import Registry
from jackfield.registry.options import describe_options, make_options

HERE = "tests.core.registry.test_options"
PLAIN = f"{HERE}:Plain"


class Plain:
    name: ClassVar[str] = "plain"
    api_version: ClassVar[int] = 1

    @dataclass(frozen=True)
    class Options:
        count: int
        ratio: float = 0.5
        names: tuple[str, ...] = field(default=(), metadata={"help": "whom it knows"})
        mode: Literal["a", "b"] = "a"
        on: bool = False

    def __init__(self, *, options: Options) -> None:
        self.options = options

    def key(self, request: SchedulerRequest) -> tuple[float, ...]:
        return (1.0,)


class Model(Plain):
    class Options(BaseModel):
        model_config = ConfigDict(frozen=True)
        count: int = Field(3, ge=1, description="how many")


class NoOptions:
    """Declares none."""


class Wrong(NoOptions):
    Options = 3


def made(**given: object) -> Plain.Options:
    options = make_options("it", Plain, given)
    assert isinstance(options, Plain.Options)
    return options


def test_texts_become_what_the_fields_are() -> None:
    options = made(count="3", ratio="0.25", names='["x", "y"]', mode="b", on="true")
    assert options == Plain.Options(3, 0.25, ("x", "y"), "b", True)
    assert made(count=7) == Plain.Options(7)


@pytest.mark.parametrize(
    ("given", "part"),
    [
        ({"cuont": "3"}, "has no option 'cuont'; did you mean 'count'?"),
        ({}, "needs --plugin-option NAME.count=VALUE"),
        ({"count": "x"}, "count is refused: input should be a valid integer"),
        ({"count": 1, "mode": "c"}, "mode is refused"),
        ({"count": 1, "names": "[1"}, "names is refused"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(given: dict[str, object], part: str) -> None:
    with pytest.raises(ConfigError) as error:
        make_options("queue_policies plugin 'plain' of acme 1", Plain, given)
    text = str(error.value)
    assert part in text and text.startswith("queue_policies plugin 'plain' of acme 1")
    assert "\n" not in text


def test_a_model_of_pydantic_checks_and_describes_itself() -> None:
    options = make_options("it", Model, {"count": "5"})
    assert isinstance(options, Model.Options) and options.count == 5
    with pytest.raises(ConfigError, match="greater than or equal to 1"):
        make_options("it", Model, {"count": "0"})
    (described,) = describe_options("it", Model)
    assert (described.name, described.type, described.default) == ("count", "int", "3")
    assert described.help == "how many"


def test_a_class_without_options_takes_none() -> None:
    assert make_options("it", NoOptions, {}) is None
    with pytest.raises(ConfigError, match="takes no options"):
        make_options("it", NoOptions, {"a": 1})
    with pytest.raises(BrokenPluginError, match="neither a dataclass nor a pydantic model"):
        make_options("it", Wrong, {"a": 1})


def test_the_constructor_gets_them_from_the_command_line() -> None:
    settings = make_settings(
        {
            "plugin_option": [f"{PLAIN}.count=4", f"queue_policies.{PLAIN}.mode=b"],
            "additional_config": {PLAIN: {"ratio": 0.75}},
        }
    )
    plugin = Registry.for_settings(settings).make("queue_policies", PLAIN)
    assert plugin.options == Plain.Options(4, 0.75, mode="b")


def test_the_load_format_gets_its_extra_config() -> None:
    settings = make_settings({"load_format": "mine", "model_loader_extra_config": {"threads": 3}})
    registry = Registry.for_settings(settings)
    assert registry.options("load_formats", "mine") == {"threads": 3}
    assert registry.options("tokenizers", "mine") == {}


@pytest.mark.parametrize("text", ["a", "a=1", "a.=1", ".b=1"])
def test_an_option_is_a_name_a_key_and_a_value(text: str) -> None:
    with pytest.raises(ConfigError, match=r"write NAME\.key=value"):
        Registry.for_settings(make_settings({"plugin_option": [text]}))
