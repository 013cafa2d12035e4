"""Any bytes at all for all that reads bytes: pipes, files of a log, imports (`scripts/fuzz`).

Inputs that reach new code are kept in tests/fuzz/corpus, which the gate goes through. So is one
that breaks a promise: the gate fails until it is mended.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Final, NamedTuple

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from tests.fuzz.corpus import inputs, keep
from tests.fuzz.targets import TARGETS

INPUT_BYTES_MAX: Final = 8192
INPUT_S_MAX: Final = 20
MEMORY_MB_MAX: Final = 2048
_RUNS: Final = re.compile(r"stat::number_of_executed_units:\s+(\d+)")


class Outcome(NamedTuple):
    """What became of a target."""

    target: str
    runs: int
    kept: int
    failure: str
    """What the fuzzer said of an input that breaks a promise; empty if there was none."""


def fuzz(target: str, seconds: int, *, is_kept: bool) -> Outcome:
    """Fuzz one target, each time in processes of its own."""
    with tempfile.TemporaryDirectory(prefix="eventlog-fuzz-") as name:
        place = Path(name)
        folders = [place / part for part in ("found", "known", "smallest", "broken")]
        for folder in folders:
            folder.mkdir()
        found, known, smallest, broken = folders
        _fill(known, inputs(target))
        said = _run(
            target, f"-max_total_time={seconds}", f"-artifact_prefix={broken}/", found, known
        )
        failures = _contents(broken)
        if is_kept and not failures:
            _run(target, "-merge=1", smallest, known, found)
            keep(target, _contents(smallest))
        elif failures:
            keep(target, [*inputs(target), *failures])
        runs = _RUNS.search(said)
        return Outcome(
            target,
            int(runs[1]) if runs else 0,
            len(inputs(target)),
            said[said.find("Uncaught Python exception") :][:3000] if failures else "",
        )


def _run(target: str, *options: str | Path) -> str:
    limits = (
        f"-max_len={INPUT_BYTES_MAX}",
        f"-timeout={INPUT_S_MAX}",
        f"-rss_limit_mb={MEMORY_MB_MAX}",
        "-print_final_stats=1",
    )
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.one", target, *limits, *map(str, options)],
        stdout=subprocess.PIPE,  # where an exception is told
        stderr=subprocess.STDOUT,
        check=False,
        text=True,
        errors="replace",
    )
    return done.stdout


def _fill(folder: Path, contents: Sequence[bytes]) -> None:
    for number, content in enumerate(contents):
        (folder / str(number)).write_bytes(content)


def _contents(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in folder.iterdir()]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; the exit code."""
    parser = argparse.ArgumentParser(
        prog="scripts/fuzz",
        description=__doc__,
        epilog="Examples: scripts/fuzz --minutes 30; scripts/fuzz writer-pipe payload --minutes 5",
    )
    parser.add_argument("targets", nargs="*", help=f"some of {', '.join(TARGETS)}; by default all")
    parser.add_argument("--minutes", type=float, default=10, help="in all (%(default)s)")
    parser.add_argument("--keep", action="store_true", help="put what is new into the corpus")
    asked = parser.parse_args(arguments)
    unknown = sorted(set(asked.targets) - TARGETS.keys())
    if unknown:
        parser.error(f"there is no target {', '.join(unknown)}")
    targets = asked.targets or list(TARGETS)
    cores = os.cpu_count() or 1
    seconds = max(int(asked.minutes * 60 * min(cores, len(targets)) / len(targets)), 1)
    outcomes = _fuzz_all(targets, seconds, cores, is_kept=asked.keep)
    for one in outcomes:
        print(f"{one.target:18} {one.runs:>10,} inputs, {one.kept} kept")  # noqa: T201
    failed = [one for one in outcomes if one.failure]
    for one in failed:
        print(f"\n{one.target} breaks a promise:\n{one.failure}", file=sys.stderr)  # noqa: T201
    total = sum(one.runs for one in outcomes)
    print(f"{total:,} inputs for {len(targets)} targets; {len(failed)} broke a promise")  # noqa: T201
    return 1 if failed else 0


def _fuzz_all(targets: list[str], seconds: int, cores: int, *, is_kept: bool) -> list[Outcome]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with (
        ThreadPoolExecutor(cores) as pool,
        Progress(*columns, TimeElapsedColumn(), transient=True) as progress,
    ):
        task = progress.add_task(f"{seconds} s for each target", total=len(targets))
        jobs = [pool.submit(fuzz, target, seconds, is_kept=is_kept) for target in targets]
        for _ in as_completed(jobs):
            progress.advance(task)
    return sorted((job.result() for job in jobs), key=lambda one: targets.index(one.target))


if __name__ == "__main__":
    sys.exit(main())
