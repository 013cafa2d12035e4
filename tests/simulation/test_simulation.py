"""A short run of the simulation; `scripts/simulate` is the long one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter

import pytest

from tests.simulation import long
from tests.simulation.world import simulate

SEEDS = range(150)


def test_histories_keep_the_contract() -> None:
    counts: Counter[str] = Counter()
    told: Counter[str] = Counter()
    for seed in SEEDS:
        result = simulate(seed)
        assert result.violations == [], f"scripts/simulate --seed {seed}"
        counts += result.counts
        told.update(entry.what for entry in result.history)
    # Nothing of what is judged is missing: else the run would say less than it seems to.
    for what in ("stored", "refused", "read", "truncated", "moved", "not_moved", "handled"):
        assert told[what] > 10, what
    for what in ("settled", "condemned", "cut_off", "retry"):
        assert told[what] > 0, what
    for fault in ("writers killed", "writers ended", "pipes broken", "producers killed"):
        assert counts[fault] > 50, fault
    for fault in ("members killed", "clock jumps", "logs remade"):
        assert counts[fault] > 20, fault
    assert counts["pipes held by children"] > 10


def told_by(seed: int) -> list[str]:
    return [str(entry) for entry in simulate(seed).history]


@pytest.mark.parametrize("seed", range(5))
def test_a_seed_gives_one_history(seed: int) -> None:
    assert told_by(seed) == told_by(seed)


@pytest.mark.parametrize("hash_seed", ["1", "2"])
def test_a_seed_gives_one_history_in_every_process(hash_seed: str) -> None:
    program = (
        "import json; from tests.simulation.test_simulation import told_by;"
        " print(json.dumps([told_by(seed) for seed in range(8)]))"
    )
    output = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        stdout=subprocess.PIPE,
        check=True,
    ).stdout
    assert json.loads(output) == [told_by(seed) for seed in range(8)]


def test_the_command_tells_one_history(capsys: pytest.CaptureFixture[str]) -> None:
    assert long.main(["--seed", "3"]) == 0
    assert capsys.readouterr().out.splitlines()[1:] == told_by(3)


def run_long(*arguments: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own, which has others."""
    command = [sys.executable, "-m", "tests.simulation.long", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_command_counts_what_it_did() -> None:
    done = run_long("--histories", "20", "--first", "7", "--processes", "1", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    told = json.loads(done.stdout)
    assert (told["first_seed"], told["failed_seed"]) == (7, None)
    assert told["counts"]["histories"] == 20
