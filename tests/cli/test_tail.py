"""`eventlog tail` and its like: which events are chosen, from where to where, and how they look.

Real commands read real logs; expressions are tried on envelopes, as they are pure.
"""

from __future__ import annotations

import json
import os
import pty
import random
import subprocess
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest

from eventlog import EventEnvelope, InvalidArgument, blocking
from eventlog.terminal.positions import moment_of, position_of
from eventlog.terminal.where import CHARACTERS_MAX, where_of
from tests.cli.test_cli import log
from tests.commands import COMMAND, ENVIRONMENT, out, run

__all__ = ["log"]

ORDERS: Final[list[Any]] = [
    {"a": 1, "items": [{"sku": "x"}]},
    {"a": 2, "who": "Ada"},
    {"a": 2, "who": "Bob"},
    "text",
    7,
]
KEYS: Final = ["k", "k", "other", None, "k"]
HEADERS: Final = [None, {"source": "x"}, {"source": "y", "content-type": "t"}, None, None]


@pytest.fixture
def orders(log: str) -> str:
    """A log of five events, each stored at a time of its own."""
    with blocking.open(log) as opened:
        for event, key, headers in zip(ORDERS, KEYS, HEADERS, strict=True):
            opened.append(event, key=key, headers=headers)
    return log


def numbers(log: str, *options: str) -> list[int]:
    return [int(line.split("\t")[0]) for line in out("tail", log, *options).splitlines()]


def times_of(log: str) -> list[str]:
    """When each event was stored, in the form of ISO."""
    with blocking.open(log) as opened:
        return [f"{one.stored_at:%Y-%m-%dT%H:%M:%S.%f+00:00}" for one in opened.read(1)]


# --- which events ------------------------------------------------------------------------------


def test_tail_chooses_by_key_and_by_expression(orders: str) -> None:
    assert numbers(orders, "--key", "k") == [1, 2, 5]
    assert numbers(orders, "--key", "k", "--key", "other") == [1, 2, 3, 5]
    assert numbers(orders, "--key", "nobody") == []
    assert numbers(orders, "--where", 'event.a == 2 and headers.source == "x"') == [2]
    assert numbers(orders, "--key", "k", "--where", "event.a") == [1, 2]
    rows = out("tail", orders, "--json", "--where", "not event.a").splitlines()
    assert [json.loads(row)["event"] for row in rows] == ["text", 7]


def test_the_last_ones_are_the_last_that_are_chosen(log: str) -> None:
    # They lie further back than one look: the newest 2,000 events have another key.
    with blocking.open(log) as opened:
        opened.append_many(range(100), keys=["rare"] * 100)
        opened.append_many(range(2000), keys=["common"] * 2000)
        opened.append(0, key="rare")
    assert numbers(log, "--key", "rare", "-n", "3") == [99, 100, 2101]
    assert numbers(log, "--key", "rare") == [*range(92, 101), 2101]
    assert numbers(log, "--key", "rare", "-n", "0") == []
    assert numbers(log, "--key", "rare", "--until", "2100", "-n", "2") == [99, 100]
    assert numbers(log, "--key", "rare", "--from", "50", "-n", "2") == [50, 51]
    assert len(numbers(log, "--key", "rare", "-n", "5000")) == 101


def test_the_latest_of_each_key_is_what_the_key_is_now(orders: str) -> None:
    with blocking.open(orders) as log:
        log.append({"a": 9}, key="gone")
        log.delete("gone")
    latest = numbers(orders, "--latest-per-key")
    assert latest == [3, 5]
    assert numbers(orders, "--latest-per-key", "-n", "1") == [5]
    assert numbers(orders, "--latest-per-key", "-n", "0") == []
    assert numbers(orders, "--latest-per-key", "--key", "other") == [3]
    assert numbers(orders, "--latest-per-key", "--where", "event == 7") == [5]
    assert numbers(orders, "--latest-per-key", "--until", "2") == [2]
    assert numbers(orders, "--latest-per-key", "--until", "6") == [3, 5, 6]
    for options in (("-f",), ("--consumer", "c")):
        done = run("tail", orders, "--latest-per-key", *options)
        assert done.returncode == 2
        assert "leave out -f and --consumer" in done.stderr


def test_a_range_of_times_has_its_start_and_not_its_end(orders: str) -> None:
    times = times_of(orders)
    assert numbers(orders, "--since", times[2]) == [3, 4, 5]
    assert numbers(orders, "--from", times[2]) == [3, 4, 5]
    assert numbers(orders, "--until", times[2]) == [1, 2]
    assert numbers(orders, "--until", times[2], "-n", "1") == [2]
    assert numbers(orders, "--since", times[1], "--until", times[3]) == [2, 3]
    assert numbers(orders, "--since", times[1], "--until", times[3], "-n", "1") == [2]
    assert numbers(orders, "--from", "2", "--until", "4") == [2, 3, 4]
    assert numbers(orders, "--from", "1h", "--until", "2099-01-01") == [1, 2, 3, 4, 5]
    assert numbers(orders, "--since", "1h", "--until", "30m") == []
    assert numbers(orders, "--until", "1h") == []


def test_a_consumer_acknowledges_what_it_passed_over(orders: str) -> None:
    tail = ("--consumer", "c", "--where", 'event == "text"')
    assert numbers(orders, *tail, "--until", "3") == []
    assert json.loads(out("consumers", orders, "--json"))["last_acked"] == 3
    assert numbers(orders, *tail) == [4]
    assert json.loads(out("consumers", orders, "--json"))["last_acked"] == 5


def test_following_goes_on_with_what_is_chosen(orders: str) -> None:
    command = [*COMMAND, "tail", orders, "-f", "-n", "1", "--key", "k"]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT) as tail,
        blocking.open(orders) as opened,
    ):
        assert tail.stdout is not None
        assert tail.stdout.readline() == "5\t7\n"
        opened.append("not this", key="other")
        opened.append("this", key="k")
        assert tail.stdout.readline() == "7\tthis\n"
        tail.kill()


def test_export_takes_a_position_in_words(orders: str) -> None:
    def exported(*options: str) -> list[int]:
        lines = out("export", orders, *options).splitlines()
        return [json.loads(line)["seq_no"] for line in lines]

    assert exported("--from", times_of(orders)[3]) == [4, 5]
    assert exported("--from", "2h", "--to", "2") == [1, 2]
    assert exported("--from", "beginning") == [1, 2, 3, 4, 5]
    assert exported("--from", "0") == [1, 2, 3, 4, 5]
    assert exported("--from", "latest") == []
    assert exported("--from", "2099-01-01") == []


WRONG: Final = [
    (("tail", "--from", "1h", "--since", "2h"), "give one of them"),
    (("tail", "-f", "--until", "1h"), "give one of them"),
    (("tail", "--json", "--format", "{key}"), "give one of them"),
    (("tail", "--speed", "10x"), "give both"),
    (("tail", "--from", "last-acknowledged"), "needs --consumer"),
    (("tail", "--until", "latest"), "not latest"),
    (("tail", "--since", "beginning"), "'beginning' is no time"),
    (("tail", "--until", "soon"), "'soon' is no position"),
    (("tail", "--where", "event.a = 2"), "\n  event.a = 2\n          ^\n"),
    (("tail", "--format", "{event.}"), "{event.} is no field"),
    (("tail", "-n", "0", "--format", "{nothing.a}"), "'nothing'"),  # and without an event
    (("tail", "--format", "{seq_no!x}"), "!x"),
    (("tail", "--format", "{seq_no:%H}"), "is no good"),
    (("export", "--from", "last-acknowledged"), "here is none"),
    (("export", "--from", "3", "--to", "2"), "--from 3 is after --to 2"),
    (("seek", "c", "soon"), "'soon' is no position"),
]


def test_what_cannot_be_meant_is_exit_code_2_with_a_reason(orders: str) -> None:
    for (command, *options), reason in WRONG:
        done = run(command, orders, *options)
        assert (done.returncode, done.stdout) == (2, ""), options
        assert reason in done.stderr
        assert "Traceback" not in done.stderr


# --- how they look -----------------------------------------------------------------------------


def on_a_terminal(*words: str, columns: int = 60) -> list[str]:
    """The lines that a command shows on a terminal."""
    ours, theirs = pty.openpty()
    environment = ENVIRONMENT | {"COLUMNS": str(columns), "TZ": "UTC"}
    with subprocess.Popen(
        [*COMMAND, *words],
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
        env=environment,
    ):
        os.close(theirs)
        shown = b""
        with suppress(OSError):  # the other end of a terminal is gone: an error, and not the end
            while data := os.read(ours, 65536):
                shown += data
    os.close(ours)
    return shown.decode().replace("\r\n", "\n").splitlines()


def test_a_terminal_shows_time_and_key_and_a_pipe_gets_what_scripts_read(log: str) -> None:
    long = "x" * 1000
    with blocking.open(log) as opened:
        opened.append(long, key="k1")
        opened.append("日本" * 50)
        opened.append({"a": 1})
        stored = f"{next(iter(opened.read(1))).stored_at:%Y-%m-%d %H:%M:%S}"
    first, second, third = on_a_terminal("tail", log)
    head = f"1  {stored}  k1  "
    assert first == head + "x" * (59 - len(head)) + "…"
    assert second.endswith("…")
    assert len(second) < len(first)  # each sign takes two columns
    assert third.endswith('  -  {"a": 1}')
    assert on_a_terminal("tail", log, "--full", "-n", "3")[0] == head + long
    assert out("tail", log).splitlines()[::2] == [f"1\t{long}", '3\t{"a": 1}']
    assert out("tail", log, "--full") == out("tail", log)


def test_a_format_has_times_and_parts_of_events(orders: str) -> None:
    times = times_of(orders)

    def shown(template: str, number: int) -> str:
        lines = out("tail", orders, "--from", str(number), "-n", "1", "--format", template)
        return lines.removesuffix("\n")

    local = moment_of(times[0]).astimezone()
    assert shown("{stored_at:%Y-%m-%d %H:%M:%S}", 1) == f"{local:%Y-%m-%d %H:%M:%S}"
    assert shown("{timestamp}", 1).startswith(times[0][:10])
    assert shown("{event.items[0].sku}|{event.items}|{event.none[3]}", 1) == (
        'x|[{"sku": "x"}]|None'
    )
    assert shown("{event.a:03d} {event[who]:>5} {key!r}", 2) == "002   Ada 'k'"
    assert shown("{headers[content-type]} {headers.source} {cause.group}", 3) == "t y None"
    assert shown("{{{event}}} {event.a:03d}", 4) == "{text} None"
    assert shown("{event.__class__} {key.upper}", 5) == "None None"


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("tail", ["--key", "--where", "--since", "--until", "--format", "--full", "--from"]),
        ("consumers", ["--max-lag"]),
        ("export", ["--from 1000", "--since 1d"]),
        ("seek", ["15m"]),
    ],
)
def test_the_help_has_an_example_of_each_option(command: str, options: list[str]) -> None:
    examples = out(command, "--help").split("Example", 1)[1]
    assert [option for option in options if option not in examples] == []


# --- expressions -------------------------------------------------------------------------------

STORED: Final = datetime(2026, 1, 31, 12, tzinfo=UTC)
ONE: Final = EventEnvelope(
    {"a": 2, "b": [1, {"c": "deep"}], "text": "some words", "none": None, "real": 1.5, 3: "three"},
    key="eu-1",
    headers={"source": "x", "content-type": "t"},
    timestamp=STORED,
    seq_no=7,
)


@pytest.mark.parametrize(
    "text",
    [
        'event.a == 2 and headers.source == "x"',
        "event['a'] == 2 or event == 1",
        'headers["content-type"] == "t"',
        'event.b[1].c == "deep" and event.b[-1].c == "deep"',
        "event.b[9] == null and event.b[-9] == None",
        'event[3] == "three"',
        "1 < event.a <= 2",
        "event.a in [1, 2] and event.a not in (3, 4)",
        '"words" in event.text and "c" in event.b[1]',
        "not (event.a != 2)",
        "-1 < event.a and event.real >= 1.5",
        "event.missing == null and event.none == null and event.missing != 2",
        "event.missing.deeper[0] == null",
        "not event.missing < 2 and not event.missing > 2",
        "not event.text < 2",
        "not 1 in event.a and 1 not in event.a",
        "len(event.b) == 2 and len(key) == 4 and len(event.a) == null",
        'startswith(key, "eu-") and not startswith(event.a, "2")',
        "seq_no == 7 and stored_at == null and cause == null and cause.group == null",
        'timestamp == "2026-01-31T12:00:00+00:00" and timestamp < "1s"',
        '"2026-01-30" < timestamp',
        "not timestamp < 5",
        "true and not false",
        "event.__class__ == null and key.upper == null",
        "event == event",
        "event\n.a\n== 2",
        "(event.a == 2)  # as I said",
    ],
)
def test_an_expression_is_true_of_an_envelope(text: str) -> None:
    assert where_of(text)(ONE) is True
    assert where_of(f"not ({text.partition('#')[0]})")(ONE) is False


@pytest.mark.parametrize(
    ("text", "marked", "reason"),
    [
        ("evnt.a == 2", "evnt", "no field 'evnt'; there are seq_no"),
        ("key == 1 and nope > 2", "nope", "no field 'nope'"),
        ('headers["ü"] == "ü" and nope', "nope", "no field 'nope'"),
        ('"日本\x1b" == key and nope', "nope", "no field 'nope'"),
        ("event.a = 2", "= 2", "invalid syntax"),
        ("event.a ==", "", "invalid syntax"),
        ("", "", "invalid syntax"),
        ("event.a == 1 && key", "& key", "invalid syntax"),
        ('__import__("os").system("x")', "__import__", "only len(VALUE)"),
        ("len(event, 1)", "len", "len takes 1 value"),
        ("startswith(key)", "startswith", "startswith takes 2 values"),
        ("len(key=1)", "len", "len takes 1 value"),
        ("key.upper()", "key", "only len(VALUE)"),
        ("1 + event.a", "1", "not understood"),
        ("9 ** 9 ** 9", "9 **", "not understood"),
        ("[x for x in event]", "[x", "not understood"),
        ("lambda: 1", "lambda", "not understood"),
        ("(y := 2)", "y", "not understood"),
        ("f'{event}'", "f'", "not understood"),
        ("event.a if key else 1", "event", "not understood"),
        ("{'a': 1} == event", "{", "not understood"),
        ("event[1:2]", "1:2", "in brackets"),
        ("event[key]", "key]", "in brackets"),
        ("event[true]", "true", "in brackets"),
        ("event is null", "event", "== or !="),
        ("~event.a", "~", "a sign stands"),
        ("-event.a < 1", "-", "a sign stands"),
        ("b'x' == key", "b'x'", "is no text"),
        ('stored_at > "soon"', '"soon"', "'soon' is no time"),
        ("not " * 40 + "key", None, "levels are nested"),
        ("(" * 300 + "key" + ")" * 300, None, "too many nested"),
        ("event" + ".a" * 100, None, "levels are nested"),
        ("key == '\0'", None, ""),
        ("key == '\udcff'", None, "no expression"),
    ],
)
def test_a_wrong_expression_shows_its_place(text: str, marked: str | None, reason: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        where_of(text)
    said, line, mark = str(caught.value).split("\n")
    assert reason in said
    assert mark.strip() == "^"
    if marked is not None and "日" not in text:
        assert line[mark.index("^") :].startswith(marked)
    elif marked is not None:  # a sign of two columns, and an escape of four
        assert mark.index("^") == 2 + len('"日本" == key and ') + 2 + len(r"\x1b")


def test_any_words_are_an_expression_or_wrong_at_a_place() -> None:
    words = """event . a [ ] ( ) == != < in not and or null 1 -2 "x" key headers seq_no timestamp
        stored_at len startswith , is + ** { } lambda : = for if else await yield * f'{key}' ü"""
    chance = random.Random(20261128)
    understood, wrong = 0, []
    for _ in range(4000):
        text = " ".join(chance.choices(words.split(), k=chance.randint(1, 7)))
        try:
            is_meant = where_of(text)
        except InvalidArgument as error:
            wrong.append(str(error))
            continue
        assert is_meant(ONE) in (True, False), text
        understood += 1
    assert understood > 40
    assert [text for text in wrong if not text.endswith("^")] == []


def test_a_long_expression_is_refused_before_it_is_read() -> None:
    for text in ("key == 'x' or " * 200 + "key", "not " * CHARACTERS_MAX, "9" * 5000):
        with pytest.raises(InvalidArgument, match="characters; give at most"):
            where_of(text)


# --- places, and alerts ------------------------------------------------------------------------


def test_a_position_may_be_said_by_how_long_ago_it_is() -> None:
    before = datetime.now(UTC) - timedelta(minutes=15)
    position = position_of("15m")
    after = datetime.now(UTC) - timedelta(minutes=15)
    assert position.kind == "timestamp"
    assert before.timestamp() - 1 <= position.value / 1e9 <= after.timestamp() + 1
    for text in ("", "15", "m", "15 m", "1w", "-1h", "1.5h"):
        with pytest.raises(InvalidArgument):
            moment_of(text)


def test_a_consumer_too_far_behind_is_exit_code_1_with_a_line(orders: str) -> None:
    out("ack", orders, "late", "2")
    out("ack", orders, "quick", "5")
    assert out("consumers", orders, "--max-lag", "3") == out("consumers", orders)
    for options in ([], ["--json"]):
        done = run("consumers", orders, "--max-lag", "2", *options)
        assert done.returncode == 1
        assert done.stdout == out("consumers", orders, *options)
        assert done.stderr == "consumer late is 3 events behind, more than 2\n"
