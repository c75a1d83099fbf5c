"""Small models compute with few threads, large ones with every physical core."""

from jackfield_workers.threads import physical_cores, threads_for


def test_small_weights_are_not_shared_out() -> None:
    assert threads_for(0) == 1
    assert threads_for(3 << 20) == 1


def test_large_weights_take_every_core() -> None:
    assert threads_for(8 << 30) == physical_cores()
