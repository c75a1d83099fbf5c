"""Which device ``auto`` is."""

from __future__ import annotations

from typing import Any

import pytest
from tests.core.planning.conftest import Plan

from jackfield.config.settings import make_settings
from jackfield.errors import ConfigError
from jackfield.planning.device import (
    ACCELERATOR,
    HOST,
    DeviceDefaults,
    StepLimits,
    choose_platform,
    step_limits,
)
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


@pytest.mark.parametrize(
    ("defaults", "options", "limits"),
    [
        (ACCELERATOR, {}, StepLimits(256, 4096, 16384)),
        (ACCELERATOR, {"max_num_seqs": 8}, StepLimits(8, 4096, 16384)),
        (ACCELERATOR, {"max_num_batched_tokens": 2048}, StepLimits(256, 2048, 2048)),
        (ACCELERATOR, {"enable_chunked_prefill": False}, StepLimits(256, 32768, 32768)),
        (HOST, {}, StepLimits(64, 1024, 1024)),
    ],
)
def test_a_prompt_that_is_alone_has_long_steps_unless_their_size_was_asked_for(
    defaults: DeviceDefaults, options: dict[str, Any], limits: StepLimits
) -> None:
    settings = make_settings({"model": "m", **options})
    assert step_limits(settings, defaults, 32768) == limits


def test_a_lone_step_has_no_more_tokens_than_the_context() -> None:
    assert step_limits(make_settings({"model": "m"}), ACCELERATOR, 8000) == StepLimits(
        256, 4096, 8000
    )
    assert step_limits(make_settings({"model": "m"}), ACCELERATOR, 2000) == StepLimits(
        256, 4096, 4096
    )


def test_weights_stay_in_the_hosts_memory_only_where_the_device_has_its_own(plan: Plan) -> None:
    worker = plan(cpu_offload_gb=1.5, device="accelerator").engine.worker
    assert worker.cpu_offload_bytes == 3 << 29
    assert plan(cpu_offload_gb=0).engine.worker.cpu_offload_bytes == 0
    with pytest.raises(ConfigError, match=r"-offload-gb 1\.5: platform 'host' computes in"):
        plan(cpu_offload_gb=1.5)
