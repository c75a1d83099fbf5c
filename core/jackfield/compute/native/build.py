"""Compiles the C files of this folder for this very processor, once; then they are in a cache."""

from __future__ import annotations

import ctypes
import hashlib
import logging
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from jackfield.config.environment import cache_directory

log = logging.getLogger(__name__)

_SOURCES = sorted(Path(__file__).parent.glob("*.[ch]"))
_ALONE = ("attend_prompts", "linear_codes", "linear_codes_tiles")
"""Libraries of their own: they take long to compile, and few models need them."""
_COMPILERS = ("cc", "gcc", "clang")
_FLAGS = (
    *("-O3", "-march=native", "-std=gnu11", "-fPIC", "-fopenmp"),
    # What lets a sum be taken in any order and a rounding be a vector instruction; NaN and
    # infinities keep their meaning.
    *("-fno-math-errno", "-fno-trapping-math", "-fassociative-math", "-fno-signed-zeros"),
)
_DEADLINE_SECONDS = 180.0
_MAPS = Path("/proc/self/maps")
_OPENMP_RUNTIMES = ("libgomp", "libiomp5", "libomp")


class CannotBuild(Exception):
    """There is no native library on this machine; the message says why, in a few words."""


def load_library(definitions: Sequence[str], alone: str | None = None) -> ctypes.CDLL:
    """The library, compiled with ``definitions`` (``-D`` names) if it is not in the cache yet;
    ``alone``: of this source, None: of all that have none of their own.

    The threads are those of torch's own OpenMP, whose symbols the library takes: with another
    runtime beside it two pools of threads would wait for each other's cores.
    """
    runtime = _openmp_runtime()
    ctypes.CDLL(runtime, mode=ctypes.RTLD_GLOBAL)
    compiler = next(filter(None, map(shutil.which, _COMPILERS)), None)
    if compiler is None:
        raise CannotBuild("there is no C compiler (cc, gcc or clang)")
    sources = [
        source
        for source in _SOURCES
        if source.suffix == ".c" and (source.stem if source.stem in _ALONE else None) == alone
    ]
    path = cache_directory() / "native" / f"{_key(compiler, definitions, sources)}.so"
    if not path.exists():
        _compile(compiler, definitions, sources, path)
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise CannotBuild(f"{path} cannot be loaded: {error}") from None


def _openmp_runtime() -> str:
    if _MAPS.exists():
        for line in _MAPS.read_text().splitlines():
            path = line.rpartition(" ")[2]
            if Path(path).name.startswith(_OPENMP_RUNTIMES):
                return path
    raise CannotBuild("torch has no OpenMP runtime in this process")


def _key(compiler: str, definitions: Sequence[str], sources: Sequence[Path]) -> str:
    # ``-march=native`` means another processor on another machine with the same home directory.
    version = subprocess.run([compiler, "--version"], capture_output=True, check=False).stdout
    flags = " ".join((*_FLAGS, *definitions, *(source.name for source in sources))).encode()
    parts = (*(source.read_bytes() for source in _SOURCES), version, flags, _cpu())
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:32]


def _cpu() -> bytes:
    try:
        lines = Path("/proc/cpuinfo").read_bytes().splitlines()
    except OSError:
        return platform.machine().encode()
    return b"\n".join(line for line in lines[:40] if line.startswith((b"model", b"flags", b"Feat")))


def _compile(
    compiler: str, definitions: Sequence[str], sources: Sequence[Path], path: Path
) -> None:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as directory:
            compile_one = partial(_run, compiler, *_FLAGS, *definitions, "-c", directory=directory)
            with ThreadPoolExecutor() as pool:
                list(pool.map(compile_one, map(str, sources)))
            objects = [f"{source.stem}.o" for source in sources]
            # Without -fopenmp here: the runtime is the one that is in the process already.
            _run(compiler, "-shared", *objects, "-o", "library.so", "-lm", directory=directory)
            # Another process may be building the same: whoever comes last replaces an equal file.
            (Path(directory) / "library.so").replace(path)
    except OSError as error:
        raise CannotBuild(f"the library cannot be kept in {path.parent}: {error}") from None


def _run(*command: str, directory: str) -> None:
    try:
        done = subprocess.run(
            command,
            cwd=directory,
            capture_output=True,
            text=True,
            timeout=_DEADLINE_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise CannotBuild(f"{command[0]} took more than {_DEADLINE_SECONDS:g} s") from None
    if done.returncode != 0:
        log.debug("%s failed:\n%s", command[0], done.stderr)
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise CannotBuild(f"{command[0]}: {lines[0]}")
