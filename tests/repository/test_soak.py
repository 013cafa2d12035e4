"""The auditor catches what it is there for; and short soaks, with real kills."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from chaos import audit
from chaos.audit import Consumer, Follower, Letter, Stored
from chaos.roles import wait_for_groups

from eventlog import blocking
from tests import servers

ROOT = Path(__file__).resolve().parents[2]


def event(seq_no: int, producer: str = "a", counter: int | None = None, kind: str = "") -> Stored:
    return Stored(seq_no, producer, seq_no if counter is None else counter, "k", kind)


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
    return [["did", *line.split(), "9"] for line in lines]


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
    doubled = [*events, result(3, 1), result(4, 2), result(5, 2)]
    assert list(audit.results(doubled, set(), may_be_twice=True)) == []
    assert list(audit.results(doubled[:3], set(), may_be_twice=True))


def test_a_key_out_of_order_is_found_and_a_repetition_is_none() -> None:
    assert list(audit.key_order(did("1 k 1", "2 k 2", "1 k 3", "2 k 4", "3 j 0"), "g")) == []
    assert list(audit.key_order(did("2 k 1", "1 k 2"), "g"))
    assert list(audit.key_order(did("2 k 1", "1 j 2"), "g")) == []


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("got 3 b 1 9", None),
        ("did 3 k 77 9", None),
        ("got 3 spoiled -1 9", "was given spoiled -1 at 3"),
        ("got 5 a 5 9", "was given a 5 at 5"),
        ("got 3 b 1 10", "a forked child of worker 9"),
        ("did 3 k 77 10", "a forked child of worker 9"),
    ],
)
def test_deliveries_of_what_was_not_appended_and_those_to_forked_children_are_found(
    line: str, said: str | None
) -> None:
    found = list(audit.delivered(BY_NUMBER, [line.split()], 9, "g"))
    assert [said in one for one in found] == [True] if said else found == []


@pytest.mark.parametrize(
    ("letters", "said"),
    [
        ([Letter(2, "a", 2)], None),
        ([Letter(2, "a", 2), Letter(2, "a", 2)], "two dead letters"),
        ([Letter(2, "spoiled", -1)], "there is Stored"),
        ([Letter(1, "a", 1)], "killed nobody"),
        ([Letter(7, "a", 7)], "there is None"),
    ],
)
def test_a_letter_too_many_and_one_of_something_else_are_found(
    letters: list[Letter], said: str | None
) -> None:
    stored = {1: event(1), 2: event(2, kind="poison")}
    found = list(audit.letters(stored, letters, "g"))
    assert [said in one for one in found] == [True] if said else found == []


@pytest.mark.parametrize(
    ("left", "lines", "acked", "said"),
    [
        ([], ["got 2 a 2 9", "did 2 k 5 9"], {2: ("a", 2)}, None),
        ([], ["got 2 a 2 9", "did 2 k 5 9"], {}, None),
        ([], [], {}, "was retried as None"),
        ([], ["got 2 a 2 9"], {}, "never handled"),
        ([], ["got 2 a 3 9", "did 2 k 5 9"], {}, "was retried as"),
        ([], ["got 2 a 2 9", "did 2 k 5 9"], {2: ("a", 3)}, "of another event"),
        ([Letter(2, "a", 2)], ["got 2 a 2 9", "did 2 k 5 9"], {}, "is left"),
    ],
)
def test_a_letter_that_was_lost_with_its_event_is_found(
    left: list[Letter], lines: list[str], acked: dict[int, tuple[str, int]], said: str | None
) -> None:
    letters = {2: Letter(2, "a", 2)}
    found = list(audit.retried(letters, left, [line.split() for line in lines], acked))
    assert any(said in one for one in found) if said else found == []


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["opened 10", "saw 1 r-0 0", "deleted 25", "opened 26", "saw 1 r-1 0"], None),
        (["opened 10", "deleted 25", "refused NotALog", "opened 30"], None),
        (["opened 22"], None),
        (["opened 10"], "was not told for 80 s"),
        (["opened 10", "deleted 60"], "was not told for 40 s"),
        (["opened 10", "saw 1 r-0 0", "saw 2 r-1 1", "deleted 25"], "two logs as one"),
        (["opened 10", "saw 1 r-0 0", "saw 3 r-0 2", "deleted 25"], "as [1, 3]"),
        (["opened 22", "saw 1 r-0 0", "refused CorruptLog"], "was told CorruptLog"),
    ],
)
def test_a_follower_that_is_not_told_of_a_deletion_is_found(
    lines: list[str], said: str | None
) -> None:
    """The log is deleted at second 20; the follower lives to second 100, and may take 10."""
    follower = Follower("f", [seconds(line) for line in lines], 100 * 10**9)
    found = list(follower.check([20 * 10**9], 10 * 10**9))
    assert [said in one for one in found] == [True] if said else found == []


def seconds(line: str) -> list[str]:
    word, *rest = line.split()
    return [word, str(int(rest[0]) * 10**9)] if word in {"opened", "deleted"} else [word, *rest]


def test_producers_wait_while_a_group_is_far_behind() -> None:
    """The keyed pool was 174,000 events behind on a loaded machine, and the drain took hours."""
    with blocking.open("memory:") as log:
        log.append_many(range(10))
        log.ack("free", 5)
        log.ack("keyed", 3)
        log.ack("a consumer", 0)
        acks = iter([4, 5, 6])
        wait_for_groups(log, 5, lambda: log.ack("keyed", next(acks)))
        assert list(acks) == [6]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_short_soak_breaks_no_promise(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    command = [sys.executable, str(ROOT / "scripts" / "chaos"), "--minutes", "0.5"]
    outcome = subprocess.run(
        [*command, "--seed", "4", "--dir", str(tmp_path), "--json", str(figures)],
        capture_output=True,
        text=True,
        timeout=590,
        check=False,
    )
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    facts = json.loads(figures.read_text())
    assert facts["violations"] == []
    assert facts["kills"] > 0
    assert facts["handled"] > 0
    assert facts["retried"] > 0
    assert not list(tmp_path.glob("eventlog-soak-*"))


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", ["valkey", "redis", "nats"])
def test_a_short_soak_over_a_server_breaks_no_promise(name: str, tmp_path: Path) -> None:
    servers.require(name)
    figures = tmp_path / "figures.json"
    command = [sys.executable, str(ROOT / "scripts" / "chaos"), "--on", name, "--minutes", "0.35"]
    outcome = subprocess.run(
        [*command, "--seed", "4", "--dir", str(tmp_path), "--json", str(figures)],
        capture_output=True,
        text=True,
        timeout=590,
        check=False,
    )
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    facts = json.loads(figures.read_text())
    assert facts["violations"] == []
    assert facts["faults"]
    assert facts["seen"] > 0
    assert not list(tmp_path.glob("eventlog-soak-*"))
