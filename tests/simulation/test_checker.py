"""The checker is tested itself: each history here breaks one promise, and it says which."""

from __future__ import annotations

from typing import Any

import pytest

from tests.simulation.checker import violations_of
from tests.simulation.history import Entry, state_at

Told = tuple[str, str, dict[str, Any]]


def kinds(*told: Told) -> list[str]:
    """The kinds of violations of a history, one step for each entry."""
    history = [Entry(step, who, what, fields) for step, (who, what, fields) in enumerate(told, 1)]
    return [violation.kind for violation in violations_of(history)]


def append(batch: int, *values: str, who: str = "p", **fields: Any) -> Told:
    return who, "append", {"batch": batch, "values": values, **fields}


def stored(batch: int, base: int, who: str = "p") -> Told:
    return who, "stored", {"batch": batch, "base": base}


def refused(batch: int) -> Told:
    return "p", "refused", {"batch": batch, "error": "LogFull"}


def read(seq_no: int, value: str) -> Told:
    return "s", "read", {"seq_no": seq_no, "value": value}


def opened(at: int) -> Told:
    return "s", "opened", {"at": at}


def log(*values: str, first: int = 1) -> Told:
    return "end", "log", {"first": first, "events": dict(enumerate(values, first))}


A, B = append(1, "a"), append(2, "b")

LOGS: dict[str, tuple[list[Told], list[str]]] = {
    "all is well": ([A, stored(1, 1), B, opened(1), read(1, "a"), log("a", "b")], []),
    "an append without an answer may be missing": ([A, log()], []),
    "an acknowledged append is lost": ([A, stored(1, 1), log()], ["lost write"]),
    "an event that was read is lost": ([A, opened(1), read(1, "a"), log()], ["lost write"]),
    "an event is stored twice": ([A, stored(1, 1), log("a", "a")], ["duplicate"]),
    "a batch has two answers": ([A, stored(1, 1), stored(1, 2)], ["duplicate"] * 2),
    "a number has two values": ([A, B, stored(1, 1), stored(2, 1)], ["two values"]),
    "a reader sees another value": (
        [A, B, stored(1, 1), opened(1), read(1, "b")],
        ["two values"],
    ),
    "a reader skips": ([A, B, opened(1), read(2, "b")], ["skipped read"]),
    "a reader goes back": ([A, opened(1), read(1, "a"), read(1, "a")], ["read backwards"]),
    "a refused append is read": ([A, opened(1), read(1, "a"), refused(1)], ["refused append"]),
    "a refused append is stored": ([A, refused(1), log("a")], ["refused append"]),
    "nobody appended it": ([log("a")], ["phantom"]),
    "a later append gets a smaller number": (
        [A, stored(1, 2), B, stored(2, 1)],
        ["not linearizable"],
    ),
    "appends at the same time get any numbers": ([A, B, stored(1, 2), stored(2, 1)], []),
    "a batch is torn": ([append(1, "a", "b"), log("a")], ["torn batch"]),
    "retention leaves a part": ([append(1, "a", "b"), log("b", first=2)], []),
    "batches of one producer change places": ([A, B, log("b", "a")], ["reordered"]),
    "one may be repeated late where a full log is an error": (
        [("log", "options", {"on_full": "error"}), A, B, log("b", "a")],
        [],
    ),
    "those of two may": ([A, append(2, "b", who="q"), log("b", "a")], []),
    "a subscription is told that there is nothing": (
        [A, opened(1), stored(1, 1), ("s", "caught_up", {"at": 1})],
        ["stale read"],
    ),
    "a subscription loses its place": (
        [opened(1), ("s", "caught_up", {"at": 2})],
        ["skipped read"],
    ),
    "retention is blamed for what is there": (
        [A, B, opened(1), ("s", "truncated", {"first": 2}), log("a", "b")],
        ["skipped read"],
    ),
    "retention sends a reader back": (
        [opened(3), ("s", "truncated", {"first": 2}), log(first=2)],
        ["read backwards"],
    ),
}


@pytest.mark.parametrize("name", LOGS)
def test_the_log(name: str) -> None:
    history, wanted = LOGS[name]
    assert kinds(*history) == wanted


# --- positions -------------------------------------------------------------------------------


def move(kind: str, op: int, to: int) -> Told:
    return "s", kind, {"op": op, "consumer": "c", "to": to}


def moved(op: int) -> Told:
    return "s", "moved", {"op": op}


def not_moved(op: int, to: int, last: int, error: str = "SequenceOutOfRange") -> Told:
    return "s", "not_moved", {"op": op, "error": error, "to": to, "last": last}


def at(position: int, state: bytes | None = None) -> Told:
    return "s", "position", {"consumer": "c", "at": position, "state": state}


POSITIONS: dict[str, tuple[list[Told], list[str]]] = {
    "it goes forward": ([move("ack", 1, 3), moved(1), at(3)], []),
    "an open request may be carried out": ([move("ack", 1, 3), at(0), at(3)], []),
    "but is not undone": ([move("ack", 1, 3), at(3), at(0)], ["position"]),
    "it stays behind": ([move("ack", 1, 3), moved(1), at(0)], ["position"]),
    "it runs ahead": ([move("ack", 1, 3), moved(1), at(4)], ["position"]),
    "an acknowledgement moves it back": (
        [move("ack", 1, 3), moved(1), move("ack", 2, 1), moved(2), at(1)],
        ["position"],
    ),
    "a seek does": ([move("ack", 1, 3), moved(1), move("seek", 2, 1), moved(2), at(1)], []),
    "what nobody knows may come later": (
        [
            *(move("seek", 1, 1), not_moved(1, 1, 9, "WriterUnavailable")),
            *(move("ack", 2, 5), moved(2), at(5), at(1)),
        ],
        [],
    ),
    "an event that is there cannot be acknowledged": (
        [move("ack", 1, 3), not_moved(1, 3, 3)],
        ["refused position"],
    ),
    "one that is not there": ([move("ack", 1, 4), not_moved(1, 4, 3), at(0)], []),
    "a state comes with its position": (
        [move("ackstate", 1, 3), moved(1), at(3, state_at(3)), move("ack", 2, 3), moved(2)],
        [],
    ),
    "it is lost": ([move("ackstate", 1, 3), moved(1), at(3)], ["position"]),
    "it is of another position": (
        [move("ackstate", 1, 3), moved(1), at(3, state_at(2))],
        ["position"],
    ),
    "it stays when the consumer moves on": (
        [move("ackstate", 1, 3), moved(1), move("ack", 2, 4), moved(2), at(4, state_at(4))],
        ["position"],
    ),
    "it comes late for the same position": (
        [move("ack", 1, 3), moved(1), move("ackstate", 2, 3), at(3), at(3, state_at(3))],
        [],
    ),
    "and it moves all the same": (
        [move("ack", 1, 4), not_moved(1, 4, 3), at(0), at(4)],
        ["position"],
    ),
}


@pytest.mark.parametrize("name", POSITIONS)
def test_positions(name: str) -> None:
    history, wanted = POSITIONS[name]
    assert kinds(*history) == wanted


# --- groups ----------------------------------------------------------------------------------


def group(ordering: str = "", max_deliveries: int = 2) -> Told:
    return "group", "group", {"ordering": ordering, "max_deliveries": max_deliveries}


def begin(who: str, seq_no: int, lease: int, attempt: int = 1, value: str = "") -> Told:
    fields = {"seq_no": seq_no, "key": "k", "attempt": attempt, "lease": lease, "value": value}
    return who, "handling", fields


def end(who: str, seq_no: int, lease: int, how: str = "done") -> Told:
    return who, "handled", {"seq_no": seq_no, "lease": lease, "how": how}


def died(who: str) -> Told:
    return who, "died", {}


def cut_off(who: str, *leases: int) -> Told:
    return who, "cut_off", {"leases": leases}


def settle(who: str, seq_no: int, lease: int, *, is_taken: bool) -> list[Told]:
    return [
        (who, "settle", {"op": 1, "seq_nos": [seq_no], "lease": lease}),
        (who, "settled", {"op": 1, "is_taken": is_taken}),
    ]


def result(batch: int, of: int, lease: int, who: str) -> Told:
    return append(batch, f"result of {of} by {lease}", who=who, acks=[of], lease=lease)


def drained(at: int, *letters: int, **keys: str) -> list[Told]:
    return [
        ("end", "keys", {"keys": {int(number[1:]): key for number, key in keys.items()}}),
        ("end", "letters", {"values": dict.fromkeys(letters)}),
        ("end", "drained", {"at": at}),
    ]


RETRY: Told = ("pool", "retry", {"seq_nos": [1]})
ONE: list[Told] = [group(), A, stored(1, 1)]
TWO: list[Told] = [group("key"), append(1, "a", "b"), stored(1, 1)]
DONE: list[Told] = [begin("m", 1, 7), end("m", 1, 7)]

GROUPS: dict[str, tuple[list[Told], list[str]]] = {
    "a handler is given what another one has changed": (
        [
            *(group(), A, stored(1, 1), begin("m", 1, 7, value="a"), end("m", 1, 7, "failed")),
            *(begin("m", 1, 8, 2, value="changed"), end("m", 1, 8), log("a"), *drained(1)),
        ],
        ["changed event"],
    ),
    "all is well": ([*ONE, *DONE, log("a"), *drained(1)], []),
    "a failure is tried again": (
        [
            *(*ONE, begin("m", 1, 7), end("m", 1, 7, "failed")),
            *(begin("n", 1, 8, 2), end("n", 1, 8), log("a"), *drained(1)),
        ],
        [],
    ),
    "an event is nobody's": ([*ONE, log("a"), *drained(1)], ["not handled"]),
    "a group says too early that it is through": (
        [*ONE, *DONE, log("a"), *drained(0)],
        ["not handled"],
    ),
    "two members at once": ([*ONE, begin("m", 1, 7), begin("n", 1, 8)], ["two members"]),
    "one that died is no second one": (
        [*ONE, begin("m", 1, 7), died("m"), begin("n", 1, 8, 2)],
        [],
    ),
    "nor one that was cut off": (
        [*ONE, begin("m", 1, 7), cut_off("m", 7), begin("n", 1, 8, 2)],
        [],
    ),
    "even before it began": (
        [*ONE, cut_off("m", 7), begin("m", 1, 7), begin("n", 1, 8)],
        [],
    ),
    "done, and handed out again": ([*ONE, *DONE, begin("n", 1, 8)], ["handled again"]),
    "a death is not counted": (
        [*ONE, begin("m", 1, 7), died("m"), begin("n", 1, 8, 1)],
        ["miscounted"],
    ),
    "dead, and handed out again": (
        [group(max_deliveries=1), A, begin("m", 1, 7), died("m"), begin("n", 1, 8, 2)],
        ["handled again"],
    ),
    "a dead letter is missing": (
        [group(max_deliveries=1), A, begin("m", 1, 7), died("m"), log("a"), *drained(1)],
        ["dead letter"],
    ),
    "a dead letter is there": (
        [group(max_deliveries=1), A, begin("m", 1, 7), died("m"), log("a"), *drained(1, 1)],
        [],
    ),
    "a dead letter of what was done": ([*ONE, *DONE, log("a"), *drained(1, 1)], ["dead letter"]),
    "a dead letter is tried again": (
        [
            *(group(max_deliveries=1), A, begin("m", 1, 7), died("m"), RETRY),
            *(begin("n", 1, 8), end("n", 1, 8), log("a"), *drained(1)),
        ],
        [],
    ),
    "a dead letter is not tried again": (
        [
            *(group(max_deliveries=1), A, begin("m", 1, 7), died("m"), RETRY),
            *(log("a"), *drained(1, 1)),
        ],
        [],
    ),
    "a dead letter is lost": (
        [
            *(group(max_deliveries=1), A, begin("m", 1, 7), died("m"), RETRY),
            *(log("a"), *drained(1)),
        ],
        ["not handled"],
    ),
    "a live delivery is refused": (
        [*ONE, *DONE, *settle("m", 1, 7, is_taken=False)],
        ["live delivery"],
    ),
    "a superseded delivery is refused": (
        [
            *(*ONE, begin("m", 1, 7), cut_off("m", 7), begin("n", 1, 8, 2)),
            *(end("m", 1, 7), *settle("m", 1, 7, is_taken=False)),
        ],
        [],
    ),
    "a superseded delivery counts": (
        [
            *(*ONE, begin("m", 1, 7), cut_off("m", 7), begin("n", 1, 8, 2)),
            *(end("m", 1, 7), *settle("m", 1, 7, is_taken=True)),
        ],
        ["superseded delivery"],
    ),
    "a superseded delivery's result is stored": (
        [
            *(*ONE, begin("m", 1, 7), cut_off("m", 7), begin("n", 1, 8, 2)),
            *(end("m", 1, 7, "returned"), result(2, 1, 7, "m"), stored(2, 2, "m")),
        ],
        ["superseded delivery"],
    ),
    "an event has two results": (
        [
            *(*ONE, begin("m", 1, 7), end("m", 1, 7, "returned"), result(2, 1, 7, "m")),
            *(died("m"), begin("n", 1, 8), end("n", 1, 8, "returned"), result(3, 1, 8, "n")),
            *(stored(3, 3, "n"), log("a", "result of 1 by 7", "result of 1 by 8"), *drained(3)),
        ],
        ["two results", "superseded delivery"],
    ),
    "a result that was perhaps stored was not": (
        [
            *(*ONE, begin("m", 1, 7), end("m", 1, 7, "returned"), result(2, 1, 7, "m")),
            *(died("m"), log("a"), *drained(1)),
        ],
        ["not handled"],
    ),
    "a result that was perhaps stored was": (
        [
            *(*ONE, begin("m", 1, 7), end("m", 1, 7, "returned"), result(2, 1, 7, "m")),
            *(died("m"), log("a", "result of 1 by 7"), *drained(2)),
        ],
        [],
    ),
    "a group is handed its own result": (
        [
            *(*ONE, begin("m", 1, 7), end("m", 1, 7, "returned"), result(2, 1, 7, "m")),
            *(stored(2, 2, "m"), begin("n", 2, 8), end("n", 2, 8)),
            *(log("a", "result of 1 by 7"), *drained(2)),
        ],
        ["own result"],
    ),
    "events of a key wait for each other": (
        [
            *(*TWO, *DONE, begin("n", 2, 8), end("n", 2, 8)),
            *(log("a", "b"), *drained(2, _1="k", _2="k")),
        ],
        [],
    ),
    "a key's events at the same time": (
        [
            *(*TWO, begin("m", 1, 7), begin("n", 2, 8), end("m", 1, 7), end("n", 2, 8)),
            *(log("a", "b"), *drained(2, _1="k", _2="k")),
        ],
        ["key order"],
    ),
    "a key's events out of order": (
        [
            *(*TWO, begin("n", 2, 8), end("n", 2, 8), *DONE),
            *(log("a", "b"), *drained(2, _1="k", _2="k")),
        ],
        ["key order"],
    ),
    "two keys have no order": (
        [
            *(*TWO, begin("n", 2, 8), end("n", 2, 8), *DONE),
            *(log("a", "b"), *drained(2, _1="k", _2="l")),
        ],
        [],
    ),
}


@pytest.mark.parametrize("name", GROUPS)
def test_groups(name: str) -> None:
    history, wanted = GROUPS[name]
    assert kinds(*history) == wanted


def wrong(batch: int, key: str, last: int) -> Told:
    return "p", "wrong", {"batch": batch, "key": key, "last": last}


def of(**keys: str) -> Told:
    return "end", "key_of", {"keys": keys}


def expecting(batch: int, value: str, **expect: int) -> Told:
    return append(batch, value, expect=expect)


EXPECTATIONS: dict[str, tuple[list[Told], list[str]]] = {
    "each names the one before it": (
        [expecting(1, "a", k=0), expecting(2, "b", k=1), log("a", "b"), of(a="k", b="k")],
        [],
    ),
    "two expect the same, and both are stored": (
        [expecting(1, "a", k=0), expecting(2, "b", k=0), log("a", "b"), of(a="k", b="k")],
        ["broken expectation"],
    ),
    "an event of another key stands between": (
        [
            *(expecting(1, "a", k=0), B, expecting(3, "c", k=1)),
            *(log("a", "b", "c"), of(a="k", b="l", c="k")),
        ],
        [],
    ),
    "the expected event is of another key": (
        [A, expecting(2, "b", k=1), log("a", "b"), of(a="l", b="k")],
        ["broken expectation"],
    ),
    "retention has deleted what came before": (
        [
            *(expecting(1, "a", k=0), expecting(2, "b", k=0), stored(1, 1), stored(2, 2)),
            *(log("b", first=2), of(a="k", b="k")),
        ],
        [],
    ),
    "one is refused as it should": (
        [A, expecting(2, "b", k=0), wrong(2, "k", 1), log("a"), of(a="k", b="k")],
        [],
    ),
    "one is refused for what it expected": (
        [A, expecting(2, "b", k=1), wrong(2, "k", 1), log("a"), of(a="k", b="k")],
        ["wrong refusal"],
    ),
    "one is refused for an event of another key": (
        [A, expecting(2, "b", k=0), wrong(2, "k", 1), log("a"), of(a="l", b="k")],
        ["wrong refusal"],
    ),
}


@pytest.mark.parametrize("name", EXPECTATIONS)
def test_expectations(name: str) -> None:
    history, wanted = EXPECTATIONS[name]
    assert kinds(*history) == wanted
