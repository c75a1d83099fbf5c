"""The environment of child processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from jackfield.config.environment import cache_directory, child_environment, triton_cache


def test_threads_spin_shortly_unless_the_user_says_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    assert child_environment()["GOMP_SPINCOUNT"] == "10000"
    monkeypatch.setenv("GOMP_SPINCOUNT", "7")
    assert child_environment()["GOMP_SPINCOUNT"] == "7"


def test_the_number_of_threads_is_set_only_where_it_is_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert "OMP_NUM_THREADS" not in child_environment()
    assert child_environment(3)["OMP_NUM_THREADS"] == "3"


def test_a_child_inherits_the_environment_but_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_VARIABLE", "some value")
    monkeypatch.setenv("JACKFIELD_API_KEY", "secret")
    environment = child_environment()
    assert environment["SOME_VARIABLE"] == "some value"
    assert "secret" not in environment.values()


def test_caches_of_a_user_without_a_home_are_where_containers_put_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def unknown() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", unknown)
    for name in ("XDG_CACHE_HOME", "TRITON_HOME", "TRITON_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)
    assert cache_directory() == Path("/.cache/jackfield")
    assert triton_cache() == Path("/.triton/cache")


PRODUCTS = """
import ctypes, torch

class Heap(ctypes.Structure):
    names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
    _fields_ = [(name, ctypes.c_size_t) for name in names.split()]

libc = ctypes.CDLL("libc.so.6")
libc.mallinfo2.restype = Heap
torch.set_num_threads(1)
weight = torch.ops.mkldnn._reorder_linear_weight(torch.ones(64, 64), 32)
for num_rows in range(1, 601):
    torch.ops.mkldnn._linear_pointwise(torch.ones(num_rows, 64), weight, None, "none", [], "")
    torch.bmm(torch.ones(2, num_rows, 64), torch.ones(2, 64, 8))
    if num_rows in (200, 600):
        print(libc.mallinfo2().uordblks)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="asks glibc what its heap holds")
def test_products_of_ever_new_shapes_do_not_fill_the_memory() -> None:
    shown = subprocess.run(
        [sys.executable, "-c", PRODUCTS],
        env={**child_environment(), "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        timeout=100,
        check=True,
    ).stdout
    early, late = map(int, shown.split())
    assert late - early < 8 << 20
