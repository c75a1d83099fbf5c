"""How far a KV cache grows whose memory is taken from the system as it is used: the CPU's."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from jackfield.engine.prefix_hash import BlockHash


class CacheGrowth:
    """``reach``: so many blocks may hold memory before free cached ones are used again in the
    place of fresh ones.

    It rises where that would have helped: by a prefix that was evicted and comes back, and to
    twice the longest request, so that a conversation finds its last turn. Running requests have
    whatever they need; what is beyond the reach afterwards goes back to the system when the
    engine rests.
    """

    def __init__(self, num_blocks: int, first: int) -> None:
        """Of ``num_blocks`` blocks, block 0 among them, ``first`` may hold memory at once."""
        self._most = num_blocks - 1
        self.reach = min(first, self._most)
        self._evicted: OrderedDict[BlockHash, None] = OrderedDict()

    def evicted(self, block_hash: BlockHash) -> None:
        """A cached block was lost. Those are remembered that a cache of full size would have."""
        self._evicted[block_hash] = None
        if len(self._evicted) > self._most - self.reach:
            self._evicted.popitem(last=False)

    def missed(self, block_hashes: Sequence[BlockHash], num_found: int) -> None:
        """A request asked for the prefix of these blocks, of which only the first were found."""
        while num_found < len(block_hashes) and block_hashes[num_found] in self._evicted:
            del self._evicted[block_hashes[num_found]]
            num_found += 1
            self.reach = min(self.reach + 1, self._most)

    def held(self, num_blocks: int) -> None:
        """A request had so many blocks in the end."""
        self.reach = max(self.reach, min(2 * num_blocks, self._most))

    def reset(self) -> None:
        """What was evicted must not be found again."""
        self._evicted.clear()
