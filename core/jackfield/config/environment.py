"""The environment: what child processes get of it, and where it says that caches live."""

from __future__ import annotations

import os
from pathlib import Path

_DEFAULTS = {
    # OpenMP workers that spin between two operators take the cores from everything else: with
    # GNU OpenMP's default a contended decode step took 644 ms instead of 78. Without any spin
    # they sleep between all operators: some 0.2 ms is as long as the gaps within a layer, and
    # saves a fifth of a decode step of one request (docs/performance-cpu.md).
    "GOMP_SPINCOUNT": "10000",
    "KMP_BLOCKTIME": "0",
    # Code for one shape of a matrix product is up to 0.6 MiB. oneDNN would keep that of 1,024
    # shapes, and torch, in caches of its own before oneDNN's, of 1,024 for each kind of product.
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "256",
    "LRU_CACHE_CAPACITY": "128",
    "TOKENIZERS_PARALLELISM": "false",
}
# Keys belong to the HTTP server; what an engine needs to know stands in its plan.
_SECRETS = ("JACKFIELD_API_KEY",)


def child_environment(num_threads: int = 0) -> dict[str, str]:
    """The whole environment for a child that computes with ``num_threads`` threads (0: as many as
    the libraries choose). What the user set already is left as it is."""
    environment = {**_DEFAULTS, **os.environ}
    for name in _SECRETS:
        environment.pop(name, None)
    if num_threads > 0:
        environment["OMP_NUM_THREADS"] = str(num_threads)
    return environment


def encode_in_one_thread() -> None:
    """Tells the tokenizers library to use no threads of its own in this process, as it does in
    children, unless the user has said something: texts come one by one."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", _DEFAULTS["TOKENIZERS_PARALLELISM"])


def cache_directory() -> Path:
    """Where what can be made again is kept (XDG Base Directory Specification); may not exist."""
    base = os.environ.get("XDG_CACHE_HOME") or _home() / ".cache"
    return Path(base) / "jackfield"


def _home() -> Path:
    """Of a user whom the system does not know, ``/``, as container runtimes have it."""
    try:
        return Path.home()
    except RuntimeError:
        return Path("/")


def triton_cache() -> Path:
    """Where Triton keeps compiled kernels (its ``TRITON_CACHE_DIR`` and ``TRITON_HOME``); may not
    exist."""
    home = os.environ.get("TRITON_HOME") or _home()
    return Path(os.environ.get("TRITON_CACHE_DIR") or Path(home) / ".triton" / "cache")


def client_api_key() -> str | None:
    """The key that terminal clients send unless one is given."""
    return os.environ.get("JACKFIELD_API_KEY") or os.environ.get("OPENAI_API_KEY")
