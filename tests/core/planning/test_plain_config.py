"""What of a model's config travels to the engine's process."""

from __future__ import annotations

from types import MappingProxyType

import msgspec
import numpy as np
import pytest

from jackfield.errors import ConfigError
from jackfield.planning.plain_config import plain_config


def test_what_json_can_say_stays_and_no_limit_stays_a_large_number() -> None:
    config = {"a": [1, 2.5, None, True, "x"], "b": {"c": {"d": -3}}}
    assert plain_config(config) == config
    plain = plain_config({"model_max_length": int(1e30), "low": -(2**70)})
    assert plain == {"model_max_length": 2**63 - 1, "low": 1 - 2**63}
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(plain)) == plain


def test_what_a_plugin_may_make_of_it_becomes_plain() -> None:
    plain = plain_config({"a": MappingProxyType({"b": (1, np.float64(0.5))})})
    assert plain == {"a": {"b": [1, 0.5]}}
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(plain)) == plain


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"a": {"b": [np.dtype("int32")]}}, r"^a\.b of the model's config is a Int32DType"),
        ({"a": {1: 2}}, "^a of the model's config has the key 1, which is no text"),
    ],
)
def test_what_is_no_plain_value_is_refused(config: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        plain_config(config)
