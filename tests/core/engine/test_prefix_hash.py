from __future__ import annotations

import importlib.util
import sys
from array import array
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jackfield.engine.prefix_hash import LINKS, BlockHash, PrefixHasher
from jackfield.errors import ConfigError

HAS_XXHASH = importlib.util.find_spec("xxhash") is not None
ALGORITHMS = [
    pytest.param(name, marks=pytest.mark.skipif(not HAS_XXHASH, reason="xxhash is not installed"))
    if name == "xxhash"
    else name
    for name in LINKS
]


def hashes(
    ids: list[int], algorithm: str = "sha256", salt: str | None = None, model: str = "m"
) -> list[BlockHash]:
    found: list[BlockHash] = []
    PrefixHasher(algorithm, 4, model).extend(found, array("i", ids), salt)
    return found


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@given(
    ids=st.lists(st.integers(0, 2**31 - 1), max_size=40),
    cuts=st.lists(st.integers(0, 40), max_size=5),
)
def test_growing_step_by_step_gives_the_same_chain(
    algorithm: str, ids: list[int], cuts: list[int]
) -> None:
    hasher = PrefixHasher(algorithm, 4, "m")
    found: list[BlockHash] = []
    for cut in [*sorted(cuts), len(ids)]:
        hasher.extend(found, array("i", ids[:cut]), None)
    assert found == hashes(ids, algorithm)
    assert len(found) == len(ids) // 4


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_each_hash_covers_everything_before_it(algorithm: str) -> None:
    one = hashes([1, 2, 3, 4, 5, 6, 7, 8], algorithm)
    other = hashes([0, 2, 3, 4, 5, 6, 7, 8], algorithm)
    assert not set(one) & set(other)
    assert len(set(hashes([1] * 40, algorithm))) == 10


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_model_and_salt_are_part_of_every_hash(algorithm: str) -> None:
    ids = [1, 2, 3, 4]
    seeds: list[tuple[str, str | None]] = [
        ("m", None),
        ("m", ""),
        ("m", "None"),
        ("m", "a"),
        ("n", "a"),
        ("m', 'a", None),
    ]
    found = {hashes(ids, algorithm, salt, model)[0] for model, salt in seeds}
    assert len(found) == len(seeds)


def test_sha256_is_the_digest_of_parent_and_little_endian_ids() -> None:
    first, second = hashes([1, 2, 3, 4, 5, 6, 7, 8])
    assert isinstance(first, bytes)
    ids = b"".join(token.to_bytes(4, "little") for token in (5, 6, 7, 8))
    assert second == sha256(first + ids).digest()


def test_a_library_that_is_missing_is_named_with_the_line_that_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "xxhash", None)
    with pytest.raises(ConfigError, match=r"pip install 'jackfield\[xxhash\]'"):
        PrefixHasher("xxhash", 4, "m")
