"""Groups whose writer is killed, or loses its power, at every step."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from tests.faults import groups
from tests.faults.crashes import kills, power_cuts
from tests.faults.recorder import arena

THOROUGH_EVERY = 10
HEADER_CUTS = 24
"""A file's header, or a record's: the first bytes of every write."""


@pytest.fixture
def place() -> Iterator[str]:
    with arena() as directory:
        yield directory


@pytest.mark.parametrize("ordering", ["", "key"])
def test_a_killed_writer_leaves_a_group_as_it_was(place: str, ordering: str) -> None:
    history = groups.run(place, ordering, groups.SHORT, ordering)
    number = 0
    for number, crash in enumerate(kills(history.trace, random.Random(1), HEADER_CUTS)):
        groups.check(place, history, crash, is_thorough=number % THOROUGH_EVERY == 0)
    assert number > 800


@pytest.mark.parametrize("ordering", ["", "key"])
def test_a_power_cut_leaves_results_and_acknowledgements_alike(place: str, ordering: str) -> None:
    history = groups.run(place, ordering, groups.SHORT, ordering)
    number = 0
    for number, crash in enumerate(power_cuts(history.trace, 8, random.Random(1))):
        groups.check(place, history, crash, is_thorough=number % THOROUGH_EVERY == 0)
    assert number > 500


@pytest.mark.parametrize("ordering", ["", "key"])
@pytest.mark.parametrize("seed", range(3))
def test_random_histories_of_groups(place: str, seed: int, ordering: str) -> None:
    history = groups.run(place, (seed, ordering), groups.random_history(seed, 30), ordering)
    rng = random.Random(seed)
    crashes = [*kills(history.trace, rng), *power_cuts(history.trace, 4, rng)]
    for number, crash in enumerate(rng.sample(crashes, 200)):
        groups.check(place, history, crash, is_thorough=number % THOROUGH_EVERY == 0)
