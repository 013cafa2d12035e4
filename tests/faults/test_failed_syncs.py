"""Every sync of the short histories fails, each in its turn, and the log goes on; then a crash."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from tests.faults.crashes import check, is_in_memory, kills, power_cuts
from tests.faults.failed_syncs import check_next, run, salvages
from tests.faults.histories import SHORT, Step, Trace, random_history
from tests.faults.recorder import arena

MORE: list[Step] = [("append", 1, 300), ("sync",), ("ack", "alpha", 0), ("positions",)]
"""What the second writer does, and says to be on the disk."""
EACH = pytest.mark.parametrize(
    "each", [17, pytest.param(1, marks=pytest.mark.slow)], ids=["some", "each"]
)
"""Every 17th sync fails in its turn; with the slow tests, every one."""
LASTING = [name for name, (_, options) in SHORT.items() if not is_in_memory(options)]


@pytest.fixture
def place() -> Iterator[str]:
    with arena() as directory:
        yield directory


def failing(
    place: str, name: object, steps: list[Step], options: dict[str, Any], each: int = 1
) -> Iterator[Trace]:
    """The history, with each of its syncs failing once, or with one in so many of them."""
    for at in range(1, 1000, each):
        shutil.rmtree(place, ignore_errors=True)
        trace, has_failed = run(place, name, [*steps, *MORE], options, at)
        if not has_failed:
            assert at > 3
            return
        yield trace


@EACH
@pytest.mark.parametrize("durability", ["disk", "sync"])
@pytest.mark.parametrize("name", LASTING)
def test_what_is_synced_after_a_failed_sync_survives_a_loss_of_power(
    place: str, name: str, durability: str, each: int
) -> None:
    # The second writer's sync found only clean pages: what it acknowledged was on no disk.
    steps, options = SHORT[name]
    rng = random.Random(name)
    for trace in failing(place, name, steps, {**options, "durability": durability}, each):
        crashes = list(power_cuts(trace, 8, rng))
        last = [crash for crash in crashes if crash.calls == len(trace.calls)]
        for number, crash in enumerate([*last, *rng.sample(crashes, 60)]):
            check(place, trace, crash, is_thorough=number % 10 == 0)


@EACH
@pytest.mark.parametrize("name", LASTING)
def test_a_salvage_may_be_killed_anywhere(place: str, name: str, each: int) -> None:
    steps, options = SHORT[name]
    rng = random.Random(name)
    number = 0
    for trace in failing(place, name, steps, options, each):
        for crash in salvages(trace, rng):
            number += 1
            if rng.random() < 0.3:
                check_next(place, trace, crash, 8, rng)
    assert number > 20 // each


@pytest.mark.parametrize(
    ("seed", "count"), [(0, 4), *(pytest.param(n, 8, marks=pytest.mark.slow) for n in range(4))]
)
def test_random_histories_with_a_failed_sync(place: str, seed: int, count: int) -> None:
    rng = random.Random(seed)
    steps, options = random_history(seed, 40)
    options["durability"] = rng.choice(["disk", "sync"])
    traces = list(failing(place, seed, steps, options))
    for trace in rng.sample(traces, min(count, len(traces))):
        crashes = [*kills(trace, rng, 2), *power_cuts(trace, 6, rng)]
        for number, crash in enumerate(rng.sample(crashes, min(60, len(crashes)))):
            check(place, trace, crash, is_thorough=number % 10 == 0)
