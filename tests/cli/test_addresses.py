"""Commands with the address of an engine: the same texts and exit codes as with a directory.

The engine is the toy of the conformance suite, whose logs live as long as the process. So commands
run in this one, as `eventlog` and `workers` would run them.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

import pytest

import eventlog.cli.app
import workers.cli.app
from eventlog import Failure, blocking
from eventlog.api.over_async import LogOverAsync
from eventlog.testing import batch_of, open_storage

ENGINES = Path(__file__).parents[1] / "conformance" / "engines"


class Done(NamedTuple):
    """What a command said, and how it ended."""

    code: int
    out: str
    err: str


Run = Callable[..., Done]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Run `eventlog ...` or, with `program="workers"`, `workers ...` in this process."""
    monkeypatch.syspath_prepend(str(ENGINES))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("NO_COLOR", "1")
    limit = sys.getrecursionlimit()
    actions = {one: signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)}

    def run(*arguments: str, program: str = "eventlog") -> Done:
        main = workers.cli.app.run if program == "workers" else eventlog.cli.app.run
        monkeypatch.setattr(sys, "argv", [program, *arguments])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        sys.setrecursionlimit(limit)
        for number, action in actions.items():  # a program ignores them at its very end
            signal.signal(number, action)
        assert isinstance(ended.value.code, int)
        return Done(ended.value.code, *capfd.readouterr())

    return run


@pytest.fixture
def toy(tmp_path: Path) -> str:
    """The address of a log that no other test has."""
    return f"toy://{tmp_path}/log"


def numbers(done: Done) -> list[int]:
    assert done.code == 0, done.err
    return [int(line.split("\t")[0]) for line in done.out.splitlines()]


def test_events_are_appended_and_printed(run: Run, toy: str) -> None:
    assert run("append", toy, *map(str, range(1, 21)), "--key", "k") == (0, "1..20\n", "")
    assert numbers(run("tail", toy)) == list(range(11, 21))
    assert numbers(run("tail", toy, "-n", "2")) == [19, 20]
    assert numbers(run("tail", toy, "--from", "18")) == [18, 19, 20]
    assert numbers(run("tail", toy, "--from", "beginning", "-f", "-n", "3")) == [1, 2, 3]
    row = json.loads(run("tail", toy, "-n", "1", "--json").out)
    assert (row["seq_no"], row["key"], row["event"]) == (20, "k", 20)


def test_events_are_chosen_by_key_expression_number_and_time(run: Run, toy: str) -> None:
    with blocking.open(toy) as log:
        for number in range(1, 8):
            log.append({"n": number}, key="odd" if number % 2 else "even")
        fourth = next(iter(log.read(4, 5))).stored_at
    assert fourth is not None
    assert numbers(run("tail", toy, "--key", "odd", "-n", "2")) == [5, 7]
    assert numbers(run("tail", toy, "--key", "even", "--where", "event.n > 2")) == [4, 6]
    assert numbers(run("tail", toy, "--from", "2", "--until", "3")) == [2, 3]
    since, until = fourth - timedelta(hours=1), fourth + timedelta(hours=1)
    assert len(numbers(run("tail", toy, "--since", f"{since.isoformat()}"))) == 7
    assert numbers(run("tail", toy, "--until", f"{since.isoformat()}")) == []
    assert len(numbers(run("tail", toy, "--until", f"{until.isoformat()}"))) == 7
    consumer = ("--consumer", "c", "--key", "even")
    assert numbers(run("tail", toy, *consumer, "-f", "-n", "2")) == [2, 4]
    assert json.loads(run("consumers", toy, "--json").out)["last_acked"] == 4
    assert numbers(run("tail", toy, *consumer)) == [6]
    assert json.loads(run("consumers", toy, "--json").out)["last_acked"] == 7
    assert run("consumers", toy, "--max-lag", "0").code == 0
    shown = run("tail", toy, "-n", "1", "--format", "{event.n} {key}")
    assert shown.out == "7 odd\n"
    assert len(run("export", toy, "--from", "1h").out.splitlines()) == 7


def test_an_empty_log_has_nothing_to_print(run: Run, toy: str) -> None:
    assert run("tail", toy) == (0, "", "")
    assert run("tail", toy, "--key", "k", "--until", "1h") == (0, "", "")
    assert run("consumers", toy) == (0, "no consumers\n", "")
    assert run("export", toy) == (0, "", "")


def test_positions_are_set_listed_and_forgotten(run: Run, toy: str) -> None:
    run("append", toy, "1", "2", "3")
    assert run("ack", toy, "c", "2") == (0, "", "")
    assert run("seek", toy, "d", "beginning") == (0, "", "")
    states = [json.loads(line) for line in run("consumers", toy, "--json").out.splitlines()]
    assert [(one["name"], one["last_acked"], one["lag"]) for one in states] == [
        ("c", 2, 1),
        ("d", None, 3),
    ]
    assert "event 9" in run("seek", toy, "d", "9").err
    assert numbers(run("tail", toy, "--consumer", "c")) == [3]
    assert run("forget", toy, "d").code == 0
    (state,) = map(json.loads, run("consumers", toy, "--json").out.splitlines())
    assert (state["name"], state["last_acked"]) == ("c", 3)
    beyond = run("ack", toy, "c", "4")
    assert beyond.code == 1
    assert "the last one" in beyond.err


def test_events_go_out_of_a_log_and_into_another_one(run: Run, toy: str, tmp_path: Path) -> None:
    run("append", toy, '{"order": 1}', '{"order": 2}', '{"order": 3}', "--key", "k")
    file = str(tmp_path / "events.jsonl")
    assert run("export", toy, file, "--from", "2").code == 0
    again = f"{toy}-again"
    assert run("import", again, file) == (0, "1..2\n", "")
    rows = [json.loads(line) for line in run("tail", again, "--json").out.splitlines()]
    assert [(row["event"], row["key"]) for row in rows] == [
        ({"order": 2}, "k"),
        ({"order": 3}, "k"),
    ]
    whole = [json.loads(line) for line in run("export", toy).out.splitlines()]
    assert [row["id"] for row in whole[1:]] == [row["id"] for row in rows]
    assert len(run("export", toy, "--to", "1").out.splitlines()) == 1


def test_a_wrong_line_of_an_import_is_named(run: Run, toy: str, tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    file.write_text('{"event": 1}\n{"event": 2, "key": 3}\n')
    done = run("import", toy, str(file))
    assert done.code == 1
    assert "line 2" in done.err
    assert run("tail", toy).out == ""


def test_the_status_says_what_the_log_holds(run: Run, toy: str) -> None:
    run("append", toy, "1", "2")
    report = json.loads(run("status", toy, "--json").out)
    assert (report["path"], report["first_seq_no"], report["last_seq_no"]) == (toy, 1, 2)
    assert "last_seq_no" in run("status", toy).out


@pytest.mark.parametrize(
    "arguments",
    [
        ("verify", "toy://x"),
        ("verify", "toy://x", "--repair"),
        ("doctor", "toy://x"),
        ("backup", "toy://x", "copy"),
        ("serve", "toy://x"),
        ("export", "toy://x", "--skip-damaged"),
    ],
    ids=lambda arguments: "-".join(arguments).replace("toy://", ""),
)
def test_a_command_about_files_says_so(
    run: Run, arguments: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run(*arguments)
    assert (done.code, done.out) == (2, "")
    (line,) = done.err.splitlines()
    assert "is about the files of a log" in line
    assert "toy://x" in line
    assert os.listdir(tmp_path) == []


def test_a_backup_goes_into_a_directory(run: Run, tmp_path: Path) -> None:
    open_storage(str(tmp_path / "log")).close()
    done = run("backup", str(tmp_path / "log"), "toy://copy")
    assert done.code == 2
    assert "is about the files of a log" in done.err


@pytest.mark.parametrize("name", ["memory:", "memory:orders"])
@pytest.mark.parametrize(
    "arguments",
    [
        ("append", "1"),
        ("tail",),
        ("ack", "c", "1"),
        ("consumers",),
        ("status",),
        ("export",),
        ("import",),
    ],
    ids=lambda arguments: arguments[0],
)
def test_a_log_in_the_memory_of_the_command_is_refused(
    run: Run, arguments: tuple[str, ...], name: str
) -> None:
    command, *rest = arguments
    done = run(command, name, *rest)
    assert (done.code, done.out) == (2, "")
    (line,) = done.err.splitlines()
    assert f"{name} would live in the memory of this command and end with it" in line


@pytest.mark.parametrize("arguments", [("groups",), ("dead", "list")])
def test_workers_refuse_the_memory_of_the_command_too(run: Run, arguments: tuple[str, ...]) -> None:
    done = run(*arguments, "memory:orders", program="workers")
    assert done.code == 2
    assert "would live in the memory of this command" in done.err


def test_an_address_that_no_engine_has_is_wrong_usage(run: Run) -> None:
    for arguments in (("tail",), ("append", "1"), ("status",)):
        done = run(arguments[0], "unheard://of", *arguments[1:])
        assert (done.code, done.out) == (2, "")
        assert "no engine is installed for unheard://" in done.err


def test_a_directory_is_read_without_a_writer(run: Run, tmp_path: Path) -> None:
    path = str(tmp_path / "log")
    log = open_storage(path)
    log.append(batch_of(1, 2))
    log.ack("c", 1)
    log.close()
    assert numbers(run("tail", path)) == [1, 2]
    assert "c" in run("consumers", path).out
    assert len(run("export", path).out.splitlines()) == 2
    assert json.loads(run("status", path, "--json").out)["writer_pid"] is None
    assert run("groups", path, program="workers") == (0, "no groups\n", "")
    assert run("dead", "list", path, program="workers") == (0, "no dead letters\n", "")
    assert not os.path.exists(os.path.join(path, "writer.sock"))
    missing = run("tail", str(tmp_path / "none"))
    assert (missing.code, missing.out) == (2, "")
    assert "there is no log at" in missing.err


def test_a_directory_whose_name_looks_like_an_address_is_meant_by_its_path(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    open_storage("./memory:x").close()
    assert run("tail", "./memory:x") == (0, "", "")


def test_what_a_command_appends_a_program_reads(run: Run, toy: str) -> None:
    run("append", toy, "1")
    with blocking.open(toy) as log:
        assert [envelope.event for envelope in log.read(1)] == [1]


def test_groups_and_dead_letters_of_an_engine_are_listed_retried_and_dropped(
    run: Run, toy: str
) -> None:
    run("append", toy, "1", "2", "3")
    with (
        blocking.open(toy) as log,
        log.group("g", max_deliveries=1) as group,
        group.open_member() as member,
    ):
        lease = member.lease(3, 3)
        assert lease is not None
        for _, envelope in lease:
            assert lease.begin(envelope)
            lease.failed(envelope, Failure(error=f"ValueError: no size {envelope.event}\n(in px)"))
        member.flush()
    listed = json.loads(run("groups", toy, "--json", program="workers").out)
    assert (listed["name"], listed["lag"], listed["dead_letters"]) == ("g", 0, 3)
    letters = run("dead", "list", toy, "--json", program="workers").out.splitlines()
    assert [json.loads(one)["seq_no"] for one in letters] == [1, 2, 3]
    table = run("dead", "list", toy, program="workers").out
    assert r"no size 2\n(in px)" in table  # whole in a pipe
    assert table.endswith("\n3 dead letters\n")
    assert "ValueError: no size 2" in run("dead", "show", toy, "2", program="workers").out
    assert run("dead", "retry", toy, "2", program="workers").out == "retried 1 dead letter\n"
    assert run("dead", "drop", toy, "3", program="workers").out == "dropped 1 dead letter\n"
    listed = json.loads(run("groups", toy, "--json", program="workers").out)
    assert (listed["lag"], listed["dead_letters"]) == (1, 1)


def test_a_lease_is_used_while_the_event_loop_of_its_log_is_busy(run: Run, toy: str) -> None:
    """Each step hopped to the loop and back: a pool over a server did 60 events a second."""
    is_free = threading.Event()
    with (
        blocking.open(toy) as log,
        log.group("g") as group,
        group.open_member() as member,
        ThreadPoolExecutor() as threads,
    ):
        log.append_many(range(3))
        lease = member.lease(3, 3)
        assert lease is not None
        assert isinstance(log, LogOverAsync)
        busy = threads.submit(log._portal.call, is_free.wait, 30)
        for _, envelope in lease:
            assert lease.begin(envelope)
            lease.done(envelope)
        assert not busy.done(), "the lease has waited for the event loop"
        is_free.set()
        member.flush()
        group.wait_drained()
        assert [one.lag for one in log.groups()] == [0]


# --- pools -----------------------------------------------------------------------------------


@pytest.fixture
def signals_stay() -> Iterator[None]:
    """`workers run` ignores signals at its end, which is that of its process."""
    numbers = (signal.SIGTERM, signal.SIGINT)
    handlers = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, handlers, strict=True):
        signal.signal(number, handler)


POOL = ("--group", "g", "--handler", "builtins:abs", "--until-drained", "--json", "-n")


@pytest.mark.usefixtures("signals_stay")
def test_a_pool_without_processes_works_on_the_engine_of_an_entry_point(run: Run, toy: str) -> None:
    """The toy's logs are in the memory of the command."""
    run("append", toy, "--", "-1", "-2", "-3")
    done = run("run", toy, *POOL, "0", "--output", toy, program="workers")
    assert done.code == 0, done.err
    assert json.loads(done.out.splitlines()[-1])["handled"] == 3
    assert numbers(run("tail", toy)) == [1, 2, 3, 4, 5, 6]
    assert [json.loads(one)["event"] for one in run("export", toy).out.splitlines()][3:] == [
        1,
        2,
        3,
    ]


@pytest.mark.usefixtures("signals_stay")
def test_workers_find_the_engine_of_an_entry_point_as_their_command_does(
    run: Run, tmp_path: Path
) -> None:
    address = f"folder://{tmp_path}/log"
    run("append", address, "--", "-1", "-2", "-3")
    done = run("run", address, *POOL, "1", "--output", f"{tmp_path}/log", program="workers")
    assert done.code == 0, done.err
    rows = [json.loads(one) for one in run("export", address).out.splitlines()]
    assert [row["event"] for row in rows] == [-1, -2, -3, 1, 2, 3]


@pytest.mark.parametrize(
    ("more", "said"),
    [(["--reload"], "--reload starts worker processes anew"), (["--timeout", "1"], "timeout=1.0")],
)
def test_what_needs_a_worker_process_is_refused_without_one(
    run: Run, toy: str, more: list[str], said: str
) -> None:
    run("append", toy, "1")
    done = run("run", toy, *POOL, "0", *more, program="workers")
    assert done.code == 2
    assert said in done.err
