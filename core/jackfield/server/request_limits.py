"""How much one request may ask for: bounds that are options, the same on every route."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from typing import Any

from jackfield.errors import RequestError
from jackfield.server.options import ServerOptions

_BOUNDED = frozenset({"stop", "stop_sequences", "logit_bias", "tools"})


def check_limits(data: Mapping[str, Any], options: ServerOptions) -> None:
    """Refuses a request that is above a bound. Values of a wrong type are left to the route."""
    if _BOUNDED.isdisjoint(data):
        return
    for name in ("stop", "stop_sequences"):
        stops = data.get(name)
        if stops:
            _check_stops(name, [stops] if isinstance(stops, str) else stops, options)
    _check_count("logit_bias", data.get("logit_bias"), options.max_logit_bias, "entries")
    _check_count("tools", _all_tools(data.get("tools")), options.max_tools, "tools")


def _check_stops(name: str, stops: object, options: ServerOptions) -> None:
    _check_count(name, stops, options.max_stop_strings, "stop strings")
    if not isinstance(stops, list):
        return
    longest = options.max_stop_characters
    for index, stop in enumerate(stops):
        if isinstance(stop, str) and len(stop) > longest:
            raise RequestError(f"'{name}[{index}]' is longer than {longest} characters", param=name)


def _all_tools(tools: object) -> object:
    """With those that stand in OpenAI's namespaces."""
    if not isinstance(tools, list):
        return tools
    inner = [tool.get("tools") for tool in tools if isinstance(tool, dict)]
    return [*tools, *chain.from_iterable(each for each in inner if isinstance(each, list))]


def _check_count(name: str, value: object, most: int, what: str) -> None:
    if isinstance(value, (list, dict)) and len(value) > most:
        raise RequestError(
            f"'{name}' has {len(value)} {what}; this server takes {most}", param=name
        )
