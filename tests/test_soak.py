"""The auditor catches what it is there for; and a short soak, with real kills."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from chaos import audit
from chaos.audit import Consumer, Stored

ROOT = Path(__file__).resolve().parent.parent


def event(seq_no: int, producer: str = "a", counter: int | None = None) -> Stored:
    return Stored(seq_no, producer, seq_no if counter is None else counter, "k")


def result(seq_no: int, of: int) -> Stored:
    return Stored(seq_no, "", of, None)


GOOD = [event(1), event(2), event(3, "b", 1), event(4, counter=4)]
BY_NUMBER = {one.seq_no: one for one in GOOD}


def test_a_sound_log_has_no_violation() -> None:
    assert [*audit.numbers(GOOD, 1), *audit.order(GOOD)] == []


@pytest.mark.parametrize(
    ("stored", "said"),
    [
        ([event(1), event(3)], "3 comes where 2 should"),
        ([event(2)], "2 comes where 1 should"),
        ([event(1), event(1, "b")], "1 comes where 2 should"),
        ([event(1), event(2, counter=1)], "stored twice"),
    ],
)
def test_gaps_and_doubles_are_found(stored: list[Stored], said: str) -> None:
    assert any(said in line for line in audit.numbers(stored, 1))


def test_events_of_a_producer_in_another_order_are_found() -> None:
    assert list(audit.order([event(1, counter=2), event(2, counter=1)]))


@pytest.mark.parametrize(
    ("line", "is_sound"),
    [("acked 2 2", True), ("acked 2 3", False), ("acked 9 9", False), ("acked 1 3", False)],
)
def test_a_lost_acknowledged_event_is_found(line: str, is_sound: bool) -> None:
    found = list(audit.acknowledged(BY_NUMBER, "a", [line.split()], 1))
    assert (found == []) is is_sound


@pytest.mark.parametrize(
    ("incarnations", "is_sound"),
    [
        ([["saw 1 a 1", "saw 2 a 2", "acking 2", "acked 2"], ["saw 3 b 1"]], True),
        ([["saw 1 a 1", "saw 2 a 2", "acking 2"], ["saw 1 a 1"]], True),
        ([["saw 1 a 1", "saw 3 b 1"]], False),
        ([["saw 2 a 2", "saw 1 a 1"]], False),
        ([["saw 1 a 1", "saw 1 a 1"]], False),
        ([["saw 1 b 1"]], False),
        ([["saw 1 a 1", "acking 1", "acked 1"], ["saw 1 a 1"]], False),
        ([["saw 1 a 1", "acking 1", "acked 1"], ["saw 3 b 1"]], False),
    ],
)
def test_what_a_consumer_must_not_see_is_found(
    incarnations: list[list[str]], is_sound: bool
) -> None:
    consumer = Consumer("c", may_skip=False)
    found = [
        violation
        for lines in incarnations
        for violation in consumer.check(BY_NUMBER, [line.split() for line in lines])
    ]
    assert (found == []) is is_sound


def did(*lines: str) -> list[list[str]]:
    return [["did", *line.split()] for line in lines]


def test_events_that_nobody_handled_are_found() -> None:
    lines = did("1 k 0", "2 k 1", "3 k 2")
    assert list(audit.handled(GOOD, lines, set(), "g"))
    assert list(audit.handled(GOOD, lines, {4}, "g")) == []
    assert list(audit.handled(GOOD, [*lines, *did("4 k 3")], {4}, "g")), "dead, but handled"


def test_missing_and_double_results_are_found() -> None:
    events = [event(1), event(2)]
    assert list(audit.results([*events, result(3, 1), result(4, 2)], set())) == []
    assert list(audit.results([*events, result(3, 1)], {2})) == []
    assert list(audit.results([*events, result(3, 1)], set()))
    assert list(audit.results([*events, result(3, 1), result(4, 2), result(5, 2)], set()))
    assert list(audit.results([*events, result(3, 1), result(4, 2)], {2}))


def test_a_key_out_of_order_is_found_and_a_repetition_is_none() -> None:
    assert list(audit.key_order(did("1 k 1", "2 k 2", "1 k 3", "2 k 4", "3 j 0"), "g")) == []
    assert list(audit.key_order(did("2 k 1", "1 k 2"), "g"))
    assert list(audit.key_order(did("2 k 1", "1 j 2"), "g")) == []


def test_a_short_soak_breaks_no_promise(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    command = [sys.executable, str(ROOT / "scripts" / "chaos"), "--minutes", "0.1"]
    outcome = subprocess.run(
        [*command, "--seed", "4", "--dir", str(tmp_path), "--json", str(figures)],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    facts = json.loads(figures.read_text())
    assert facts["violations"] == []
    assert facts["kills"] > 0
    assert facts["handled"] > 0
    assert not list(tmp_path.glob("eventlog-soak-*"))
