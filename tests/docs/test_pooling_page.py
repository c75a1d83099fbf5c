"""docs/pooling.md has every path and field, and its program runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.sentence_models import embedding

from jackfield.server.pooling.request import (
    ClassifyRequest,
    EmbeddingRequest,
    PoolRequest,
    RerankRequest,
    ScoreRequest,
)
from jackfield.server.pooling.routes import PATHS

PAGE = (Path(__file__).parents[2] / "docs" / "pooling.md").read_text(encoding="utf-8")
PROGRAMS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def test_every_path_and_field_is_on_the_page() -> None:
    models = (ClassifyRequest, EmbeddingRequest, PoolRequest, RerankRequest, ScoreRequest)
    fields = {name for model in models for name in model.model_fields}
    assert [name for name in fields if not re.search(rf"[`\"]{name}[`\"]", PAGE)] == []
    assert [path for path in PATHS if f"{path}`" not in PAGE] == []


def test_its_program_runs(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JACKFIELD_DEVICE", "cpu")
    (program,) = (text for text in PROGRAMS if "LLM(" in text)
    exec(program.replace("Qwen/Qwen3-Embedding-0.6B", str(embedding())), {})
    vector, score = capsys.readouterr().out.splitlines()
    assert vector.endswith("] 64") and -1 <= float(score) <= 1
