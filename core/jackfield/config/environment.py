"""The environment of child processes: the parent's, and threads that wait without spinning."""

from __future__ import annotations

import os

# OpenMP workers that spin between two operators take the cores from everything else: one
# contended decode step took 644 ms with GNU OpenMP's default, 78 ms with a short spin.
_DEFAULTS = {
    "GOMP_SPINCOUNT": "2000",
    "KMP_BLOCKTIME": "0",
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
