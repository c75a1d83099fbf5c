"""Python's compiled modules, where an installation has none and cannot keep them."""

from __future__ import annotations

import marshal
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from importlib.machinery import (
    BYTECODE_SUFFIXES,
    EXTENSION_SUFFIXES,
    SOURCE_SUFFIXES,
    ExtensionFileLoader,
    FileFinder,
    PathFinder,
    SourceFileLoader,
    SourcelessFileLoader,
)
from importlib.util import MAGIC_NUMBER, cache_from_source
from pathlib import Path
from types import CodeType
from typing import Any

from jackfield.config.environment import cache_directory


def keep_bytecode() -> None:
    """From now on this process looks for compiled modules in jackfield's cache too, and keeps there
    what it has compiled; unless Python's own ways are good enough.

    They are not where torch was installed without compiled modules, as in many images, and none
    may be written beside it or ``PYTHONDONTWRITEBYTECODE`` is set: compiling torch takes 2.3 s.
    """
    if sys.pycache_prefix is not None or not _torch_is_compiled_each_time():
        return
    source = partial(_KeptLoader, cache_directory() / "bytecode")
    hook = FileFinder.path_hook(
        (ExtensionFileLoader, EXTENSION_SUFFIXES),
        (source, SOURCE_SUFFIXES),  # type: ignore[arg-type]
        (SourcelessFileLoader, BYTECODE_SUFFIXES),
    )
    sys.path_hooks.insert(0, hook)
    sys.path_importer_cache.clear()


def _torch_is_compiled_each_time() -> bool:
    torch = PathFinder.find_spec("torch")
    if torch is None or torch.origin is None or torch.cached is None:
        return False
    if os.path.exists(torch.cached):
        return False
    return sys.dont_write_bytecode or not os.access(os.path.dirname(torch.origin), os.W_OK)


class _KeptLoader(SourceFileLoader):
    """Python's, with a second place for compiled modules."""

    def __init__(self, folder: Path, fullname: str, path: str) -> None:
        super().__init__(fullname, path)
        self._folder = folder

    def get_data(self, path: str) -> bytes:
        """A source, or a compiled module: from where Python keeps it, if it does."""
        try:
            return super().get_data(path)
        except OSError:
            if not path.endswith(tuple(BYTECODE_SUFFIXES)):
                raise
        return super().get_data(str(self._place(path)))

    def source_to_code(  # type: ignore[override]
        self, data: Any, path: Any, **options: Any
    ) -> CodeType:
        """Called for a module that is compiled nowhere."""
        code: CodeType = super().source_to_code(data, path, **options)
        # A cache: without the right to write there, or a place, the next start compiles too.
        with suppress(OSError):
            _write(self._place(cache_from_source(path)), _packed(code, self.path_stats(path)))
        return code

    def _place(self, compiled: str) -> Path:
        return self._folder / Path(compiled).absolute().relative_to(Path(compiled).anchor)


def _packed(code: CodeType, stats: Mapping[str, Any]) -> bytes:
    """A module's file as Python reads it (PEP 552, with the source's time and size)."""
    words = (0, int(stats["mtime"]), stats["size"])
    header = b"".join((word & 0xFFFFFFFF).to_bytes(4, "little") for word in words)
    return MAGIC_NUMBER + header + marshal.dumps(code)


def _write(file: Path, data: bytes) -> None:
    """Whole or not at all: other processes compile the same."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f"{file.name}.{os.getpid()}")
    part.write_bytes(data)
    part.replace(file)
