"""Which device ``auto`` is."""

from __future__ import annotations

from typing import Any

import pytest

from jackfield.errors import ConfigError
from jackfield.planning.device import ACCELERATOR, HOST, DeviceDefaults, choose_platform
from jackfield.registry import PluginEntry, Registry


class Installed(Registry):
    """A registry of platforms (name, distribution, steps in flight, available)."""

    def __init__(self, *platforms: tuple[str, str, int, bool]) -> None:
        super().__init__()
        self._platforms = platforms

    def list(self, kind: str) -> list[PluginEntry]:
        return [PluginEntry(kind, name, owner, "1", "m:C") for name, owner, *_ in self._platforms]

    def load_entry(self, entry: PluginEntry) -> type[Any]:
        for name, owner, steps, there in self._platforms:
            if name == entry.name:
                assert owner == "jackfield", "what nobody chose must not be imported"
                body = {
                    "steps_in_flight": steps,
                    "available": classmethod(lambda cls, there=there: there),
                }
                return type("Platform", (), body)
        raise AssertionError


@pytest.mark.parametrize(
    ("accelerator_is_there", "name", "defaults"),
    [(True, "fast", ACCELERATOR), (False, "plain", HOST)],
)
def test_auto_is_the_accelerator_if_there_is_one(
    accelerator_is_there: bool, name: str, defaults: DeviceDefaults
) -> None:
    registry = Installed(
        ("plain", "jackfield", 1, True),
        ("fast", "jackfield", 2, accelerator_is_there),
        ("foreign", "acme", 2, True),
    )
    assert choose_platform("auto", registry) == (name, defaults)


def test_a_machine_without_any_device_is_refused() -> None:
    with pytest.raises(ConfigError, match="--device"):
        choose_platform("auto", Installed(("plain", "jackfield", 1, False)))
