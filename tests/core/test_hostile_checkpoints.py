"""Model directories that mean harm are refused in one line before a model is built."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.checkpoints import make
from tests.hostile_checkpoints import KINDS, MARKER, make_hostile

from jackfield.config.settings import make_settings
from jackfield.errors import ConfigError
from jackfield.planning import make_plan
from jackfield.registry import Registry
from jackfield.text.tokenizer import load_tokenizer

LATER = frozenset(
    {
        "config-is-wide",
        "config-has-many-layers",
        "config-has-a-vast-vocabulary",
        "config-has-negative-heads",
        "config-has-other-types",
        "weights-are-a-pickle-with-code",
        "weights-are-an-archive-with-code",
        "weights-are-a-bomb",
        "template-nests-deep",
    }
)
"""What only building or loading the model shows: ``bench/hostile_directories.py`` tries them."""


@pytest.mark.parametrize("kind", sorted(KINDS.keys() - LATER))
def test_a_hostile_directory_is_refused_in_one_line(kind: str, tmp_path: Path) -> None:
    directory = make_hostile(kind, make("Qwen3ForCausalLM"), tmp_path)
    with pytest.raises(ConfigError) as refused:
        settings = make_settings({"model": str(directory)})
        registry = Registry()
        plan = make_plan(settings, registry)
        load_tokenizer(registry, plan.tokenizer_mode, str(plan.tokenizer_directory))
    assert "\n" not in str(refused.value).strip() and len(str(refused.value)) < 400
    assert not (tmp_path / MARKER).exists()


def test_the_unchanged_directory_is_taken(tmp_path: Path) -> None:
    settings = make_settings({"model": str(make("Qwen3ForCausalLM"))})
    registry = Registry()
    plan = make_plan(settings, registry)
    load_tokenizer(registry, plan.tokenizer_mode, str(plan.tokenizer_directory))
