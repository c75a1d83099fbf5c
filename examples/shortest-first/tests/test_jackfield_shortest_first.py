"""The laws of a scheduler, in an engine's own loop; and the order."""

from jackfield_shortest_first.plugin import ShortestFirstScheduler

from jackfield.contracts.scheduling import SchedulerLimits
from jackfield.testing import SchedulerContract
from jackfield.testing.simulated_engine import SimulatedEngine

LIMITS = SchedulerLimits(max_num_seqs=1, max_num_batched_tokens=96, max_model_len=96)


class TestShortestFirst(SchedulerContract):
    scheduler = ShortestFirstScheduler
    keeps_order_of_arrival = True


def order(seconds_per_token, requests):
    """The requests, (arrival, length of the prompt), in the order of their first tokens."""
    options = ShortestFirstScheduler.Options(seconds_per_token)
    engine = SimulatedEngine(ShortestFirstScheduler(LIMITS, options=options), LIMITS)
    for arrival, length in requests:
        engine.add([1] * length, 2, arrival=arrival)
    engine.run()
    return sorted(engine.answers, key=lambda key: engine.answers[key].first_step)


def test_short_prompts_go_first():
    assert order(1.0, [(0.0, 30), (0.1, 3), (0.2, 12), (0.3, 4)]) == [2, 4, 3, 1]


def test_a_long_prompt_that_has_waited_goes_before_short_ones_that_have_not():
    assert order(0.1, [(0.0, 30), (5.0, 3), (6.0, 2)]) == [1, 2, 3]
