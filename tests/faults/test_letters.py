"""Letters that outlive their events are there after every crash."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from tests.faults import letters
from tests.faults.crashes import kills, power_cuts
from tests.faults.histories import Step
from tests.faults.recorder import arena

HEADER_CUTS = 8


@pytest.fixture
def place() -> Iterator[str]:
    with arena() as directory:
        yield directory


HISTORIES = [letters.SHORT, *(letters.random_history(seed, 30) for seed in range(2))]


@pytest.mark.parametrize("share", [0.02, pytest.param(1.0, marks=pytest.mark.slow)])
@pytest.mark.parametrize("steps", HISTORIES, ids=["short", "one", "two"])
def test_no_crash_costs_a_letter(place: str, steps: list[Step], share: float) -> None:
    """A retry of a letter whose event was deleted lost both: the letter was dropped at once."""
    history = letters.run(place, "letters", steps)
    assert any(history.kept)
    rng = random.Random(len(steps))
    crashes = [*kills(history.trace, rng, HEADER_CUTS), *power_cuts(history.trace, 2, rng)]
    chosen = rng.sample(crashes, int(share * len(crashes)))
    assert len(chosen) > 25
    for crash in chosen:
        letters.check(place, history, crash)
