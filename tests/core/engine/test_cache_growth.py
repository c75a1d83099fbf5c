"""How far a KV cache may grow that takes memory as it helps."""

from __future__ import annotations

from jackfield.engine.cache_growth import CacheGrowth


def hashes(*numbers: int) -> list[bytes]:
    return [bytes([number]) for number in numbers]


def test_it_begins_with_what_it_may_and_never_goes_beyond_the_blocks_that_there_are() -> None:
    assert CacheGrowth(100, 10).reach == 10
    growth = CacheGrowth(100, 200)
    assert growth.reach == 99
    growth.held(80)
    assert growth.reach == 99


def test_twice_the_longest_request_stays() -> None:
    growth = CacheGrowth(100, 10)
    for num_blocks, reach in ((4, 10), (5, 10), (6, 12), (20, 40), (7, 40), (60, 99)):
        growth.held(num_blocks)
        assert growth.reach == reach


def test_an_evicted_prefix_that_comes_back_is_room_for_it_once() -> None:
    growth = CacheGrowth(100, 10)
    for lost in hashes(1, 2, 3, 5):
        growth.evicted(lost)
    # Up to the first block that nobody had.
    growth.missed(hashes(1, 2, 3, 4, 5), 0)
    assert growth.reach == 13
    growth.missed(hashes(1, 2, 3), 0)
    assert growth.reach == 13
    growth.missed(hashes(5), 0)
    assert growth.reach == 14


def test_what_a_cache_of_full_size_would_have_lost_too_is_no_reason_to_grow() -> None:
    growth = CacheGrowth(13, 10)
    for lost in hashes(1, 2, 3):
        growth.evicted(lost)
    growth.missed(hashes(1), 0)
    assert growth.reach == 10
    growth.missed(hashes(2, 3), 0)
    assert growth.reach == 12


def test_what_was_forgotten_on_purpose_is_no_reason_to_grow() -> None:
    growth = CacheGrowth(100, 10)
    growth.evicted(b"1")
    growth.reset()
    growth.missed([b"1"], 0)
    assert growth.reach == 10
