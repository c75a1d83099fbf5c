"""A JSON object to a request model, or the one error that names the field at fault."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from jackfield.errors import RequestError

Model = TypeVar("Model", bound=BaseModel)

MAX_ERRORS = 1000
"""Of more the first is not looked for: pydantic lists all or none, and everybody waits for that."""


def validate(model: type[Model], data: dict[str, Any]) -> Model:
    """The object as ``model``; pydantic's first complaint as a ``RequestError``."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        count = error.error_count()
        if count > MAX_ERRORS:
            raise RequestError(f"{count} values are wrong", code="invalid_value") from None
        raise _first_error(error) from None


def _first_error(error: ValidationError) -> RequestError:
    details = error.errors(include_url=False, include_context=False, include_input=False)
    # A union reports each of its branches; the deepest one is where the client was nearest, and
    # of those as deep the one whose type was right.
    top = details[0]["loc"][:1]
    same_field = [detail for detail in details if detail["loc"][:1] == top]
    detail = max(same_field, key=_nearness)
    param = field_path(detail["loc"])
    if detail["type"] == "missing":
        return RequestError(
            f"Missing required field '{param}'", param=param, code="missing_required_parameter"
        )
    said = detail["msg"].partition(" or instance of ")[0]  # a class of ours
    return RequestError(f"'{param}': {said}", param=param, code="invalid_value")


def _nearness(detail: ErrorDetails) -> tuple[int, bool]:
    depth = len(field_path(detail["loc"]).replace("[", ".").split("."))
    return depth, not detail["type"].endswith("_type")


def field_path(location: tuple[int | str, ...]) -> str:
    """``("stop", "list[str]", 1)`` as ``stop[1]``: union branch names are left out."""
    path = ""
    for part in location:
        if isinstance(part, int):
            path += f"[{part}]"
        elif part.isidentifier() and part not in _BRANCHES:
            path += f".{part}" if path else part
    return path


_BRANCHES = frozenset({"str", "int", "float", "bool", "none", "dict", "list", "literal"})
"""What pydantic calls the branches of a union of plain types."""
