"""All options together, and the three places they come from: command line, environment, file."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping
from functools import cache
from typing import Any

import yaml
from pydantic import Field, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from jackfield.config.cache import CacheOptions
from jackfield.config.devices import DeviceOptions
from jackfield.config.foreign import FOREIGN_FLAGS, take_foreign
from jackfield.config.foreign_variables import is_service_link
from jackfield.config.http import ApiOptions, EngineProcessOptions, HttpOptions, LogOptions
from jackfield.config.load import LoadOptions
from jackfield.config.model import ModelOptions
from jackfield.config.paths import given_path
from jackfield.config.plugins import PluginOptions
from jackfield.config.pooling import PoolingOptions
from jackfield.config.scheduling import SchedulingOptions
from jackfield.config.suggestion import did_you_mean
from jackfield.config.text import TextOptions
from jackfield.config.values import OptionGroup, Spelling, shape_of
from jackfield.errors import ConfigError

log = logging.getLogger(__name__)

ENVIRONMENT_PREFIX = "JACKFIELD_"
GROUPS: tuple[type[OptionGroup], ...] = (
    ModelOptions,
    PoolingOptions,
    LoadOptions,
    CacheOptions,
    SchedulingOptions,
    DeviceOptions,
    TextOptions,
    HttpOptions,
    EngineProcessOptions,
    ApiOptions,
    PluginOptions,
    LogOptions,
)
"""The groups of ``--help``; a group's docstring is its title."""


class Settings(
    ModelOptions,
    PoolingOptions,
    LoadOptions,
    CacheOptions,
    SchedulingOptions,
    DeviceOptions,
    TextOptions,
    HttpOptions,
    EngineProcessOptions,
    ApiOptions,
    PluginOptions,
    LogOptions,
    BaseSettings,
):
    """Every option, checked and frozen. Made by ``make_settings`` or ``parse_arguments``."""

    model_config = SettingsConfigDict(
        env_prefix=ENVIRONMENT_PREFIX,
        env_ignore_empty=True,
        enable_decoding=False,
        defer_build=True,
        extra="forbid",
        frozen=True,
        protected_namespaces=(),
    )

    config: str | None = Field(None, description="YAML file with options, spelled as flags")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """What is given here goes before the environment, that before the file."""
        environment = {
            option: value
            for option, value in env_settings().items()
            if not is_service_link(variable_of(option), str(value))
        }
        given: Mapping[str, Any] = {**environment, **init_settings()}
        values, _ = read_config_file(given.get("config"))
        return (
            init_settings,
            InitSettingsSource(settings_cls, init_kwargs=environment),
            InitSettingsSource(settings_cls, init_kwargs=values),
        )

    @model_validator(mode="after")
    def _check_together(self) -> Settings:
        try:
            re.compile(self.logits_processor_pattern or "")
        except re.error as error:
            raise ValueError(
                f"--logits-processor-pattern is no regular expression: {error}"
            ) from None
        if self.allow_credentials and "*" in self.allowed_origins:
            raise ValueError("--allow-credentials needs --allowed-origins that are not '*'")
        if bool(self.ssl_keyfile) != bool(self.ssl_certfile):
            raise ValueError("--ssl-keyfile and --ssl-certfile are given together")
        if self.max_long_partial_prefills > self.max_num_partial_prefills:
            raise ValueError(
                "--max-long-partial-prefills is above --max-num-partial-prefills "
                f"({self.max_num_partial_prefills})"
            )
        return self


def flag_of(option: str) -> str:
    """``max_model_len`` as a flag."""
    return f"--{option.replace('_', '-')}"


def flags_of(option: str) -> list[str]:
    """Every spelling of an option's flag, short ones first."""
    marks = [mark for mark in Settings.model_fields[option].metadata if isinstance(mark, Spelling)]
    return [*(flag for mark in marks for flag in mark.flags), flag_of(option)]


def variable_of(option: str) -> str:
    """``max_model_len`` as an environment variable."""
    return f"{ENVIRONMENT_PREFIX}{option.upper()}"


def make_settings(values: Mapping[str, object]) -> Settings:
    """Settings from options by name (None: not given), the environment and the config file.

    Raises ``ConfigError``, one line that names the option as the user wrote it.
    """
    values = dict(values)
    for note in take_foreign(values):
        log.warning("%s", note)
    for name in values:
        if name not in Settings.model_fields:
            raise ConfigError(
                f"there is no option {name!r}{did_you_mean(name, Settings.model_fields)}"
            )
    given: dict[str, Any] = {name: each for name, each in values.items() if each is not None}
    try:
        return Settings(**given)
    except ValidationError as error:
        raise ConfigError(_describe(error, given)) from None


def unknown_variables() -> list[str]:
    """A line for each ``JACKFIELD_*`` variable that is no option: most likely a misspelling.
    Raises ``ConfigError`` for one that asks for what is not built."""
    known = {variable_of(option) for option in Settings.model_fields}
    lines = []
    for name in sorted(os.environ):
        if not name.startswith(ENVIRONMENT_PREFIX) or name in known or not os.environ[name]:
            continue
        if is_service_link(name, os.environ[name]):
            continue
        option = name.removeprefix(ENVIRONMENT_PREFIX).lower()
        if flag_of(option) in FOREIGN_FLAGS:
            lines += take_foreign({option: os.environ[name]}, place=name)
        else:
            lines.append(f"environment variable {name} is no option{did_you_mean(name, known)}")
    return lines


def require_key_if_meant(settings: Settings) -> None:
    """``ConfigError`` for a server without a key where ``VLLM_API_KEY`` should have been one."""
    if os.environ.get("VLLM_API_KEY") and not settings.api_key:
        raise ConfigError(
            "VLLM_API_KEY is not read, and without a key anybody is served: "
            f"use {variable_of('api_key')} or {flag_of('api_key')}"
        )


def config_file_notes(settings: Settings) -> list[str]:
    """What there is to say about the file that the settings came from."""
    return read_config_file(settings.config)[1]


def read_config_file(path: object) -> tuple[dict[str, object], list[str]]:
    """The options of a YAML file, by name, and lines about those that have no effect; empty if
    there is no file."""
    if path is None:
        return {}, []
    try:
        content = yaml.safe_load(given_path(str(path)).read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"cannot read --config {path}: {reason}") from None
    if content is None:
        return {}, []
    if not isinstance(content, dict):
        raise ConfigError(f"cannot read --config {path}: it is not a mapping of options")
    values = dict(_option_of(key, value) for key, value in _folded(content, path).items())
    notes = take_foreign(values, place=f"{{flag}} in {path}")
    known = Settings.model_fields.keys() - {"config"}
    for option in values:
        if option not in known:
            keys = [each.replace("_", "-") for each in known]
            raise ConfigError(
                f"{path} has the unknown option {option.replace('_', '-')!r}"
                f"{did_you_mean(option, keys)}"
            )
        if values[option] is None:
            _check_may_be_empty(option, path)
    return {option: value for option, value in values.items() if value is not None}, notes


def _folded(content: Mapping[object, object], path: object) -> dict[str, object]:
    """``a.b: 1`` is ``a: {b: 1}``, as it is in vLLM's files."""
    folded: dict[str, object] = {}
    for key, value in content.items():
        names = str(key).split(".")
        names[0] = names[0].replace("_", "-")
        target = folded
        for name in names[:-1]:
            inner = target.setdefault(name, {})
            if not isinstance(inner, dict):
                raise ConfigError(f"cannot read --config {path}: {name} and {key} are both there")
            target = inner
        target[names[-1]] = value
    return folded


def _check_may_be_empty(option: str, path: object) -> None:
    """A line of the file without a value says nothing; of these it may have been meant to."""
    if option == "api_key" or _is_switch(option):
        raise ConfigError(f"{flag_of(option)} in {path} is empty; give a value, or leave it out")


def _option_of(key: str, value: object) -> tuple[str, object]:
    """What a key of the file says, by the option's own name; ``no-x: true`` is ``x: false``."""
    flag = flag_of(key)
    options = _options_by_flag()
    negated = options.get(flag.replace("--no-", "--", 1))
    if flag not in options and negated is not None and isinstance(value, bool):
        if _is_switch(negated):
            return negated, not value
    return options.get(flag, key.replace("-", "_")), value


def _is_switch(option: str) -> bool:
    return shape_of(Settings.model_fields[option].annotation) == "switch"


@cache
def _options_by_flag() -> dict[str, str]:
    return {flag: option for option in Settings.model_fields for flag in flags_of(option)}


def _describe(error: ValidationError, values: Mapping[str, object]) -> str:
    """The first complaint, in one line."""
    first = error.errors(include_url=False)[0]
    message = first["msg"].removeprefix("Value error, ")
    if not first["loc"]:
        return message
    option = str(first["loc"][0])
    place = flag_of(option)
    if option not in values:
        place = variable_of(option) if variable_of(option) in os.environ else f"{place} (--config)"
    # A key must not appear in a log.
    shown = "" if option == "api_key" else f" {str(first['input'])!r:.80}"
    return f"{place}{shown} is refused: {message[:1].lower()}{message[1:]}"
