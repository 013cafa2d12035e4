"""Simulated histories, one seed after the other, on all cores (`scripts/simulate`)."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from tests.simulation.world import Result, simulate

HISTORIES: int = 100_000
CHUNK = 50
"""Histories that a process does in one go: about a second's work."""


class Outcome(NamedTuple):
    """What became of some seeds."""

    counts: Counter[str]
    failed: int | None
    """The first seed whose history breaks a promise, or that ended in an exception."""
    reason: str


def try_seeds(seeds: range) -> Outcome:
    """Simulate each seed, up to the first that fails."""
    with ended_in_order():
        return try_each(seeds)


def try_each(seeds: range) -> Outcome:
    counts: Counter[str] = Counter()
    for seed in seeds:
        try:
            result = simulate(seed)
        except Exception as error:  # noqa: BLE001 - whatever it is, its seed is what matters
            return Outcome(counts, seed, f"{type(error).__name__}: {error}")
        counts += result.counts
        if result.violations:
            return Outcome(counts, seed, str(result.violations[0]))
    return Outcome(counts, None, "")


@contextmanager
def ended_in_order() -> Iterator[None]:
    """Being ended in the middle of a history takes its directory away too.

    Only there: an exit raised while Python itself is ending would be printed as an error.
    """
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def chunks(first: int, histories: int | None) -> Iterator[range]:
    """The seeds from the first on, without an end if no number is given."""
    start = first
    while histories is None or start < first + histories:
        stop = start + CHUNK if histories is None else min(start + CHUNK, first + histories)
        yield range(start, stop)
        start = stop


def try_all(asked: argparse.Namespace, first: int) -> Outcome:
    """All that was asked for, or up to the first failure."""
    histories = None if asked.minutes is not None else asked.histories
    until = None if asked.minutes is None else time.monotonic() + 60 * asked.minutes
    counts: Counter[str] = Counter()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    is_quiet = asked.json or not sys.stderr.isatty()
    with (
        multiprocessing.get_context("spawn").Pool(asked.processes) as pool,
        Progress(*columns, TimeRemainingColumn(), disable=is_quiet) as progress,
    ):
        bar = progress.add_task("histories", total=histories)
        for outcome in pool.imap_unordered(try_seeds, limited(chunks(first, histories), until)):
            counts += outcome.counts
            progress.update(bar, completed=counts["histories"])
            if outcome.failed is not None:
                return outcome._replace(counts=counts)
            if until is not None and time.monotonic() >= until:
                break
    return Outcome(counts, None, "")


def limited(seeds: Iterator[range], until: float | None) -> Iterator[range]:
    """The pool's own thread asks far ahead of what is done, so it gets no more than it may need."""
    if until is None:
        yield from seeds
        return
    per_second_max = 200 * (os.cpu_count() or 1)
    wanted = max(int((until - time.monotonic()) * per_second_max), 1)
    for chunk in seeds:
        if wanted <= 0:
            return
        wanted -= len(chunk)
        yield chunk


def show(result: Result) -> None:
    """Print a history."""
    print(result.plan)  # noqa: T201
    for entry in result.history:
        print(entry)  # noqa: T201
    for violation in result.violations:
        print(f"VIOLATION: {violation}")  # noqa: T201


def one(seed: int, *, as_json: bool) -> int:
    """Simulate one seed and print it; the exit code."""
    result = simulate(seed)
    if as_json:
        tell_json(seed, Outcome(result.counts, seed if result.violations else None, ""), 0.0)
    else:
        show(result)
    return 1 if result.violations else 0


def tell_json(first: int, outcome: Outcome, seconds: float) -> None:
    """Print one object for programs."""
    told = {
        "first_seed": first,
        "failed_seed": outcome.failed,
        "reason": outcome.reason,
        "seconds": round(seconds, 1),
        "counts": dict(sorted(outcome.counts.items())),
    }
    print(json.dumps(told))  # noqa: T201


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; the exit code: 1 if a history breaks a promise."""
    parser = argparse.ArgumentParser(
        prog="scripts/simulate",
        description=__doc__,
        epilog="The same seed gives the same history, on every machine."
        " A failure prints its seed and its history, and ends with 1.",
    )
    parser.add_argument("--histories", type=int, default=HISTORIES, help="(%(default)s)")
    parser.add_argument("--minutes", type=float, help="so long, instead of a number of histories")
    parser.add_argument("--seed", type=int, help="this one only; its history is printed")
    parser.add_argument("--first", type=int, help="the first seed; by default another each time")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="(%(default)s)")
    parser.add_argument("--json", action="store_true", help="one object, for programs")
    asked = parser.parse_args(arguments)
    if asked.seed is not None:
        return one(asked.seed, as_json=asked.json)
    first: int = asked.first if asked.first is not None else random.randrange(10**9)
    began_s = time.monotonic()
    outcome = try_all(asked, first)
    seconds = time.monotonic() - began_s
    if asked.json:
        tell_json(first, outcome, seconds)
    else:
        _tell(first, outcome, seconds)
    return 0 if outcome.failed is None else 1


def _tell(first: int, outcome: Outcome, seconds: float) -> None:
    if outcome.failed is not None:
        show_failed(outcome.failed)
        print(f"{outcome.reason}\nagain: scripts/simulate --seed {outcome.failed}")  # noqa: T201
        return
    counts = outcome.counts
    faults = ", ".join(
        f"{number} {kind}"
        for kind, number in sorted(counts.items())
        if kind not in {"histories", "steps"}
    )
    print(  # noqa: T201
        f"{counts['histories']} histories from seed {first} on, {counts['steps']} steps in"
        f" {seconds:.0f} s: {faults}; all as the contract says"
    )


def show_failed(seed: int) -> None:
    """Print the history of a seed that failed, as far as there is one."""
    try:
        show(simulate(seed))
    except Exception as error:  # noqa: BLE001 - its notes hold the end of the history
        print("\n".join([*error.__notes__, f"{type(error).__name__}: {error}"]))  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
