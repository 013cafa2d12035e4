"""`eventlog query`: SQL about a log, which only reads, and no more of the log than it needs."""

from __future__ import annotations

import csv
import io
import json
import re
from contextlib import closing
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest

from eventlog import blocking
from eventlog.arrow.tables import Stream
from eventlog.cli import query
from eventlog.cli.address import _OpenedLog
from eventlog.cli.app import USAGE, WRONG_USE
from eventlog.demo.main_job import stop_process
from eventlog.errors import CorruptLog, InvalidArgument
from eventlog.sql.database import Database
from eventlog.sql.limits import Limits
from tests.commands import out, run


def asked(statement: str, events: list[Any]) -> list[tuple[Any, ...]]:
    """The rows of a statement about a log with these events."""
    with blocking.open(f"memory:{uuid4()}") as log, closing(Database(statement)) as database:
        if events:
            log.append_many(events)
        _, rows = database.run(Stream(log.read(1)._read))
        return [tuple(row) for row in rows]


def limits_of(statement: str) -> Limits:
    with closing(Database(statement)) as database:
        return database.limits()


# --- what is read ------------------------------------------------------------------------------

JANUARY = datetime(2026, 1, 31, tzinfo=UTC)


@pytest.mark.parametrize(
    ("where", "limits"),
    [
        ("seq_no > 5", Limits(6)),
        ("5 <= seq_no", Limits(5)),
        ("seq_no < 5", Limits(stop=5)),
        ("SEQ_NO <= 5", Limits(stop=6)),
        ("events.seq_no = 5", Limits(5, 6)),
        ("seq_no between 3 and 2 + 5", Limits(3, 8)),
        ("seq_no > 1 and (seq_no > 3 and total > 7) and seq_no < 9 - 1", Limits(4, 8)),
        ("stored_at >= '2026-01-31 00:00:00+00'", Limits(since=JANUARY)),
        (
            "stored_at > timestamptz '2026-02-01 00:00:00+00' - interval 1 day",
            Limits(since=JANUARY),
        ),
        ("stored_at < '2026-01-31'", Limits()),
        ("seq_no > 5 or total > 7", Limits()),
        ("not seq_no > 5", Limits()),
        ("seq_no > total", Limits()),
        ("seq_no > 5.5", Limits()),
        ("seq_no > random() * 5", Limits()),
        ("seq_no > (select 5)", Limits()),
        ("seq_no + 1 > 5", Limits()),
        ("inner_.seq_no > 5", Limits()),
        ("timestamp > '2026-01-31'", Limits()),
    ],
)
def test_the_where_says_which_events_are_needed(where: str, limits: Limits) -> None:
    assert limits_of(f"select count(*) from events where {where} group by city limit 3") == limits


@pytest.mark.parametrize(
    "statement",
    [
        "select * from events",
        "select * from events a, events b where seq_no > 5",
        "select * from events where seq_no > 5 union all select * from events",
        "select * from (select * from events) where seq_no > 5",
        "select -seq_no as seq_no from events where seq_no > 5",
        "with events as (select 9 as seq_no) select * from events where seq_no > 5",
        "select *, (select count(*) from events) from events where seq_no > 5",
        "select * from events tablesample 10 rows where seq_no > 5",
        "select * from range(9) events(seq_no) where seq_no > 5",
        "describe events",
    ],
)
def test_a_statement_that_is_about_more_than_events_needs_all_of_them(statement: str) -> None:
    assert limits_of(statement) == Limits()


def test_an_earliest_time_before_now_is_worked_out() -> None:
    found = limits_of("select 1 from events where stored_at > now() - interval 1 hour")
    assert found.since is not None
    assert 3500 < (datetime.now(UTC) - found.since).total_seconds() < 3700


# --- what is answered --------------------------------------------------------------------------


def test_events_are_a_table_that_may_be_read_several_times() -> None:
    events = [{"n": n, "tags": ["a"], "in": {"x": n}} for n in range(2000)]
    rows = asked("select sum(a.n), max(b.in.x) from events a join events b using (seq_no)", events)
    assert rows == [(1999000, 1999)]


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("selec 1", "LINE 1: selec 1\n        ^"),
        ("select nope from events", '"nope" not found'),
        ("select cast('x' as int) from events", "'x'"),
        ("select 1; select 2", "one statement"),
        ("", "one statement"),
        ("create table t as select 1", "one statement"),
        ("copy (select 1) to 'file'", "one statement"),
        ("set threads = 1", "one statement"),
        ("attach 'file'", "one statement"),
        ("install httpfs", "one statement"),
        ("select * from read_csv('/etc/passwd')", "disabled"),
        ("select * from glob('/*')", "disabled"),
        ("select * from '/etc/passwd'", "does not exist"),
        ("select * from sys", "does not exist"),
    ],
)
def test_a_statement_that_is_wrong_or_would_do_more_than_read_is_refused(
    statement: str, said: str
) -> None:
    with pytest.raises(InvalidArgument, match=re.escape(said)) as caught:
        asked(statement, [1])
    assert isinstance(caught.value, WRONG_USE)


def test_an_error_of_the_log_is_that_error() -> None:
    with blocking.open(f"memory:{uuid4()}") as log, closing(Database("from events")) as database:
        log.append_many({"n": n} for n in range(2000))
        log.append({"late": 1})
        stream = Stream(log.read(1)._read)

        def damaged(_: Any) -> Any:
            raise CorruptLog("event 7 is damaged", path="log", seq_no=7)

        stream._batches._read = damaged
        with pytest.raises(CorruptLog, match="event 7 is damaged"):
            [*database.run(stream)[1]]


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        ("'a\nb'", "a\nb"),
        ("1.5::double", "1.5"),
        ("'nan'::double", "nan"),
        ("true", "true"),
        ("[1, null]", "[1, null]"),
        ("{'a': {'b': date '2026-01-31'}}", '{"a": {"b": "2026-01-31"}}'),
        ("timestamptz '2026-01-31 12:00:00+00'", "2026-01-31T12:00:00+00:00"),
        ("'a'::blob", "YQ=="),
        ("1.50::decimal(5, 2)", "1.50"),
        ("map {'a': 'b'}", '{"a": "b"}'),
        ("sum(2::hugeint ** 70)", None),
        ("interval 1 day", "1 day, 0:00:00"),
    ],
)
def test_values_of_any_type_have_a_text(expression: str, text: str | None) -> None:
    ((value,),) = asked(f"select {expression} from events", [1])
    assert text is None or query._text(value).replace("Z", "+00:00") == text
    assert json.dumps(query._text(value))


# --- the command -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("query") / "log"
    with blocking.open(path) as opened:
        opened.append_many({"order": n, "total": n / 2} for n in range(100))
        opened.append({"city": "Łódź"}, key="k")
        pid = opened.status().writer_pid
    assert pid is not None
    stop_process(pid)
    return str(path)


def test_rows_are_a_table_or_lines_of_json_or_csv(
    log: str, capsys: pytest.CaptureFixture[str]
) -> None:
    table = out("query", log, "select city, key, seq_no from events", "--key", "k")
    assert table.splitlines()[3].split() == ["│", "Łódź", "│", "k", "│", "101", "│"]
    names, row = ["n", "text", "n"], (1, 'a "b"\nŁ', None)
    query._print_json(names, iter([row]))
    assert capsys.readouterr().out == '{"n": 1, "text": "a \\"b\\"\\nŁ", "n_2": null}\n'
    query._print_csv(names, iter([row]))
    assert [*csv.reader(io.StringIO(capsys.readouterr().out))] == [names, ["1", 'a "b"\nŁ', ""]]


def test_a_field_that_only_other_events_have_is_there_all_the_same(log: str) -> None:
    """What a WHERE leaves unread must not change what the statement means."""
    assert out("query", log, "select count(city) c from events where seq_no < 5", "--json") == (
        '{"c": 0}\n'
    )


def test_a_wrong_statement_is_exit_code_2_and_says_where(log: str) -> None:
    done = run("query", log, "select nope from events", "--to", "3")
    assert done.returncode == USAGE
    assert "LINE 1: select nope from events\n               ^^^^" in done.stderr
    assert "Traceback" not in done.stderr


def test_nothing_is_read_that_the_where_refuses() -> None:
    with blocking.open(f"memory:{uuid4()}") as opened:
        opened.append_many({"n": n} for n in range(100))
        reading = _OpenedLog(opened)
        spans = [
            query._within(reading, 1, 101, limits_of(f"from events where {where}"))
            for where in (
                "seq_no > 90",
                "seq_no > 90 and seq_no < 95",
                "stored_at > '2200-01-01'",
                "stored_at > '2000-01-01' and seq_no <= 3",
                # Of no event, which was refused:
                "stored_at > '1900-01-01'",
                "stored_at > now() - interval 100 year",
                "stored_at > '-infinity'",
            )
        ]
    assert spans == [(91, 101), (91, 95), (101, 101), (1, 4), *[(1, 101)] * 3]
