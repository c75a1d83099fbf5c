"""Kernels compiled ahead, by threads and by processes of their own: the same kernels."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional

from jackfield.compute.kernels import precompile as precompile_module
from jackfield.compute.kernels.precompile import Precompiler

VARIANTS = Counter({"_rms_norm_kernel": 2, "_hopper_kernel": 1})


def precompile(cache: Path, *arguments: str) -> tuple[dict[str, object], str]:
    """What a new process that compiles into ``cache`` says, and what it logs."""
    command = [sys.executable, "-m", "tests.core.compute.kernels.precompiled", *arguments]
    environment = {**os.environ, "TRITON_CACHE_DIR": str(cache)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said: dict[str, object] = json.loads(done.stdout)
    return said, done.stderr


def binaries(cache: Path) -> dict[str, bytes]:
    return {str(file.relative_to(cache)): file.read_bytes() for file in cache.glob("*/*.cubin")}


@pytest.fixture(scope="module")
def by_threads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    cache = tmp_path_factory.mktemp("threads")
    said, log = precompile(cache, "0")
    assert Counter(said["compiled"]) == VARIANTS  # type: ignore[call-overload]
    assert not said["found"] and not log
    return cache


def test_processes_compile_the_same_kernels_under_the_same_keys(
    by_threads: Path, tmp_path: Path
) -> None:
    said, log = precompile(tmp_path, "2")
    assert Counter(said["found"]) == VARIANTS  # type: ignore[call-overload]
    assert not said["compiled"] and not log
    assert Counter(said["launchers"]) == VARIANTS  # type: ignore[call-overload]
    assert binaries(tmp_path) == binaries(by_threads)
    assert len(binaries(tmp_path)) == 3


def test_what_is_in_the_cache_is_loaded_without_waiting_for_a_compiler(by_threads: Path) -> None:
    said, log = precompile(by_threads, "2", "ended")
    assert Counter(said["found"]) == VARIANTS and not log  # type: ignore[call-overload]
    assert not said["launchers"]


def test_what_compilers_do_not_compile_is_compiled_here_and_told(tmp_path: Path) -> None:
    said, log = precompile(tmp_path, "2", "ended")
    assert Counter(said["compiled"]) == VARIANTS  # type: ignore[call-overload]
    assert log.count("its compiler does not answer") == 2


def test_layers_of_the_same_shape_derive_a_variant_once(by_threads: Path) -> None:
    said, _ = precompile(by_threads, "0")
    assert said["keys"] == sum(VARIANTS.values())


def test_a_compiler_that_hangs_is_given_up(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(precompile_module, "_PATIENCE_SECONDS", 0.05)
    monkeypatch.setattr(precompile_module, "pack", lambda *parts: b"a variant")
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        compilers = precompile_module.Compilers([ours.fileno()])
        for _ in range(2):
            compilers.compile(SimpleNamespace(name="slow_kernel"), None, {})
        compilers.close()
        assert theirs.recv(100) == b"a variant"
        # Asked once; what it answers later is for nobody.
        theirs.setblocking(False)
        with pytest.raises(BlockingIOError):
            theirs.recv(100)
    assert [record.message for record in caplog.records] == [
        "kernel slow_kernel is compiled by the engine itself: its compiler does not answer"
    ]


def test_a_launch_before_all_are_ready_waits_for_its_kernel_only(tmp_path: Path) -> None:
    said, log = precompile(tmp_path, "2", "launch")
    assert said["launched"] == ["_rms_norm_kernel"] and not log


def test_products_of_many_rows_are_not_computed_while_tracing() -> None:
    precompiler = Precompiler()
    few, many, weight = torch.ones(4, 8), torch.ones(3000, 8), torch.ones(6, 8)
    with precompiler.tracing():
        assert (functional.linear(few, weight) == 8).all()
        assert functional.linear(many, weight).shape == (3000, 6)
        # What is not computed is not looked at either.
        assert functional.linear(many, torch.ones(6, 5)).shape == (3000, 6)
        sums = torch.ones(3000, 6)
        assert (torch.addmm(sums[:4], few, weight.t(), out=sums[:4]) == 9).all()
        assert torch.addmm(sums, many, torch.ones(5, 6), out=sums) is sums
        assert torch.addmm(sums[:4], mat1=few, mat2=weight.t(), beta=0).eq(8).all()
        assert functional.linear(bias=None, weight=weight, input=few).eq(8).all()
    precompiler.finish()
    assert (torch.addmm(sums, many, weight.t(), out=sums)[5:] == 9).all()
    assert (functional.linear(many, weight) == 8).all()


KEYS = """
import json, sys
from jackfield.compute.kernels import (
    decode_attention_kernel,
    hopper_attention,
    prefill_attention,
)
from jackfield.compute.kernels.variant import cache_key

kernels = {
    "decode": decode_attention_kernel.decode_kernel.kernel,
    "prefill": prefill_attention._prefill_kernel.kernel,
    "hopper": hopper_attention._hopper_kernel.kernel,
}
print(json.dumps({name: cache_key(kernels[name]) for name in sys.argv[1:]}))
"""


def test_a_kernels_key_does_not_depend_on_which_was_asked_for_before() -> None:
    def keys(*names: str) -> dict[str, str]:
        environment = {**os.environ, "TRITON_INTERPRET": "0"}
        command = [sys.executable, "-c", KEYS, *names]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        found: dict[str, str] = json.loads(done.stdout)
        return found

    assert keys("decode", "prefill", "hopper") == keys("hopper", "prefill", "decode")
