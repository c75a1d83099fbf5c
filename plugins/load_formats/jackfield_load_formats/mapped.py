"""Files that are mapped: each tensor is a view of the page cache, read once, in file order.

The mapping is private: no write can reach the file.
"""

from __future__ import annotations

import mmap
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Protocol, TypeVar

from torch import Tensor

from jackfield.contracts.loading import CheckpointFiles
from jackfield_load_formats.progress import progress

# A private mapping that is not reserved may be larger than the machine's memory. The mmap module
# of some Python versions does not have the name; the value is Linux's, on every architecture
# that torch is built for.
_MAP_NORESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000 if sys.platform == "linux" else 0)
_READ_AHEAD_BYTES = 64 << 20


class Stored(Protocol):
    """Where a tensor is: bytes ``begin`` .. ``end`` of its file."""

    @property
    def begin(self) -> int: ...

    @property
    def end(self) -> int: ...


Entry = TypeVar("Entry", bound=Stored)


def read_mapped(
    headers: Mapping[Path, Mapping[str, Entry]],
    files: CheckpointFiles,
    view: Callable[[Path, mmap.mmap, str, Entry], Tensor],
) -> Iterator[tuple[str, Entry, Tensor]]:
    """Every tensor of the files, in their order; as many are read ahead as ``files`` allows.

    ``view`` makes a tensor of the mapped file's bytes.
    """
    total = sum(entry.end - entry.begin for h in headers.values() for entry in h.values())
    stop = threading.Event()
    # Threads take the next file from one iterator, whose ``next`` is atomic.
    paths = iter(tuple(headers))
    readers = [
        threading.Thread(target=_read_ahead, args=(paths, stop), name="read-ahead", daemon=True)
        for _ in range(min(files.max_parallel or 1, len(headers)))
    ]
    for reader in readers:
        reader.start()
    try:
        with progress(total, files.show_progress) as advance:
            for path, entries in headers.items():
                mapped = _map(path)
                for name, entry in entries.items():
                    yield name, entry, view(path, mapped, name, entry)
                    _let_go(mapped, entry)
                    advance(entry.end - entry.begin)
    finally:
        stop.set()
        for reader in readers:
            reader.join()


def _map(path: Path) -> mmap.mmap:
    with path.open("rb") as stream:
        return mmap.mmap(
            stream.fileno(),
            0,
            flags=mmap.MAP_PRIVATE | _MAP_NORESERVE,
            prot=mmap.PROT_READ | mmap.PROT_WRITE,
        )


def _let_go(mapped: mmap.mmap, entry: Stored) -> None:
    """The tensor's pages no longer count as this process's memory. They stay in the page cache,
    and one that a layer still looks at comes back when it does."""
    if not hasattr(mmap, "MADV_DONTNEED"):
        return
    begin = -(-entry.begin // mmap.PAGESIZE) * mmap.PAGESIZE
    length = entry.end // mmap.PAGESIZE * mmap.PAGESIZE - begin
    if length > 0:
        mapped.madvise(mmap.MADV_DONTNEED, begin, length)


def _read_ahead(paths: Iterator[Path], stop: threading.Event) -> None:
    """Asks for the files in large pieces, ahead of the page faults that would ask for little."""
    if not hasattr(os, "posix_fadvise"):
        return
    for path in paths:
        with path.open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            for begin in range(0, size, _READ_AHEAD_BYTES):
                if stop.is_set():
                    return
                os.posix_fadvise(stream.fileno(), begin, _READ_AHEAD_BYTES, os.POSIX_FADV_WILLNEED)
