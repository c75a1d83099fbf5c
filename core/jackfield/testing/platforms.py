"""The laws of a platform. Subclass ``PlatformContract`` in a test file::

class TestMine(PlatformContract):
    platform = MyPlatform
"""

from __future__ import annotations

import time
from typing import ClassVar

import pytest
import torch

from jackfield.contracts.platform import Platform
from jackfield.registry import Registry
from jackfield.testing.plugins import assert_conforms
from jackfield.testing.text_streams import assert_imports_no_torch

LONGEST_DETECTION_SECONDS = 1.0


class PlatformContract:
    """Laws that hold for every platform; those of a device are skipped where there is none."""

    platform: ClassVar[type[Platform]]

    def test_the_registry_takes_it(self) -> None:
        assert_conforms("platforms", type(self).platform)

    def test_importing_it_does_not_import_torch(self) -> None:
        assert_imports_no_torch(self.platform.__module__)

    def test_detection_is_cheap(self) -> None:
        begin = time.monotonic()
        assert isinstance(self.platform.available(), bool)
        assert time.monotonic() - begin < LONGEST_DETECTION_SECONDS

    def test_it_says_how_steps_are_run(self) -> None:
        assert 1 <= self.platform.steps_in_flight <= 8
        name = self.platform.default_attention_backend
        assert Registry().offers("attention_backends", name), f"nobody offers {name!r}"

    def test_its_device_computes_and_its_memory_is_known(self) -> None:
        if not self.platform.available():
            pytest.skip("this machine has no such device")
        platform = self.platform()
        prepare = getattr(self.platform, "prepare", None)
        if prepare is not None:
            prepare()
        device = platform.device(0)
        assert int(torch.ones(3, device=device).sum()) == 3
        free, total = platform.memory(device)
        assert 0 < free <= total
