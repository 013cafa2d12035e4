"""`eventlog export` as a table: CSV, Parquet and Arrow, ranges, keys and columns."""

from __future__ import annotations

import csv
import io
import json
import os
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from eventlog import blocking
from eventlog.arrow import files
from eventlog.cli.export import Format, _check_form, _write
from eventlog.demo.main_job import stop_process
from eventlog.errors import InvalidArgument
from tests.commands import out, run, run_bytes


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A log of twenty events whose times are known."""
    path = tmp_path_factory.mktemp("export") / "log"
    with blocking.open(path) as opened:
        for n in range(20):
            event = {"n": n, "total": n / 2, "text": 'a "b", c\nŁ', "in": {"x": [n]}, "raw": b"a"}
            opened.append(event, key=f"k{n % 2}", headers={"a": "b"} if n == 3 else None)
        opened.append("alone")
        pid = opened.status().writer_pid
    assert pid is not None
    stop_process(pid)
    return str(path)


def test_a_table_is_written_in_each_form(log: str, tmp_path: Path) -> None:
    with blocking.open(log, start_writer=False) as opened:
        table = opened.to_arrow()
    for form in ("parquet", "arrow"):
        out("export", log, str(tmp_path / form), "--format", form)
    assert pq.read_table(tmp_path / "parquet").equals(table)
    assert pa.ipc.open_file(tmp_path / "arrow").read_all().equals(table)


def test_csv_has_what_is_nested_as_json_and_times_as_iso_says(log: str) -> None:
    rows = list(csv.DictReader(io.StringIO(out("export", log, "--format", "csv"))))
    assert len(rows) == 21
    row = rows[3]
    assert (row["seq_no"], row["key"], row["n"], row["total"]) == ("4", "k1", "3", "1.5")
    assert (row["text"], row["raw"]) == ('a "b", c\nŁ', "YQ==")
    assert (json.loads(row["in"]), json.loads(row["headers"])) == ({"x": [3]}, {"a": "b"})
    assert datetime.fromisoformat(row["stored_at"]).tzinfo == UTC
    assert (rows[20]["event"], rows[20]["n"], rows[20]["headers"]) == ("alone", "", "")


def test_only_the_columns_and_events_asked_for_are_written(log: str) -> None:
    text = out("export", log, "--format", "csv", "--fields", "n,seq_no", "--key", "k1", "--to", "6")
    assert text == '"n","seq_no"\n1,2\n3,4\n5,6\n'
    lines = out("export", log, "--key", "k0", "--from", "15").splitlines()
    assert [json.loads(line)["seq_no"] for line in lines] == [15, 17, 19]


def test_ranges_of_times_are_those_of_storing(log: str) -> None:
    with blocking.open(log, start_writer=False) as opened:
        times = [one.stored_at or datetime.now(UTC) for one in opened.read(1)]
    since, until = times[5], times[15]
    lines = out("export", log, "--since", since.isoformat(), "--until", until.isoformat())
    numbers = [json.loads(line)["seq_no"] for line in lines.splitlines()]
    assert numbers == [n for n, stored in enumerate(times, 1) if since <= stored < until]
    late = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    assert out("export", log, "--since", late) == ""


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--format csv --fields n,nope", "there is no column 'nope'"),
        ("--format csv --fields n,n", "'n' is named twice"),
        ("--fields n", "give --format csv, parquet or arrow"),
        ("--from 3 --since 1h", "give one of them"),
        ("--since soon", "'soon' is no time"),
    ],
    ids=["unknown", "twice", "whole", "both", "time"],
)
def test_a_wrong_option_is_named_and_no_file_is_left(
    log: str, tmp_path: Path, options: str, said: str
) -> None:
    done = run("export", log, str(tmp_path / "file"), *options.split())
    assert done.returncode == 2
    assert said in done.stderr
    assert os.listdir(tmp_path) == []


def test_a_table_goes_through_a_pipe_to_whoever_reads_it(log: str) -> None:
    done = run_bytes("export", log, "--format", "parquet", "--to", "5")
    assert done.returncode == 0, done.stderr
    assert pq.read_table(pa.BufferReader(done.stdout)).num_rows == 5


class Terminal(io.BytesIO):
    def isatty(self) -> bool:
        return True


def test_csv_on_a_terminal_has_nothing_that_it_obeys(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    with blocking.open("memory:terminal") as log:
        log.append({"text": "\x1b[31mŁ"})
        _write(terminal, log.read(1)._read, Format.CSV, "text")
    assert terminal.getvalue().decode() == '"text"\n"\\x1b[31mŁ"\n'
    monkeypatch.setattr(sys, "stdout", terminal)
    with pytest.raises(InvalidArgument, match="parquet is nothing for a terminal"):
        _check_form(Format.PARQUET, "-", None)


@pytest.mark.parametrize("form", ["csv", "parquet", "arrow"])
def test_any_column_can_be_written(form: str, tmp_path: Path) -> None:
    with blocking.open("memory:any-column") as log:
        log.append_many(
            [
                {"none": None, "empty": [], "lists": [[1], []], "mixed": 1, "large": 2**64 - 1},
                {"mixed": "a", "struct": {"a": {"b": [{"c": b"x"}]}}, "nothing": {}, "": 1},
                {"at": datetime(2026, 1, 1, tzinfo=UTC), "flag": True},
            ]
        )
        written = b"".join(files.table_pieces(log.read(1)._read, form, None))
        table = log.to_arrow()
    if form == "csv":
        _, first, *_ = csv.reader(io.StringIO(written.decode()))
        assert first[5:10] == ["", "[]", "[[1],[]]", "1", str(2**64 - 1)]
        return
    source = pa.BufferReader(written)
    read = pq.read_table(source) if form == "parquet" else pa.ipc.open_file(source).read_all()
    assert read.to_pylist() == table.to_pylist()


def test_row_groups_are_cut_where_they_are_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "GROUP_ROWS", 10_000)
    with blocking.open("memory:row-groups") as log:
        log.append_many(range(50_000))
        written = b"".join(files.table_pieces(log.read(1)._read, "parquet", None))
    parquet = pq.ParquetFile(pa.BufferReader(written))
    assert parquet.metadata.num_rows == 50_000
    assert parquet.num_row_groups == 4
