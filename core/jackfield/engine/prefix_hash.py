"""Names for cached prefixes: a chain of hashes, one for each full block of tokens.

A block's hash covers everything before it, the model and the request's ``cache_salt``, so
that equal hashes mean equal keys and values. With ``sha256`` nobody can make two prefixes
collide. ``builtin`` is several times faster but only 64 bits wide: two prefixes meet by
accident about once in 2**32 blocks, and the loser then reads the other's KV. ``xxhash`` is 128
bits wide, which no accident meets, but whoever tries can. Both are for engines whose clients trust
each other.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from hashlib import sha256
from typing import Final

from jackfield.errors import ConfigError

BlockHash = bytes | int


def _link_sha256(parent: BlockHash, tokens: bytes) -> BlockHash:
    assert isinstance(parent, bytes)
    return sha256(parent + tokens).digest()


def _link_builtin(parent: BlockHash, tokens: bytes) -> BlockHash:
    return hash((parent, tokens))


def _xxhash() -> Link:
    try:
        from xxhash import xxh3_128_digest  # an extra
    except ImportError:
        raise ConfigError(
            "--prefix-caching-hash-algo xxhash needs the package xxhash: "
            "pip install 'jackfield[xxhash]'"
        ) from None

    def link(parent: BlockHash, tokens: bytes) -> BlockHash:
        assert isinstance(parent, bytes)
        digest: bytes = xxh3_128_digest(parent + tokens)
        return digest

    return link


Link = Callable[[BlockHash, bytes], BlockHash]
LINKS: Final[dict[str, Callable[[], Link]]] = {
    "builtin": lambda: _link_builtin,
    "sha256": lambda: _link_sha256,
    "xxhash": _xxhash,
}
"""What gives the function that hashes a block's tokens behind those before it."""


class PrefixHasher:
    """Hashes blocks of ``block_size`` tokens for one model."""

    def __init__(self, algorithm: str, block_size: int, model: str) -> None:
        if algorithm not in LINKS:
            raise ConfigError(
                f"unknown prefix caching hash {algorithm!r}; choose one of {', '.join(LINKS)}"
            )
        self._link = LINKS[algorithm]()
        self._block_size = block_size
        self._model = model

    def extend(
        self, hashes: list[BlockHash], token_ids: array[int], cache_salt: str | None
    ) -> None:
        """Appends the hashes of the full blocks of ``token_ids`` that ``hashes`` lacks.

        O(new blocks); each block is hashed once in the life of its request.
        """
        size = self._block_size
        num_full = len(token_ids) // size
        if len(hashes) >= num_full:
            return
        parent = hashes[-1] if hashes else self._root(cache_salt)
        new = token_ids[len(hashes) * size : num_full * size].tobytes()
        step = size * token_ids.itemsize
        link = self._link
        for start in range(0, len(new), step):
            parent = link(parent, new[start : start + step])
            hashes.append(parent)

    def _root(self, cache_salt: str | None) -> bytes:
        # repr keeps (model, salt) unambiguous: quotes inside are escaped, None is no string.
        return sha256(repr((self._model, cache_salt)).encode()).digest()
