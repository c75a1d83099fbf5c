"""Typed access to ``config.json``: what a model needs, or one line that says what is wrong."""

from __future__ import annotations

from collections.abc import Mapping

from jackfield.errors import CheckpointError


class ModelConfig:
    """Reads values of a checkpoint's configuration.

    Every method raises ``CheckpointError`` where the value has another type, or where it is
    absent (or null) and no default is given.
    """

    def __init__(self, values: Mapping[str, object]) -> None:
        self.values = values

    def integer(self, key: str, default: int | None = None) -> int:
        """A whole number."""
        value = self._get(key, default)
        if isinstance(value, bool) or not isinstance(value, int):
            raise self._fault(key, value, "a whole number")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """A number."""
        value = self._get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self._fault(key, value, "a number")
        return float(value)

    def flag(self, key: str, default: bool) -> bool:
        """True or false."""
        value = self._get(key, default)
        if not isinstance(value, bool):
            raise self._fault(key, value, "true or false")
        return value

    def text(self, key: str, default: str) -> str:
        """A string."""
        value = self._get(key, default)
        if not isinstance(value, str):
            raise self._fault(key, value, "a string")
        return value

    def texts(self, key: str) -> tuple[str, ...] | None:
        """A list of strings; None where there is none."""
        value = self.values.get(key)
        if value is None:
            return None
        if not isinstance(value, list | tuple) or not all(isinstance(v, str) for v in value):
            raise self._fault(key, value, "a list of strings")
        return tuple(value)

    def integers(self, key: str) -> tuple[int, ...]:
        """A list of whole numbers; empty where there is none."""
        value = self.values.get(key)
        if value is None:
            return ()
        if not isinstance(value, list | tuple) or not all(type(v) is int for v in value):
            raise self._fault(key, value, "a list of whole numbers")
        return tuple(value)

    def numbers(self, key: str, count: int) -> tuple[float, ...]:
        """A list of ``count`` numbers."""
        value = self._get(key, None)
        listed = value if isinstance(value, list | tuple) else ()
        numbers = tuple(float(each) for each in listed if type(each) in (int, float))
        if len(listed) != count or len(numbers) != count:
            raise self._fault(key, value, f"a list of {count} numbers")
        return numbers

    def mapping(self, key: str) -> Mapping[str, object]:
        """An object; empty where there is none."""
        value = self.values.get(key)
        if value is None:
            return {}
        if not isinstance(value, Mapping):
            raise self._fault(key, value, "an object")
        return value

    def _get(self, key: str, default: object) -> object:
        value = self.values.get(key)
        if value is None:
            value = default
        if value is None:
            raise CheckpointError(f"config.json has no {key}, which the model needs")
        return value

    def _fault(self, key: str, value: object, wanted: str) -> CheckpointError:
        return CheckpointError(f"config.json: {key} is {value!r}; it must be {wanted}")
