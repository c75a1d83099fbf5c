"""The one mutable object of the engine: a request, its tokens and what it holds."""

from __future__ import annotations

from array import array

from jackfield.contracts.sampling import TokenSampling
from jackfield.engine.constraint import Constraint
from jackfield.engine.prefix_hash import BlockHash

NO_ROW = -1


class Request:
    """A sequence from ``take_in`` to its end. Changed by the step loop and the block manager only.

    ``token_ids`` holds the tokens the host knows (prompt, then output), as int32;
    ``num_tokens`` counts those still in flight too. A growing ``array`` and not a numpy buffer:
    its append is what every token of every request costs.
    """

    __slots__ = (
        "arrival",
        "block_hashes",
        "blocks",
        "cache_salt",
        "constraint",
        "ended",
        "first_scheduled",
        "given",
        "host_blocks",
        "in_scheduler",
        "key",
        "max_num_tokens",
        "min_num_tokens",
        "next_full",
        "next_prompt_logprob",
        "num_block_tokens",
        "num_cached_tokens",
        "num_computed_tokens",
        "num_in_flight",
        "num_prompt_tokens",
        "num_registered",
        "num_saved_tokens",
        "num_tokens",
        "priority",
        "row",
        "sampling",
        "stop_token_ids",
        "token_ids",
        "user",
        "uses_prefix_cache",
    )

    def __init__(
        self,
        key: int,
        prompt: bytes,
        sampling: TokenSampling,
        max_tokens: int,
        *,
        arrival: float = 0.0,
        priority: int = 0,
        cache_salt: str | None = None,
        user: str | None = None,
    ) -> None:
        self.key = key
        self.priority = priority
        self.arrival = arrival
        self.sampling = sampling
        self.cache_salt = cache_salt
        self.user = user
        self.token_ids = array("i", prompt)
        self.num_prompt_tokens = len(self.token_ids)
        self.num_tokens = self.num_prompt_tokens
        self.num_computed_tokens = 0
        self.num_in_flight = 0
        self.max_num_tokens = self.num_prompt_tokens + max_tokens
        self.stop_token_ids = frozenset(sampling.stop_token_ids)
        self.min_num_tokens = self.num_prompt_tokens + sampling.min_tokens
        """A stop token counts from this many tokens on."""
        self.constraint: Constraint | None = None
        """What its grammar allows, once that is compiled."""
        self.given: list[int] = []
        """Ids behind those in flight, which no step samples: a grammar forces them. They count
        in ``num_tokens``, and are among the known once those in flight have arrived."""
        self.row = NO_ROW
        self.in_scheduler = False
        self.ended = False
        self.first_scheduled = 0.0
        """Monotonic seconds; 0.0 until it happened."""
        self.num_cached_tokens = 0
        self.next_prompt_logprob = 1
        """The first prompt position whose logprobs have not gone out yet."""
        # A cached prefix is not computed, so it would have no logprobs.
        self.uses_prefix_cache = sampling.prompt_logprobs is None
        # The block manager's part.
        self.blocks: list[int] = []
        self.num_block_tokens = 0
        """How many tokens ``blocks`` have room for."""
        self.block_hashes: list[BlockHash] = []
        self.num_registered = 0
        """Leading blocks that need not be put into the prefix cache any more."""
        self.host_blocks: list[int] = []
        """What the host's memory has of it, by index in the sequence."""
        self.num_saved_tokens = 0
        """How many leading tokens those hold."""
        self.next_full = 0
        """The number of known tokens at which one more block can be put there."""
