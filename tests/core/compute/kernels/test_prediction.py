"""What compilers expect before the engine asks is what the engine will ask for."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping

import pytest


def keys(how: str, options: Mapping[str, object]) -> list[str]:
    command = [sys.executable, "-m", "tests.core.compute.kernels.expected", how]
    done = subprocess.run(
        [*command, json.dumps(options)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found: list[str] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize(
    ("options", "at_least"),
    [({}, 4), ({"kv_dtype": "float8_e4m3fn"}, 8), ({"dtype": "float32", "block_size": 16}, 5)],
)
def test_without_torch_the_same_variants_are_found(
    options: dict[str, object], at_least: int
) -> None:
    found = keys("predicted", options)
    assert len(found) >= at_least
    assert sorted(found) == sorted(keys("traced", options))


@pytest.mark.parametrize(
    "options",
    [
        {"attention_backend": "mine"},
        {"config": {"model_type": "mamba"}},
        {"config": {"hidden_size": 8, "num_attention_heads": 2, "sliding_window": 128}},
    ],
)
def test_nothing_is_expected_of_what_is_not_known(options: dict[str, object]) -> None:
    assert keys("predicted", options) == []
