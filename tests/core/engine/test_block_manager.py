"""The block manager against a model of it that is too simple to be wrong."""

from __future__ import annotations

from array import array
from collections import Counter
from itertools import permutations

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from jackfield.contracts.sampling import TokenSampling
from jackfield.engine.block_manager import MAX_GIVEN_BACK, BlockManager
from jackfield.engine.prefix_hash import PrefixHasher
from jackfield.engine.request import Request
from jackfield.errors import ConfigError

BLOCK_SIZE = 4


def make_request(key: int, ids: list[int], cache_salt: str | None = None) -> Request:
    prompt = np.array(ids, dtype="<i4").tobytes()
    return Request(key, prompt, TokenSampling(), 1000, cache_salt=cache_salt)


def make_blocks(num_blocks: int, algorithm: str | None = "sha256") -> BlockManager:
    hasher = PrefixHasher(algorithm, BLOCK_SIZE, "model") if algorithm else None
    return BlockManager(num_blocks, BLOCK_SIZE, hasher)


def make_growing(num_blocks: int, first: int) -> BlockManager:
    """Blocks whose memory is taken by use."""
    hasher = PrefixHasher("sha256", BLOCK_SIZE, "model")
    return BlockManager(num_blocks, BLOCK_SIZE, hasher, None, first)


def compute(blocks: BlockManager, request: Request, num_tokens: int) -> None:
    """What the step loop does once the step is enqueued."""
    request.num_computed_tokens += num_tokens
    blocks.register(request)


def serve(blocks: BlockManager, ids: list[int], key: int = 1) -> list[int]:
    """A request from admission to release; returns the blocks it had."""
    request = make_request(key, ids)
    cached = blocks.match(request)
    assert blocks.admit(request, len(ids) - cached)
    compute(blocks, request, len(ids) - cached)
    held = list(request.blocks)
    blocks.release(request)
    return held


class Machine(RuleBasedStateMachine):
    """Random calls; prompts come from few tokens, so that prefixes meet."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = self.make_blocks()
        self.running: list[Request] = []
        self.count = 0
        self.content: dict[int, tuple[int, ...]] = {}

    def make_blocks(self) -> BlockManager:
        return make_blocks(13)

    def expect_content(self, request: Request) -> None:
        """Every full computed block holds the tokens up to its end, whoever wrote it."""
        for index in range(request.num_computed_tokens // BLOCK_SIZE):
            end = (index + 1) * BLOCK_SIZE
            assert self.content[request.blocks[index]] == tuple(request.token_ids[:end])

    def write_content(self, request: Request, first: int) -> None:
        for index in range(first // BLOCK_SIZE, -(-request.num_computed_tokens // BLOCK_SIZE)):
            end = min((index + 1) * BLOCK_SIZE, request.num_computed_tokens)
            self.content[request.blocks[index]] = tuple(request.token_ids[:end])

    @rule(ids=st.lists(st.integers(0, 1), min_size=1, max_size=30), part=st.integers(1, 30))
    def admit(self, ids: list[int], part: int) -> None:
        self.count += 1
        request = make_request(self.count, ids)
        free = self.blocks.num_free
        cached = self.blocks.match(request)
        assert cached % BLOCK_SIZE == 0 and cached < len(ids)
        num_tokens = min(part, len(ids) - cached)
        if not self.blocks.admit(request, num_tokens):
            assert self.blocks.num_free == free and not request.blocks
            return
        assert request.num_computed_tokens == cached
        self.expect_content(request)
        compute(self.blocks, request, num_tokens)
        self.write_content(request, cached)
        self.running.append(request)

    @precondition(lambda self: self.running)
    @rule(data=st.data(), num_tokens=st.integers(1, 9))
    def grow(self, data: st.DataObject, num_tokens: int) -> None:
        request = data.draw(st.sampled_from(self.running))
        held, free = list(request.blocks), self.blocks.num_free
        request.token_ids.extend(array("i", [self.count % 2] * num_tokens))
        request.num_tokens += num_tokens
        if not self.blocks.grow(request, num_tokens):
            assert request.blocks == held and self.blocks.num_free == free
            return
        assert request.blocks[: len(held)] == held
        first = request.num_computed_tokens
        compute(self.blocks, request, num_tokens)
        self.write_content(request, first)
        self.expect_content(request)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        request = data.draw(st.sampled_from(self.running))
        self.running.remove(request)
        self.blocks.release(request)
        assert request.num_computed_tokens == 0 and not request.blocks

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def fail(self, data: st.DataObject) -> None:
        request = data.draw(st.sampled_from(self.running))
        self.running.remove(request)
        self.blocks.forget(request)
        self.blocks.release(request)

    @rule()
    def reset(self) -> None:
        self.blocks.reset()

    @invariant()
    def references_are_the_tables(self) -> None:
        held = Counter(block for request in self.running for block in request.blocks)
        assert 0 not in held
        assert self.blocks.num_free == self.blocks.num_blocks - 1 - len(held)
        for request in self.running:
            assert len(set(request.blocks)) == len(request.blocks)
            assert request.num_block_tokens >= request.num_computed_tokens

    @invariant()
    def only_full_common_prefixes_are_shared(self) -> None:
        for one, other in permutations(self.running, 2):
            for index, block in enumerate(one.blocks):
                if block in other.blocks:
                    end = (index + 1) * BLOCK_SIZE
                    assert other.blocks[index] == block
                    assert one.token_ids[:end] == other.token_ids[:end]
                    assert end <= min(one.num_computed_tokens, other.num_computed_tokens)

    def teardown(self) -> None:
        for request in self.running:
            self.blocks.release(request)
        assert self.blocks.num_free == self.blocks.num_blocks - 1


class GrowingMachine(Machine):
    """The same where memory is taken by use and given back."""

    def make_blocks(self) -> BlockManager:
        return make_growing(13, 4)

    @rule()
    def give_back(self) -> None:
        free = self.blocks.num_free
        given = self.blocks.give_back().tolist()
        assert given == sorted(set(given)) and self.blocks.num_free == free
        held = {block for request in self.running for block in request.blocks}
        assert not held & set(given)
        for block in given:
            self.content.pop(block, None)


SETTINGS = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestMachine = Machine.TestCase
TestMachine.settings = SETTINGS
TestGrowingMachine = GrowingMachine.TestCase
TestGrowingMachine.settings = SETTINGS


def test_a_released_prefix_is_found_again() -> None:
    blocks = make_blocks(10)
    held = serve(blocks, [1, 2, 3, 4, 5, 6, 7, 8, 9])
    again = make_request(2, [1, 2, 3, 4, 5, 6, 7, 8, 10, 11])
    assert blocks.match(again) == 8
    assert blocks.admit(again, 2)
    assert again.blocks[:2] == held[:2]
    assert again.num_computed_tokens == 8


def test_the_last_token_is_always_computed() -> None:
    blocks = make_blocks(10)
    serve(blocks, [1, 2, 3, 4, 5, 6, 7, 8])
    assert blocks.match(make_request(2, [1, 2, 3, 4, 5, 6, 7, 8])) == 4


def test_an_unknown_token_keeps_its_block_out_of_the_cache() -> None:
    blocks = make_blocks(10)
    request = make_request(1, [1, 2, 3])
    assert blocks.admit(request, 3)
    compute(blocks, request, 3)
    request.num_tokens += 1
    request.num_in_flight += 1
    assert blocks.grow(request, 1)
    compute(blocks, request, 1)
    assert blocks.match(make_request(2, [1, 2, 3, 4, 5])) == 0
    request.token_ids.append(4)
    blocks.register(request)
    assert blocks.match(make_request(3, [1, 2, 3, 4, 5])) == 4


def test_the_least_recently_used_prefix_is_evicted_first_and_from_its_tail() -> None:
    blocks = make_blocks(7)
    old = [1] * 8 + [0]
    new = [2] * 8 + [0]
    serve(blocks, old, 1)
    serve(blocks, new, 2)
    third = make_request(3, [3] * 12)
    assert blocks.admit(third, 12)
    # Six blocks: two plain ones (the tails of old and new share one), four cached ones.
    assert blocks.match(make_request(4, new)) == 8
    assert blocks.match(make_request(5, old)) == 4


def test_using_a_prefix_makes_it_the_last_to_be_evicted() -> None:
    blocks = make_blocks(5)
    serve(blocks, [1] * 5, 1)
    serve(blocks, [2] * 5, 2)
    serve(blocks, [1] * 5, 3)
    taker = make_request(4, [3] * 9)
    assert blocks.admit(taker, 9)
    assert blocks.match(make_request(5, [1] * 5)) == 4
    assert blocks.match(make_request(6, [2] * 5)) == 0


def test_freed_blocks_without_content_are_used_before_untouched_ones() -> None:
    blocks = make_blocks(100, algorithm=None)
    first = serve(blocks, list(range(40)))
    for _ in range(20):
        assert set(serve(blocks, list(range(40)))) == set(first)


def test_cached_prefixes_outlive_untouched_blocks() -> None:
    blocks = make_blocks(10)
    serve(blocks, [1] * 5)
    other = make_request(2, [2] * 28)
    assert blocks.admit(other, 28)
    assert blocks.match(make_request(3, [1] * 5)) == 4


def test_what_was_computed_last_is_cached_at_release() -> None:
    blocks = make_blocks(10)
    request = make_request(1, [1] * 8)
    assert blocks.admit(request, 8)
    request.num_computed_tokens = 8
    blocks.release(request)
    assert blocks.match(make_request(2, [1] * 9)) == 8


def test_salts_do_not_see_each_other() -> None:
    blocks = make_blocks(10)
    salted = make_request(1, [1] * 8, cache_salt="a")
    assert blocks.admit(salted, 8)
    compute(blocks, salted, 8)
    assert blocks.match(make_request(2, [1] * 9)) == 0
    assert blocks.match(make_request(3, [1] * 9, cache_salt="b")) == 0
    assert blocks.match(make_request(4, [1] * 9, cache_salt="a")) == 8


def test_reset_forgets_what_nobody_uses() -> None:
    blocks = make_blocks(10)
    serve(blocks, [1] * 9)
    used = make_request(2, [2] * 9)
    assert blocks.admit(used, 9)
    compute(blocks, used, 9)
    blocks.reset()
    assert blocks.match(make_request(3, [1] * 9)) == 0
    assert blocks.match(make_request(4, [2] * 9)) == 8
    assert blocks.num_free == 9 - 3


def test_assignments_name_each_new_block_once() -> None:
    blocks = make_blocks(10)
    one, two = make_request(1, [1] * 6), make_request(2, [2] * 3)
    one.row, two.row = 5, 6
    assert blocks.admit(one, 6) and blocks.admit(two, 3)
    table = [(5, 0, one.blocks[0]), (5, 1, one.blocks[1]), (6, 0, two.blocks[0])]
    assert list(map(tuple, blocks.take_assignments().tolist())) == table
    compute(blocks, one, 6)
    assert blocks.grow(one, 2)
    assert blocks.take_assignments().shape == (0, 3)
    assert blocks.grow(one, 3)
    assert blocks.take_assignments().tolist() == [[5, 2, one.blocks[2]]]


def test_assignments_of_a_released_request_are_dropped() -> None:
    blocks = make_blocks(10)
    request = make_request(1, [1] * 6)
    assert blocks.admit(request, 6)
    blocks.release(request)
    assert len(blocks.take_assignments()) == 0


def test_a_cache_of_one_block_is_refused() -> None:
    with pytest.raises(ConfigError, match="memory"):
        make_blocks(1)


def test_unknown_hash_is_refused() -> None:
    with pytest.raises(ConfigError, match="md5"):
        make_blocks(10, "md5")


def test_blocks_given_out_together_rise() -> None:
    blocks = make_blocks(20)
    for key in range(3):
        serve(blocks, list(range(100 * key, 100 * key + 23)), key)
    held = serve(blocks, list(range(1000, 1023)), key=9)
    assert held == sorted(held)


def prompt(number: int, num_blocks: int = 2) -> list[int]:
    """Tokens of ``num_blocks`` full blocks and one more token; no other number's prefix."""
    return [number] * (num_blocks * BLOCK_SIZE + 1)


def test_prompts_that_never_come_back_take_no_more_memory_than_the_first_ones() -> None:
    blocks = make_growing(1000, 20)
    used: set[int] = set()
    for number in range(200):
        used |= set(serve(blocks, prompt(number), number))
    assert len(used) == 20
    # The last of them are still there.
    assert blocks.match(make_request(1000, prompt(199))) == 8


def test_running_requests_have_what_they_need_whatever_the_first_blocks_are() -> None:
    blocks = make_growing(100, 4)
    requests = [make_request(number, prompt(number)) for number in range(33)]
    assert all(blocks.admit(request, 9) for request in requests)
    assert blocks.num_free == 0


def test_prefixes_that_come_back_after_they_were_evicted_are_kept_from_then_on() -> None:
    blocks = make_growing(1000, 20)
    computed = []
    for _ in range(4):
        before = blocks.num_hit_tokens
        for number in range(50):
            serve(blocks, prompt(number), number)
        computed.append(50 * 8 - (blocks.num_hit_tokens - before))
    # Least recently used first: a cycle longer than the cache finds nothing, once.
    assert computed[0] == 400
    assert computed[-1] == 0


def test_a_conversation_finds_its_last_turn_after_a_rest() -> None:
    blocks = make_growing(1000, 10)
    ids = prompt(0, 40)
    serve(blocks, ids)
    assert len(blocks.give_back()) == 0
    ids += prompt(1, 5)
    request = make_request(2, ids)
    assert blocks.match(request) == 40 * BLOCK_SIZE


def test_a_rest_gives_back_what_a_crowd_needed_and_keeps_the_newest_prefixes() -> None:
    blocks = make_growing(1000, 20)
    crowd = [make_request(number, prompt(number)) for number in range(50)]
    for request in crowd:
        assert blocks.admit(request, 9)
        compute(blocks, request, 9)
    used = {block for request in crowd for block in request.blocks}
    for request in crowd:
        blocks.release(request)
    given: list[int] = []
    while len(piece := blocks.give_back()):
        assert piece.dtype == np.int32 and 0 < len(piece) <= MAX_GIVEN_BACK
        given += piece.tolist()
    assert len(given) == len(set(given)) == 150 - 20 and set(given) < used
    assert blocks.num_free == 999
    assert blocks.match(make_request(1000, prompt(49))) == 8
    assert blocks.match(make_request(1001, prompt(0))) == 0
    # Memory is taken again where it was before.
    again = [make_request(2000 + number, prompt(2000 + number)) for number in range(50)]
    assert all(blocks.admit(request, 9) for request in again)
    assert {block for request in again for block in request.blocks} == used


def test_a_reset_forgets_what_was_evicted_too() -> None:
    blocks = make_growing(1000, 20)
    for number in range(50):
        serve(blocks, prompt(number), number)
    blocks.reset()
    used: set[int] = set()
    for number in range(50):
        used |= set(serve(blocks, prompt(number), number))
    assert len(used) == 20


def test_memory_that_was_taken_once_for_all_is_never_given_back() -> None:
    blocks = make_blocks(100)
    for number in range(20):
        serve(blocks, prompt(number), number)
    assert len(blocks.give_back()) == 0
