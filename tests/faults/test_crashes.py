"""Killed at every step, without power at every step, of histories short enough for all of them."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from tests.faults.crashes import check, crashes_of_recovery, is_in_memory, kills, power_cuts
from tests.faults.histories import SHORT, random_history, run
from tests.faults.recorder import arena

THOROUGH_EVERY = 10
POWER_CUTS_EACH = 12
"""Power cuts for each call of a history; all that there are, if they are fewer."""


@pytest.fixture
def place() -> Iterator[str]:
    with arena() as directory:
        yield directory


EACH = pytest.mark.parametrize(
    "each", [48, pytest.param(1, marks=pytest.mark.slow)], ids=["some", "each"]
)
"""One of 48 crashes that are found; with the slow tests, every one."""
SLOW = pytest.mark.slow
LASTING = [name for name, (_, options) in SHORT.items() if not is_in_memory(options)]
"""Those that promise something for a loss of power."""


@EACH
@pytest.mark.parametrize("name", SHORT)
def test_a_killed_writer_leaves_all_that_was_acknowledged(place: str, name: str, each: int) -> None:
    trace = run(place, name, *SHORT[name])
    number = 0
    for number, crash in enumerate(kills(trace, random.Random(name))):
        if number % each:
            continue
        check(place, trace, crash, is_thorough=number % THOROUGH_EVERY == 0)
    assert number > 500


@EACH
@pytest.mark.parametrize("name", LASTING)
def test_a_power_cut_leaves_all_that_was_synced(place: str, name: str, each: int) -> None:
    trace = run(place, name, *SHORT[name])
    number = 0
    for number, crash in enumerate(power_cuts(trace, POWER_CUTS_EACH, random.Random(name))):
        if number % each:
            continue
        check(place, trace, crash, is_thorough=number % THOROUGH_EVERY == 0)
    assert number > 200


@pytest.mark.parametrize("count", [2, pytest.param(12, marks=SLOW)])
@pytest.mark.parametrize("name", LASTING)
def test_recovery_may_be_killed_and_lose_its_power_too(place: str, name: str, count: int) -> None:
    trace = run(place, name, *SHORT[name])
    rng = random.Random(name)
    crashes = [*kills(trace, rng), *power_cuts(trace, 4, rng)]
    number = 0
    for crash in rng.sample(crashes, count):
        found = list(crashes_of_recovery(place, trace, crash, 2, rng))
        for again in rng.sample(found, min(40, len(found))):
            check(place, trace, again, is_thorough=number % THOROUGH_EVERY == 0)
            number += 1
    assert number > 8 * count


@pytest.mark.parametrize("seed", [0, 1, *(pytest.param(n, marks=SLOW) for n in range(2, 6))])
def test_random_histories(place: str, seed: int) -> None:
    trace = run(place, seed, *random_history(seed, 40))
    rng = random.Random(seed)
    crashes = [*kills(trace, rng), *power_cuts(trace, 4, rng)]
    for number, crash in enumerate(rng.sample(crashes, 400)):
        check(place, trace, crash, is_thorough=number % THOROUGH_EVERY == 0)
