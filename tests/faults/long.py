"""Random histories, one seed after the other, until the time is over (`scripts/faults`)."""

from __future__ import annotations

import argparse
import logging
import random
import shutil
import sys
import time
from collections import Counter
from collections.abc import Sequence

from eventlog.testing import FailingFiles
from tests.faults import damage, failures, group_failures, groups, letters
from tests.faults.crashes import Crash, check, crashes_of_recovery, is_in_memory, kills, power_cuts
from tests.faults.histories import random_history, run
from tests.faults.recorder import arena

THOROUGH_EVERY = 4
LETTERS_EACH = 300


def one_seed(seed: int, share: float) -> Counter[str]:
    """All that is done with one seed; how many cases of each kind.

    Of the crashes at each step, the share is taken.
    """
    done: Counter[str] = Counter()
    rng = random.Random(f"long {seed}")
    with arena() as place:
        done += _crashes(place, seed, rng, share)
        done += _groups(place, seed, rng, share)
        done += _letters(place, seed, rng, share)
        done += _group_failures(place, seed, rng, share)
        done += _failures(place, seed, rng, share)
        done += _damages(place, rng, share / 10)
    return done


def _crashes(place: str, seed: int, rng: random.Random, share: float) -> Counter[str]:
    steps, options = random_history(seed, rng.randint(10, 80))
    trace = run(place, seed, steps, options)
    crashes = list(kills(trace, rng))
    if not is_in_memory(options):
        crashes += power_cuts(trace, 16, rng)
    for crash in rng.sample(crashes, 3):
        again = list(crashes_of_recovery(place, trace, crash, 4, rng))
        crashes += rng.sample(again, min(200, len(again)))
    done: Counter[str] = Counter()
    for number, crash in enumerate(crashes):
        if rng.random() < share:
            check(place, trace, crash, is_thorough=number % THOROUGH_EVERY == 0)
            done["power cuts" if crash.is_power_cut else "kills"] += 1
    return done


def _groups(place: str, seed: int, rng: random.Random, share: float) -> Counter[str]:
    shutil.rmtree(place, ignore_errors=True)
    ordering = rng.choice(["", "key"])
    steps = groups.random_history(seed, rng.randint(10, 60))
    history = groups.run(place, (seed, ordering), steps, ordering)
    done: Counter[str] = Counter()
    cuts = list(power_cuts(history.trace, 8, rng))
    crashes = [*kills(history.trace, rng, 24), *cuts]
    _check_groups(place, history, crashes, "groups", rng, share, done)
    for crash in rng.sample(crashes, 5):
        again = list(groups.crashes_of_recovery(place, history, crash, 4, rng))
        again = rng.sample(again, min(100, len(again)))
        _check_groups(place, history, again, "recoveries of groups", rng, share, done)
    for crash in rng.sample(cuts, 5):
        steps = groups.after_a_crash(rng, 20)
        then = groups.run(place, (seed, ordering, str(crash)), steps, ordering, (history, crash))
        again = list(power_cuts(then.trace, 4, rng))
        again = rng.sample(again, min(100, len(again)))
        _check_groups(place, then, again, "second power cuts of groups", rng, share, done)
    return done


def _check_groups(  # noqa: PLR0917 - one loop, for three kinds of crashes
    place: str,
    history: groups.GroupTrace,
    crashes: list[Crash],
    kind: str,
    rng: random.Random,
    share: float,
    done: Counter[str],
) -> None:
    for number, crash in enumerate(crashes):
        if rng.random() < share:
            groups.check(place, history, crash, is_thorough=number % THOROUGH_EVERY == 0)
            done[kind] += 1


def _letters(place: str, seed: int, rng: random.Random, share: float) -> Counter[str]:
    shutil.rmtree(place, ignore_errors=True)
    history = letters.run(place, seed, letters.random_history(seed, rng.randint(10, 30)))
    crashes = [*kills(history.trace, rng, 8), *power_cuts(history.trace, 2, rng)]
    done: Counter[str] = Counter()
    for crash in rng.sample(crashes, min(LETTERS_EACH, len(crashes))):
        if rng.random() < share:
            letters.check(place, history, crash)
            done["letters past retention"] += 1
    return done


def _group_failures(place: str, seed: int, rng: random.Random, share: float) -> Counter[str]:
    steps, ordering = groups.random_history(seed, 40), rng.choice(["", "key"])
    done: Counter[str] = Counter()
    for at in range(1, 10_000):
        if rng.random() >= share:
            continue
        shutil.rmtree(place, ignore_errors=True)
        for_ever, torn, soon = (rng.random() < likely for likely in (0.2, 0.5, 0.5))
        number, ending = rng.choice(failures.ERRORS), rng.choice(group_failures.ENDINGS)
        kinds = rng.sample(failures.KINDS, 3) if for_ever else failures.KINDS
        files = FailingFiles(number, kinds, at, for_ever=for_ever, torn=torn)
        try:
            group_failures.run(place, steps, ordering, files, ending, soon=soon)
        except Exception as error:
            error.add_note(
                f"error {number} at call {at} of {kinds}, {for_ever=}, {torn=}, {ordering=},"
                f" {ending}, {soon=}; {steps}"
            )
            raise
        done["failures of groups"] += 1
        if not files.has_failed and not for_ever:
            break
    return done


def _failures(place: str, seed: int, rng: random.Random, share: float) -> Counter[str]:
    steps, options = random_history(seed, 40)
    done: Counter[str] = Counter()
    for at in range(1, 10_000):
        if rng.random() >= share:
            continue
        shutil.rmtree(place, ignore_errors=True)
        for_ever, torn = rng.random() < 0.2, rng.random() < 0.5
        number = rng.choice(failures.ERRORS)
        kinds = rng.sample(failures.KINDS, 3) if for_ever else failures.KINDS
        files = FailingFiles(number, kinds, at, for_ever=for_ever, torn=torn)
        try:
            failures.run(place, steps, options, files)
        except Exception as error:
            error.add_note(f"error {number} at call {at} of {kinds}, {for_ever=}, {torn=}")
            raise
        done["failures"] += 1
        if not files.has_failed and not for_ever:
            break
    return done


def _damages(place: str, rng: random.Random, share: float) -> Counter[str]:
    shutil.rmtree(place, ignore_errors=True)
    image, events = damage.make_image(place, rng.choice(["close", "abandon"]))
    done: Counter[str] = Counter()
    for one in damage.damages(image, rng, share):
        damage.check(place, image, events, one)
        done["damages"] += 1
    return done


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; the exit code."""
    parser = argparse.ArgumentParser(
        prog="scripts/faults",
        description=__doc__,
        epilog="A failure prints its seed and its crash.",
    )
    parser.add_argument("--minutes", type=float, default=5, help="how long (%(default)s)")
    parser.add_argument("--seed", type=int, help="the first seed; by default another each time")
    parser.add_argument("--share", type=float, default=1.0, help="of the crashes (%(default)s)")
    asked = parser.parse_args(arguments)
    logging.getLogger("eventlog").addHandler(logging.NullHandler())  # faults by the thousand
    seed: int = asked.seed if asked.seed is not None else random.randrange(10**9)
    until = time.monotonic() + 60 * asked.minutes
    done: Counter[str] = Counter()
    first = seed
    while True:
        try:
            done += one_seed(seed, asked.share)
        except Exception:
            print(f"failed: scripts/faults --seed {seed} --minutes 0", file=sys.stderr)  # noqa: T201
            raise
        seed += 1
        if time.monotonic() >= until:
            break
    counts = ", ".join(f"{number} {kind}" for kind, number in sorted(done.items()))
    print(f"seeds {first} to {seed - 1}: {counts}; all as the contract says")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
