"""The dashboard asks only for what the server tells."""

from __future__ import annotations

import json
import re
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families
from tests.core.server.fake_llm import FakeLLM
from tests.core.server.http_server import in_process

from jackfield.llm.parser_counts import ParserCounts

BOARD = json.loads((Path(__file__).parents[2] / "docs" / "grafana.json").read_text())
EXPRESSIONS = [target["expr"] for panel in BOARD["panels"] for target in panel["targets"]]
NAME = re.compile(r"(?:jackfield:|http_)[a-z0-9_]+")
LABELS = re.compile(r"\{([a-z_]+)=|by\(([a-z_, ]+)\)")


async def test_every_metric_and_label_of_the_dashboard_exists() -> None:
    llm = FakeLLM()
    llm.parser_counts = [ParserCounts("tool_parsers", "a"), ParserCounts("reasoning_parsers", "b")]
    async with in_process(llm) as http:
        await http.post("/v1/completions", json={"prompt": "a"})
        text = (await http.get("/metrics")).text
    told: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            told.setdefault(sample.name, set()).update(sample.labels)
    for expression in EXPRESSIONS:
        names = set(NAME.findall(expression))
        assert names and names <= told.keys(), expression
        found = ", ".join(label for pair in LABELS.findall(expression) for label in pair if label)
        labels = set(found.split(", "))
        assert labels <= set.intersection(*(told[name] for name in names)), expression
    variable = BOARD["templating"]["list"][0]["definition"]
    assert "model_name" in told[NAME.findall(variable)[0]]


def test_panels_have_titles_and_do_not_overlap() -> None:
    assert len({panel["title"] for panel in BOARD["panels"]}) == len(BOARD["panels"]) == 18
    places = {(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in BOARD["panels"]}
    assert len(places) == 18
