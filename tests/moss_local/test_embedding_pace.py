"""One core or several: the faster way wins, and a change of the machine's load is noticed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from hypothesis import given
from hypothesis import strategies as st

from moss_local.embedding.pace import RETRY_EVERY, TRIES, WAYS, Pace, Way

times = st.floats(0.0001, 1.0)


def drive(pace: Pace, runs: int, seconds: Mapping[Way, float], tokens: int = 8) -> Counter[Way]:
    used: Counter[Way] = Counter()
    for _ in range(runs):
        way = pace.choose(tokens)
        used[way] += 1
        pace.took(way, tokens, seconds[way])
    return used


def test_each_way_is_tried_before_one_is_preferred() -> None:
    used = drive(Pace(), 2 * TRIES, {"narrow": 1.0, "wide": 9.0})
    assert used == {"narrow": TRIES, "wide": TRIES}


@given(slow=times, fast=times)
def test_the_faster_way_takes_nearly_all_runs(slow: float, fast: float) -> None:
    if slow == fast:
        fast = slow / 2
    slow, fast = max(slow, fast), min(slow, fast)
    for winner, loser in (WAYS, WAYS[::-1]):
        pace = Pace()
        seconds: dict[Way, float] = {winner: fast, loser: slow}
        drive(pace, 2 * TRIES, seconds)
        used = drive(pace, 10 * RETRY_EVERY, seconds)
        assert used[loser] == 10


def test_a_change_of_load_is_noticed_in_both_directions() -> None:
    pace = Pace()
    drive(pace, 500, {"narrow": 1.0, "wide": 0.6})
    # The cores get busy: the way in use shows it by itself, within a few runs.
    used = drive(pace, 50, {"narrow": 1.0, "wide": 3.0})
    assert used["narrow"] >= 45
    # They are idle again: only the trials of the slower way can show it.
    drive(pace, 20 * RETRY_EVERY, {"narrow": 1.0, "wide": 0.6})
    assert drive(pace, 100, {"narrow": 1.0, "wide": 0.6})["wide"] >= 90


def test_the_first_cold_run_of_a_way_does_not_count() -> None:
    pace = Pace()
    for way in WAYS:
        pace.took(way, 8, 100.0 if way == "narrow" else 1.0)
    drive(pace, 2 * TRIES, {"narrow": 0.5, "wide": 1.0})
    assert pace.choose(8) == "narrow"


def test_long_and_short_texts_are_judged_apart() -> None:
    pace = Pace()
    drive(pace, 100, {"narrow": 1.0, "wide": 3.0}, tokens=8)
    drive(pace, 100, {"narrow": 30.0, "wide": 16.0}, tokens=200)
    assert pace.choose(8) == "narrow"
    assert pace.choose(200) == "wide"
