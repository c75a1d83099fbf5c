"""Which request owns which KV block, and which blocks hold a prefix that can be used again."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np

from jackfield.contracts.scheduling import SchedulerRequest
from jackfield.contracts.work import BlockSwaps, Int32Array
from jackfield.engine.cache_growth import CacheGrowth
from jackfield.engine.prefix_hash import BlockHash, PrefixHasher
from jackfield.engine.request import Request
from jackfield.engine.swap_space import SwapSpace
from jackfield.errors import ConfigError

NEVER = 2**62
MAX_GIVEN_BACK = 32
"""Blocks at once: of some hundred places in memory each, 0.1 s in all where none are neighbours."""


class BlockManager:
    """Hands out blocks 1 .. ``num_blocks - 1``; block 0 takes the writes of padding.

    A block is free if no request refers to it. Free blocks are taken in this order: the
    most recently freed ones without cached content (their memory is warm), fresh ones, which
    were never used, and last the cached ones, least recently used first. Where fresh blocks cost
    memory, the cached ones come before them from some number on (``CacheGrowth``). A cached block
    stays findable while it is free. Allocating and freeing a block is O(1).

    A block enters the cache (``register``) when it is full, its tokens are known to the host
    and the step that computes it is enqueued: whoever finds it runs in a later step.
    """

    def __init__(
        self,
        num_blocks: int,
        block_size: int,
        hasher: PrefixHasher | None,
        swap_space: SwapSpace | None = None,
        num_first_blocks: int | None = None,
    ) -> None:
        """``num_first_blocks``: see ``KVCapacity``."""
        if num_blocks < 2:
            raise ConfigError(
                f"the KV cache has room for {num_blocks} blocks of {block_size} tokens; "
                "at least 2 are needed: give it more memory"
            )
        self.num_blocks = num_blocks
        self.block_size = block_size
        self.num_queried_tokens = 0
        self.num_hit_tokens = 0
        self._hasher = hasher
        self._swap_space = swap_space
        first = num_blocks if num_first_blocks is None else num_first_blocks
        self._growth = CacheGrowth(num_blocks, first)
        self._refs = [0] * num_blocks
        self._hash_of: list[BlockHash | None] = [None] * num_blocks
        self._block_of: dict[BlockHash, int] = {}
        # Those from this one on were never used; others have given their memory back since.
        self._first_fresh = 1
        self._given_back: list[int] = []
        self._uncached: list[int] = []
        # An OrderedDict is a doubly linked list in C. Hand-made links in Python lists measured the
        # same (0.09 us an operation) and are more code.
        self._cached: OrderedDict[int, None] = OrderedDict()
        self._touched: dict[Request, int] = {}

    # --- what schedulers see (contracts.scheduling.Blocks) -----------------------------

    @property
    def num_free(self) -> int:
        """Blocks that can be allocated, cached ones included."""
        return len(self._uncached) + len(self._cached) + self._num_fresh

    def match(self, request: SchedulerRequest) -> int:
        """Leading tokens of the request that are there; see ``Blocks.match``."""
        assert isinstance(request, Request)
        return max(len(self._find_prefix(request)) * self.block_size, request.num_saved_tokens)

    def admit(self, request: SchedulerRequest, num_tokens: int) -> bool:
        """Cached prefix and room for ``num_tokens`` behind it; see ``Blocks.admit``."""
        assert isinstance(request, Request) and not request.blocks
        prefix = self._find_prefix(request)
        num_cached_tokens = len(prefix) * self.block_size
        num_ready_tokens = max(num_cached_tokens, request.num_saved_tokens)
        num_new = self._num_blocks_for(num_ready_tokens + num_tokens) - len(prefix)
        num_revived = sum(1 for block in prefix if not self._refs[block])
        if num_new > self.num_free - num_revived:
            return False
        for block in prefix:
            if not self._refs[block]:
                del self._cached[block]
            self._refs[block] += 1
        self._growth.missed(request.block_hashes, len(prefix))
        request.blocks = prefix + self._allocate(num_new)
        request.num_block_tokens = len(request.blocks) * self.block_size
        request.num_computed_tokens = num_ready_tokens
        if request.host_blocks:
            self._bring_back(request, len(prefix))
        request.num_registered = len(prefix)
        request.next_full = num_cached_tokens + self.block_size if self._hasher else NEVER
        self._touched[request] = 0
        if not request.first_scheduled:
            self.num_queried_tokens += request.num_tokens
            self.num_hit_tokens += num_cached_tokens
        return True

    def grow(self, request: SchedulerRequest, num_tokens: int) -> bool:
        """Room for ``num_tokens`` more than are computed; see ``Blocks.grow``."""
        assert isinstance(request, Request)
        num_needed = request.num_computed_tokens + num_tokens
        if num_needed <= request.num_block_tokens:
            return True
        num_held = len(request.blocks)
        num_new = self._num_blocks_for(num_needed) - num_held
        if num_new > self.num_free:
            return False
        request.blocks += self._allocate(num_new)
        request.num_block_tokens = (num_held + num_new) * self.block_size
        self._touched.setdefault(request, num_held)
        return True

    def release(self, request: SchedulerRequest) -> None:
        """Takes all blocks of a request that goes on later; what they hold stays in the cache, and
        in the host's memory if there is a swap space."""
        assert isinstance(request, Request)
        if self._swap_space is not None:
            self._save(request, self._swap_space)
        self._take_blocks(request)

    # --- what the step loop sees --------------------------------------------------------

    def free(self, request: Request) -> None:
        """Takes all blocks of a request that computes nothing any more."""
        if request.host_blocks and self._swap_space is not None:
            self._forget_what_comes(request, self._swap_space)
            self._swap_space.drop(request)
        if request.blocks:
            self._take_blocks(request)

    def take_swaps(self) -> BlockSwaps | None:
        """The copies between device and host for the next step."""
        return None if self._swap_space is None else self._swap_space.take()

    def register(self, request: Request) -> None:
        """Puts the request's newly full, known and computed blocks into the prefix cache."""
        if self._hasher is None:
            return
        size = self.block_size
        num_full = min(len(request.token_ids), request.num_computed_tokens) // size
        if num_full <= request.num_registered:
            return
        self._hasher.extend(request.block_hashes, request.token_ids, request.cache_salt)
        for index in range(request.num_registered, num_full):
            block_hash = request.block_hashes[index]
            # Two requests may have computed the same block; the first one stays the cached one.
            if block_hash not in self._block_of:
                block = request.blocks[index]
                self._block_of[block_hash] = block
                self._hash_of[block] = block_hash
        request.num_registered = num_full
        request.next_full = (num_full + 1) * size

    def forget(self, request: Request) -> None:
        """Takes the request's prefix out of the cache: its computation failed, so that its
        blocks may hold anything."""
        for block_hash in request.block_hashes:
            block = self._block_of.pop(block_hash, None)
            if block is not None:
                self._uncache(block)
        request.next_full = NEVER
        request.num_registered = len(request.blocks)

    def reset(self) -> None:
        """Forgets every cached block that no request uses."""
        while self._cached:
            block = next(reversed(self._cached))
            self._drop_hash(block)
            self._uncache(block)
        self._growth.reset()

    def give_back(self) -> Int32Array:
        """int32 [N], rising: some free blocks beyond what the cache may keep; none if there are no
        more. What they hold is forgotten, and their memory may go back to the system."""
        given: list[int] = []
        surplus = self._num_used - self._growth.reach
        while len(given) < min(surplus, MAX_GIVEN_BACK) and (self._uncached or self._cached):
            given.append(self._uncached.pop() if self._uncached else self._evict())
        given.sort()
        self._given_back += reversed(given)
        return np.array(given, dtype=np.int32)

    def take_assignments(self) -> Int32Array:
        """[C, 3] (row, index, block): blocks given out since the last call, for the next step.

        The requests concerned have their rows; one that was released since is not named.
        """
        rows: list[int] = []
        indices: list[int] = []
        blocks: list[int] = []
        for request, first in self._touched.items():
            count = len(request.blocks) - first
            rows += [request.row] * count
            indices += range(first, first + count)
            blocks += request.blocks[first:] if first else request.blocks
        self._touched.clear()
        assignments = np.empty((len(rows), 3), dtype=np.int32)
        if rows:
            assignments[:, 0] = rows
            assignments[:, 1] = indices
            assignments[:, 2] = blocks
        return assignments

    # --- inside -------------------------------------------------------------------------

    @property
    def _num_fresh(self) -> int:
        """Free blocks that hold no memory, where memory is taken by use."""
        return self.num_blocks - self._first_fresh + len(self._given_back)

    @property
    def _num_used(self) -> int:
        """Blocks that hold memory, in use or free."""
        return self.num_blocks - 1 - self._num_fresh

    def _take_blocks(self, request: Request) -> None:
        self.register(request)
        self._growth.held(len(request.blocks))
        refs = self._refs
        # The head of a prefix is worth more than its tail: the tail is evicted first.
        for block in reversed(request.blocks):
            refs[block] -= 1
            if not refs[block]:
                if self._hash_of[block] is None:
                    self._uncached.append(block)
                else:
                    self._cached[block] = None
        request.blocks = []
        request.num_block_tokens = 0
        request.num_computed_tokens = 0
        request.num_registered = 0
        self._touched.pop(request, None)

    def _save(self, request: Request, space: SwapSpace) -> None:
        num_tokens = request.num_computed_tokens
        blocks = request.blocks[: self._num_blocks_for(num_tokens)]
        self._forget_what_comes(request, space)
        space.save(request, blocks, num_tokens)

    def _bring_back(self, request: Request, num_cached: int) -> None:
        """What was saved into the blocks behind the cached ones."""
        space = self._swap_space
        assert space is not None
        if num_cached >= len(request.host_blocks):
            space.drop(request)
        else:
            blocks = request.blocks[num_cached : len(request.host_blocks)]
            space.bring_back(request, num_cached, blocks)

    def _forget_what_comes(self, request: Request, space: SwapSpace) -> None:
        """Blocks that wait for their content must not be taken for cached ones."""
        if space.is_coming_back(request):
            request.num_computed_tokens = request.num_registered * self.block_size

    def _num_blocks_for(self, num_tokens: int) -> int:
        return -(-num_tokens // self.block_size)

    def _find_prefix(self, request: SchedulerRequest) -> list[int]:
        """The cached blocks that the request can start with."""
        assert isinstance(request, Request)
        if self._hasher is None or not self._block_of or not request.uses_prefix_cache:
            return []
        self._hasher.extend(request.block_hashes, request.token_ids, request.cache_salt)
        found: list[int] = []
        block_of = self._block_of
        max_blocks = (request.num_tokens - 1) // self.block_size
        for block_hash in request.block_hashes[:max_blocks]:
            block = block_of.get(block_hash)
            if block is None:
                break
            found.append(block)
        return found

    def _allocate(self, count: int) -> list[int]:
        """``count`` free blocks, now with one reference each; the caller has checked that there
        are as many."""
        taken: list[int] = []
        for _ in range(count):
            if self._uncached:
                block = self._uncached.pop()
            elif self._cached and self._num_used >= self._growth.reach:
                block = self._evict()
            elif self._given_back:
                block = self._given_back.pop()
            else:
                block = self._first_fresh
                self._first_fresh += 1
            self._refs[block] = 1
            taken.append(block)
        # Neighbours in memory, where there are any, in the order of the sequence: the CPU gathers
        # rising blocks nearly twice as fast as shuffled ones.
        taken.sort()
        return taken

    def _evict(self) -> int:
        """The cached block that was not used for the longest time, now without content."""
        block, _ = self._cached.popitem(last=False)
        self._growth.evicted(self._drop_hash(block))
        return block

    def _drop_hash(self, block: int) -> BlockHash:
        block_hash = self._hash_of[block]
        assert block_hash is not None
        del self._block_of[block_hash]
        self._hash_of[block] = None
        return block_hash

    def _uncache(self, block: int) -> None:
        """A block whose name was dropped; if it is free it moves among the plain ones."""
        self._hash_of[block] = None
        if not self._refs[block]:
            del self._cached[block]
            self._uncached.append(block)
