"""The command `workers` as a user meets it: real processes, pipes, exit codes, signals."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from array import array
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import pytest

from eventlog import Failure, InvalidArgument, blocking
from eventlog.config import AskedOptions
from eventlog.local.client.handle import LocalHandle
from eventlog.local.wire.group_messages import FailDelivery
from eventlog.terminal.positions import moment_of
from eventlog.terminal.sizes import bytes_of
from eventlog.testing import batch_of, open_storage
from tests.commands import run_bytes
from tests.groups.world import pack_letter
from workers.cli import app
from workers.cli.changes import changed, snapshot
from workers.cli.show import Rate

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = os.environ | {
    "PYTHONPATH": str(ROOT),
    "COLUMNS": "200",
    "NO_COLOR": "1",
    "TERM": "xterm",
    "PYTHONDONTWRITEBYTECODE": "1",
}
COMMAND = [sys.executable, "-m", "workers"]
Inside = Callable[..., subprocess.CompletedProcess[str]]
COMMANDS = [
    *("run", "groups", "replay", "compare", "dead list", "dead show", "dead retry", "dead drop")
]
HANDLERS = """
import os
import signal

def double(event):
    return event * 2

def refuse_odd(event):
    if event % 2:
        raise ValueError(f"no size (in px) {event}")

def crash(event):
    os.kill(os.getpid(), signal.SIGSEGV)

def wait_for_go(event):
    with open("begun", "w") as begun:
        begun.write("begun")
    with open("go") as go:
        go.read()

def prepare():
    global prepared
    prepared = True

def check_prepared(event):
    assert prepared

def refuse_to_start():
    raise SystemExit("no licence")
"""


class Running:
    """A command that runs, with its log lines."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[str] = []

    def read_until(self, text: str) -> str:
        """Wait for the line with that text."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line)
            if text in line:
                return line
        raise AssertionError(f"{text!r} is not in {self.lines}")

    def end(self) -> int:
        """Its exit code; what it said in between is kept."""
        assert self.process.stderr is not None
        self.lines += self.process.stderr
        return self.process.wait(30)


def run(cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    done = run_bytes(*arguments, command=COMMAND, environment=ENVIRONMENT, folder=cwd)
    said, errors = done.stdout.decode(), done.stderr.decode()
    return subprocess.CompletedProcess(done.args, done.returncode, said, errors)


def out(cwd: Path, *arguments: str) -> str:
    done = run(cwd, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def rows(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


@contextmanager
def started(cwd: Path, *arguments: str) -> Iterator[Running]:
    process = subprocess.Popen(
        [*COMMAND, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
        cwd=cwd,
    )
    with process:
        try:
            yield Running(process)
        finally:
            process.kill()


def append(cwd: Path, events: Iterable[Any]) -> None:
    with blocking.open(cwd / "log") as log:
        log.append_many(events)


def stop_writer(path: Path) -> None:
    """End a writer in order, and wait until it is gone."""
    handle = LocalHandle(path, AskedOptions())
    handle.open()
    pid = handle.status(0).writer_pid
    handle.close()
    if pid is None:
        return
    with suppress(ProcessLookupError):
        descriptor = os.pidfd_open(pid)
        os.kill(pid, signal.SIGTERM)
        wait([descriptor])
        os.close(descriptor)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A folder with handlers and a log of the events 1 to 6; its writers are ended afterwards."""
    (tmp_path / "tasks.py").write_text(HANDLERS)
    os.mkfifo(tmp_path / "begun")
    os.mkfifo(tmp_path / "go")
    storage = open_storage(str(tmp_path / "log"))
    storage.append(batch_of(*range(1, 7)))
    storage.close()
    yield tmp_path
    for control in tmp_path.glob("*/control"):
        stop_writer(control.parent)


@pytest.fixture
def dead(place: Path) -> Path:
    """A log whose events 1, 3 and 5 are dead letters of `g`; and 5 and 6 those of `h`."""
    with blocking.open(place / "log") as log:
        bury(log, "g", [1, 3, 5], traceback="Traceback (most recent call last):\n  ...")
        bury(log, "h", [5, 6], exit_code=-11, peak_rss_bytes=9_000_000, log_lines=("INFO t: so",))
    return place


def bury(log: blocking.EventLog, name: str, numbers: list[int], **fields: Any) -> None:
    """Work through the log as a member of a group whose handler fails for those events."""
    left = set(range(1, 7))
    with log.group(name, max_deliveries=1) as group, group.open_member() as member:
        while left:
            lease: Any = member.lease(6)
            assert lease is not None
            for _, envelope in lease:
                seq_no = envelope.seq_no or 0
                left.remove(seq_no)
                lease.begin(envelope)
                if seq_no not in numbers:
                    lease.done(envelope)
                    continue
                error = f"ValueError: no size (in px) {seq_no}"
                error = "the worker was killed by SIGSEGV" if "exit_code" in fields else error
                letter = pack_letter(event=seq_no, key="k", headers=None, error=error, **fields)
                what = (lease.held.lease_id, seq_no, 0, 1, letter)
                local: Any = member
                local.pipe.say_of(lease.held, FailDelivery, *what)
        member.flush()


@pytest.fixture
def inside(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Inside:
    """The command line in this process: for commands that neither wait nor start anything."""
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)

    def run_inside(cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        monkeypatch.chdir(cwd)
        monkeypatch.setattr(sys, "argv", ["workers", *arguments])
        with pytest.raises(SystemExit) as ended:
            app.run()
        said = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return subprocess.CompletedProcess(arguments, ended.value.code, said.out, said.err)

    return run_inside


@pytest.fixture
def told(inside: Inside) -> Callable[..., str]:
    """The same for commands that succeed: what they print."""

    def run_inside(cwd: Path, *arguments: str) -> str:
        done = inside(cwd, *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run_inside


def run_drained(cwd: Path, handler: str, *options: str) -> subprocess.CompletedProcess[str]:
    arguments = ("run", "log", "-g", "g", "--handler", f"tasks:{handler}", "-n", "2")
    done = run(cwd, *arguments, "--until-drained", *options)
    assert done.returncode == 0, done.stderr
    return done


# --- run -------------------------------------------------------------------------------------


def test_a_pool_that_is_drained_ends_with_0_and_its_results_are_there(place: Path) -> None:
    done = run_drained(place, "double", "--output", "out", "--json")
    last = rows(done.stdout)[-1]
    assert (last["state"], last["handled"], last["failed"], last["lag"]) == ("ended", 6, 0, 0)
    assert len(last["workers"]) == 2
    assert "ready: <Pool 'g'" in done.stderr
    with blocking.open(place / "out") as results:
        assert sorted(one.event for one in results.read(1)) == [2, 4, 6, 8, 10, 12]


def test_every_option_of_a_pool_can_be_given(place: Path) -> None:
    limits = ("--max-rss", "1GiB", "--max-age", "60", "--max-events-per-worker", "4")
    at_once = ("--ordering", "key", "--concurrency", "2", "--timeout", "30")
    run_drained(place, "check_prepared", "--initializer", "tasks:prepare", *limits, *at_once)
    (group,) = rows(out(place, "groups", "log", "--json"))
    assert (group["name"], group["ordering"]) == ("g", "key")
    assert (group["position"], group["lag"], group["dead_letters"]) == (6, 0, 0)


def test_of_a_broadcast_every_worker_is_a_group(place: Path) -> None:
    done = run_drained(place, "refuse_odd", "--broadcast", "--max-deliveries", "1", "--json")
    assert rows(done.stdout)[-1]["handled"] == 6
    groups = rows(out(place, "groups", "log", "--json"))
    assert [(one["name"], one["dead_letters"]) for one in groups] == [("g/0", 3), ("g/1", 3)]


def test_a_new_group_begins_where_it_is_told_to(place: Path) -> None:
    done = run_drained(place, "double", "--from", "5", "--json")
    assert rows(done.stdout)[-1]["handled"] == 2


def test_sigterm_lets_the_running_handler_end(place: Path) -> None:
    arguments = ("run", "log", "-g", "g", "--handler", "tasks:wait_for_go", "-n", "1")
    with started(place, *arguments) as pool:
        pool.read_until("ready: <Pool")
        assert (place / "begun").read_text() == "begun"
        pool.process.send_signal(signal.SIGTERM)
        pool.read_until("SIGTERM: stopping")
        (place / "go").write_text("go")
        assert pool.end() == 0
    (group,) = rows(out(place, "groups", "log", "--json"))
    assert (group["position"], group["lag"], group["members"]) == (1, 5, 0)


def test_a_pool_that_is_stopped_while_it_starts_ends_with_0(place: Path) -> None:
    (place / "slow.py").write_text("from tasks import wait_for_go\nwait_for_go(None)\n")
    arguments = ("run", "log", "-g", "g", "--handler", "slow:wait_for_go", "-n", "1")
    with started(place, *arguments) as pool:
        assert (place / "begun").read_text() == "begun"
        pool.process.send_signal(signal.SIGTERM)
        assert pool.end() == 0
    assert "Traceback" not in "".join(pool.lines)


def test_a_second_ctrl_c_kills_the_workers_and_their_events_are_tried_again(place: Path) -> None:
    arguments = ("run", "log", "-g", "g", "--handler", "tasks:wait_for_go", "-n", "1")
    with started(place, *arguments) as pool:
        pool.read_until("ready: <Pool")
        assert (place / "begun").read_text() == "begun"
        pool.process.send_signal(signal.SIGINT)
        pool.read_until("SIGINT: stopping")
        pool.process.send_signal(signal.SIGINT)
        assert pool.end() == 0
    assert "Traceback" not in "".join(pool.lines)
    (group,) = rows(out(place, "groups", "log", "--json"))
    assert (group["position"], group["redeliveries"], group["in_flight"]) == (0, 0, 0), "no failure"


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--handler", "nothing:here"), "No module named 'nothing'"),
        (("--handler", "tasks:double", "--initializer", "tasks:refuse_to_start"), "no licence"),
    ],
)
def test_a_pool_that_failed_ends_with_3(place: Path, options: tuple[str, ...], reason: str) -> None:
    done = run(place, "run", "log", "-g", "g", "-n", "1", "--until-drained", *options)
    assert done.returncode == 3
    assert "cannot start" in done.stderr
    assert reason in done.stderr


def test_a_group_whose_members_work_otherwise_is_exit_code_1(place: Path) -> None:
    with (
        blocking.open(place / "log") as log,
        log.group("g", max_deliveries=7) as group,
        group.open_member(),
    ):
        done = run(place, "run", "log", "-g", "g", "--handler", "tasks:double", "-n", "1")
    assert done.returncode == 1
    assert "max_deliveries=7" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "nothing", "-g", "g", "--handler", "tasks:double"),
        ("run", "log", "-g", "g"),
        ("run", "log", "-g", "g", "--handler", "tasks:double", "--max-rss", "much"),
        ("run", "log", "-g", "g", "--handler", "tasks:double", "--from", "somewhere"),
        ("groups", "nothing"),
        ("dead", "list", "nothing"),
        ("dead", "list", "log", "--since", "lately"),
        ("dead", "show", "log", "x"),
        ("dead", "retry", "log"),
        ("dead", "drop", "log"),
    ],
)
def test_wrong_usage_is_exit_code_2_with_a_reason(
    place: Path, arguments: tuple[str, ...], inside: Inside
) -> None:
    done = inside(place, *arguments)
    assert done.returncode == 2
    assert done.stderr.strip()
    assert "Traceback" not in done.stderr
    assert not (place / "nothing").exists()


def test_what_the_pool_refuses_is_exit_code_2_too(place: Path) -> None:
    done = run(place, "run", "log", "-g", "g", "--handler", "double")
    assert done.returncode == 2
    assert "package.module:function" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_event_that_kills_its_worker_becomes_a_dead_letter(place: Path) -> None:
    run_drained(place, "crash", "--max-deliveries", "1", "--from", "6")
    (letter,) = rows(out(place, "dead", "list", "log", "--json"))
    assert (letter["event"], letter["exit_code"], letter["traceback"]) == (6, -11, None)
    assert "SIGSEGV" in letter["error"]
    assert letter["peak_rss_bytes"] > 1_000_000


def test_a_reader_that_has_seen_enough_ends_the_pool_quietly(place: Path) -> None:
    arguments = ("run", "log", "-g", "g", "--handler", "tasks:double", "-n", "1", "--json")
    with started(place, *arguments) as pool:
        assert pool.process.stdout is not None
        assert json.loads(pool.process.stdout.readline())["state"] == "running"
        pool.process.stdout.close()
        append(place, [7])
        assert pool.end() == 0
    assert "Traceback" not in "".join(pool.lines)


def test_on_a_terminal_a_table_shows_the_workers(place: Path) -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, "run", "log", "-g", "g", "--handler", "tasks:double", "-n", "2"],
        stdin=subprocess.DEVNULL,
        stderr=theirs,
        env=ENVIRONMENT,
        cwd=place,
    )
    os.close(theirs)
    shown = ""
    with suppress(OSError):  # the other end of a terminal is gone: an error, and not the end
        while data := os.read(ours, 65536).decode(errors="replace"):
            shown += data
            if "handled 6 (" in shown:
                process.send_signal(signal.SIGTERM)  # again and again, until its end
    os.close(ours)
    assert process.wait(30) == 0
    for text in ("g of log", "pid", "restarts", "idle", "lag 0", "SIGTERM: stopping"):
        assert text in shown, text


# --- reload ----------------------------------------------------------------------------------


def test_a_changed_file_starts_the_pool_anew_also_after_it_failed(place: Path) -> None:
    (place / "fresh.py").write_text("this is no Python\n")
    arguments = ("run", "log", "-g", "g", "--handler", "fresh:double", "-n", "1", "--reload")
    with started(place, *arguments, "--output", "out") as pool:
        pool.read_until("cannot start")
        pool.read_until("SyntaxError")
        pool.read_until("waiting for a change")
        (place / "fresh.py").write_text("def double(event):\n    return event * 2\n")
        assert "fresh.py changed" in pool.read_until("changed")
        pool.read_until("ready: <Pool")
        (place / "fresh.py").write_text("from nowhere import nothing\n")
        pool.read_until("waiting for a change")
        pool.process.send_signal(signal.SIGTERM)
        assert pool.end() == 3, "a pool that failed never ends with 0"
    assert not (place / "__pycache__").exists()


def test_only_python_files_that_somebody_writes_are_looked_at(tmp_path: Path) -> None:
    for folder in (".git", "__pycache__", "venv", "package"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.py").write_text("1")
    (tmp_path / "venv" / "pyvenv.cfg").write_text("")
    (tmp_path / "notes.txt").write_text("")
    (tmp_path / "gone.py").symlink_to("nowhere.py")
    before = snapshot(str(tmp_path))
    assert list(before) == [str(tmp_path / "package" / "a.py")]
    (tmp_path / "package" / "a.py").write_text("12")
    (tmp_path / "b.py").write_text("")
    now = snapshot(str(tmp_path))
    assert changed(before, now) == [str(tmp_path / "b.py"), str(tmp_path / "package" / "a.py")]
    assert changed(now, now) == []


# --- groups and dead letters -----------------------------------------------------------------


def test_groups_are_listed_with_what_is_left_to_do(dead: Path, told: Callable[..., str]) -> None:
    g, h = rows(told(dead, "groups", "log", "--json"))
    assert (g["name"], g["position"], g["lag"], g["dead_letters"]) == ("g", 6, 0, 3)
    assert (h["name"], h["position"], h["members"], h["dead_letters"]) == ("h", 6, 0, 2)
    table = told(dead, "groups", "log")
    assert all(name in table for name in ("position", "lag", "flight", "redeliveries", "dead"))
    assert told(dead, "groups", str(dead / "log")) == table


def test_a_log_without_groups_says_so(place: Path, told: Callable[..., str]) -> None:
    assert told(place, "groups", "log") == "no groups\n"
    assert told(place, "dead", "list", "log") == "no dead letters\n"
    assert told(place, "dead", "list", "log", "--json") == ""


def test_dead_letters_are_listed_and_chosen_by_group_time_and_text(
    dead: Path, told: Callable[..., str]
) -> None:
    def numbers(*options: str) -> list[tuple[str, int]]:
        listed = rows(told(dead, "dead", "list", "log", "--json", *options))
        return [(one["group"], one["seq_no"]) for one in listed]

    of_g, of_h = [("g", 1), ("g", 3), ("g", 5)], [("h", 5), ("h", 6)]
    assert sorted(numbers()) == of_g + of_h
    assert sorted(numbers("--group", "g")) == of_g
    assert numbers("--group", "nobody") == []
    assert sorted(numbers("--since", "1h")) == of_g + of_h
    assert numbers("--since", (datetime.now(UTC) + timedelta(hours=1)).isoformat()) == []
    assert numbers("--match", "no size (in px) 3") == [("g", 3)]
    assert sorted(numbers("--match", "^ValueError.*[15]$")) == [("g", 1), ("g", 5)]
    assert sorted(numbers("--match", "SIGSEGV")) == of_h
    assert numbers("--match", "(") != []
    # What a worker had logged before it died of one event is about others: it was found too, so
    # that retrying by an error ran an event again that ends workers.
    assert numbers("--match", "INFO t: so") == []
    assert sorted(numbers("--match-logs", "INFO t: so")) == of_h
    assert sorted(numbers("--match-logs", "^Traceback .most recent")) == of_g
    assert numbers("--match-logs", "INFO t: so", "--match", "px") == []
    table = told(dead, "dead", "list", "log")
    assert table.endswith("\n5 dead letters (g: 3, h: 2)\n")
    assert "ValueError: no size (in px) 3" in table
    assert "killed by SIGSEGV" in table


def test_a_dead_letter_is_shown_with_all_that_is_known(
    dead: Path, told: Callable[..., str], inside: Inside
) -> None:
    shown = told(dead, "dead", "show", "log", "3")
    assert "Traceback (most recent call last)" in shown
    assert "ValueError: no size (in px) 3" in shown
    assert "INFO t: so" in told(dead, "dead", "show", "log", "6")
    g, h = rows(told(dead, "dead", "show", "log", "5", "--json"))
    assert (g["group"], g["event"], g["exit_code"], g["deliveries"]) == ("g", 5, None, 1)
    assert (h["group"], h["event"], h["exit_code"], h["deliveries"]) == ("h", 5, -11, 1)
    assert h["peak_rss_bytes"] > 1_000_000
    assert len(rows(told(dead, "dead", "show", "log", "5", "--group", "h", "--json"))) == 1
    none = inside(dead, "dead", "show", "log", "2")
    assert none.returncode == 1
    assert "event 2" in none.stderr


def test_the_array_of_a_dead_letter_is_shown_short_and_no_line_is_filled_up(
    tmp_path: Path, told: Callable[..., str]
) -> None:
    with blocking.open(tmp_path / "log") as log, log.member("g") as member:
        log.append({"frame": array("f", bytes(4096)), "id": 7})
        lease = member.lease(1)
        assert lease is not None
        for _, envelope in lease:
            lease.begin(envelope)
            lease.failed(envelope, Failure(error="Odd: no", is_final=True))
        member.flush()
    shown = told(tmp_path, "dead", "show", "log", "1").splitlines()
    assert 'event           {"frame": "array <f4 (1024,)", "id": 7}' in shown
    assert "key             -" in shown
    (whole,) = rows(told(tmp_path, "dead", "show", "log", "1", "--json"))
    assert whole["event"]["frame"]["$array"][:2] == ["<f4", [1024]]


def test_retrying_says_how_many_and_twice_does_no_harm(
    dead: Path, told: Callable[..., str]
) -> None:
    assert told(dead, "dead", "retry", "log", "3") == "retried 1 dead letter\n"
    assert told(dead, "dead", "retry", "log", "3") == "retried 0 dead letters\n"
    assert rows(told(dead, "dead", "retry", "log", "5", "2", "-g", "g", "--json")) == [
        {"retried": 1, "groups": {"g": 1}}
    ]
    assert rows(told(dead, "groups", "log", "--json"))[0]["lag"] == 2
    done = run_drained(dead, "double", "--json")
    assert rows(done.stdout)[-1]["handled"] == 2
    g, _ = rows(told(dead, "groups", "log", "--json"))
    assert (g["lag"], g["dead_letters"]) == (0, 1)


def test_a_dead_letter_is_retried_with_a_corrected_event(
    dead: Path, told: Callable[..., str], inside: Inside
) -> None:
    for given, reason in (
        ("70", "and these are 2"),
        ("{", "--event is no JSON"),
        ('{"$uuid": 5}', "5 is no text"),
    ):
        refused = inside(dead, "dead", "retry", "log", "5", "--event", given)
        assert refused.returncode == 2
        assert reason in refused.stderr
    corrected = ("dead", "retry", "log", "5", "-g", "g", "--event")
    assert told(dead, *corrected, "70", "--dry-run").endswith("\n1 dead letter would be retried\n")
    # As `dead show --json` prints it: it was taken for a map with the name "$datetime".
    event = b'{"size": 70, "at": {"$datetime": "2026-01-31T12:00:00Z"}, "$other": 1}'
    done = run_bytes(*corrected, "-", given=event, command=COMMAND, folder=dead)
    assert done.stdout == b"retried 1 dead letter\n"
    assert told(dead, *corrected, "80") == "retried 0 dead letters\n"
    with blocking.open(dead / "log") as log, log.member("g", max_deliveries=1) as member:
        lease = member.lease(1)
        assert lease is not None
        at = datetime(2026, 1, 31, 12, tzinfo=UTC)
        assert [(one.seq_no, one.event) for _, one in lease] == [
            (5, {"size": 70, "at": at, "$other": 1})
        ]
    assert len(rows(told(dead, "dead", "list", "log", "--json"))) == 4


def test_dropping_forgets_what_was_chosen_and_nothing_else(
    dead: Path, told: Callable[..., str]
) -> None:
    dropped = told(dead, "dead", "drop", "log", "5", "1")
    assert dropped == "dropped 3 dead letters (g: 2, h: 1)\n"
    assert told(dead, "dead", "drop", "log", "--match", "px", "--since", "1h") == (
        "dropped 1 dead letter\n"
    )
    assert told(dead, "dead", "drop", "log", "--all") == "dropped 1 dead letter\n"
    assert told(dead, "dead", "drop", "log", "--all") == "dropped 0 dead letters\n"
    assert [one["lag"] for one in rows(told(dead, "groups", "log", "--json"))] == [0, 0]


@pytest.mark.parametrize(("command", "done"), [("retry", "retried"), ("drop", "dropped")])
def test_a_dry_run_lists_what_is_meant_and_changes_nothing(
    dead: Path, told: Callable[..., str], command: str, done: str
) -> None:
    meant = ("dead", command, "log", "--match", "px")
    for _ in range(2):
        listed = told(dead, *meant, "--dry-run")
        assert [f"no size (in px) {number}" in listed for number in (1, 3, 5)] == [True] * 3
        assert listed.endswith(f"\n3 dead letters would be {done}\n")
        assert rows(told(dead, *meant, "--dry-run", "--json")) == [
            {f"would_be_{done}": 3, "groups": {"g": 3}}
        ]
    assert told(dead, *meant) == f"{done} 3 dead letters\n"
    assert told(dead, *meant, "--dry-run") == f"0 dead letters would be {done}\n"


def test_groups_beyond_a_limit_are_exit_code_1_with_a_line(
    dead: Path, told: Callable[..., str], inside: Inside
) -> None:
    with blocking.open(dead / "log") as log:
        log.append(7)
    assert told(dead, "groups", "log", "--max-lag", "1", "--max-dead", "3") == told(
        dead, "groups", "log"
    )
    done = inside(dead, "groups", "log", "--max-lag", "0", "--max-dead", "2", "--json")
    assert done.returncode == 1
    assert len(rows(done.stdout)) == 2
    assert done.stderr.splitlines() == [
        "group g is 1 event behind, more than 0",
        "group g has 3 dead letters, more than 2",
        "group h is 1 event behind, more than 0",
    ]


def test_members_at_work_do_not_hinder_a_retry(dead: Path, told: Callable[..., str]) -> None:
    """A handle of the group would have to know its options; dead letters are there without."""
    with (
        blocking.open(dead / "log") as log,
        log.group("g", max_deliveries=7) as group,
        group.open_member(),
    ):
        assert told(dead, "dead", "retry", "log", "-g", "g") == "retried 3 dead letters\n"


def test_letters_of_a_forgotten_group_are_dropped_without_making_it_again(
    dead: Path, told: Callable[..., str], inside: Inside
) -> None:
    with blocking.open(dead / "log") as log:
        log.forget("g")
    refused = inside(dead, "dead", "retry", "log", "-g", "g")
    assert refused.returncode == 2
    assert "start a pool of that group first, or drop" in refused.stderr
    assert told(dead, "dead", "drop", "log", "-g", "g") == "dropped 3 dead letters\n"
    assert [one["name"] for one in rows(told(dead, "groups", "log", "--json"))] == ["h"]


# --- help, and text that means something -----------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(
    tmp_path: Path, command: str, told: Callable[..., str]
) -> None:
    text = told(tmp_path, *command.split(), "--help")
    assert f"workers {command}" in text.split("Example", 1)[1]
    assert "Exit codes" in text


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("groups", ["--max-lag", "--max-dead"]),
        ("dead list", ["--match", "--match-logs", "--since"]),
        ("dead retry", ["--match", "--match-logs", "--dry-run"]),
        ("dead drop", ["--match", "--dry-run"]),
    ],
)
def test_the_help_has_an_example_of_each_option_that_chooses(
    tmp_path: Path, command: str, options: list[str], told: Callable[..., str]
) -> None:
    examples = told(tmp_path, *command.split(), "--help").split("Example", 1)[1]
    assert [option for option in options if f" {option} " not in f"{examples} "] == []


def test_the_commands_are_those_that_are_tested_here(
    tmp_path: Path, told: Callable[..., str]
) -> None:
    def listed(*arguments: str) -> list[str]:
        lines = told(tmp_path, *arguments, "--help").split("Commands", 1)[1].splitlines()[1:]
        return [line.split()[1] for line in lines if line[:2] == "│ "]

    top = [name for name in listed() if name != "dead"]
    both = {*top, *(f"dead {name}" for name in listed("dead"))}
    assert both == set(COMMANDS)


def test_the_version_is_the_packages(tmp_path: Path, told: Callable[..., str]) -> None:
    import eventlog

    assert told(tmp_path, "--version") == f"workers {eventlog.__version__}\n"


@pytest.mark.real_starts
def test_help_is_there_without_an_event_loop(tmp_path: Path) -> None:
    program = "import sys, workers.cli.run, workers.cli.groups, workers.cli.dead\n"
    program += "print({'trio', 'anyio', 'multiprocess'} & set(sys.modules))"
    command = [sys.executable, "-c", program]
    done = subprocess.run(
        command, capture_output=True, text=True, env=ENVIRONMENT, cwd=tmp_path, check=True
    )
    assert done.stdout == "set()\n"


@pytest.mark.parametrize(
    ("text", "size"),
    [("1", 1), ("2K", 2048), ("1.5 MiB", 1_572_864), ("500mb", 500_000_000), ("1g", 1 << 30)],
)
def test_a_size_is_in_bytes_or_in_units(text: str, size: int) -> None:
    assert bytes_of(text) == size


@pytest.mark.parametrize("text", ["", "0", "-1", "M", "1X", "1e9", "1 000"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match="is no size"):
        bytes_of(text)


def test_a_time_is_a_moment_or_how_long_ago() -> None:
    now = datetime(2026, 1, 31, 12, tzinfo=UTC)
    assert moment_of("90s", now) == now - timedelta(seconds=90)
    assert moment_of("2h", now) == now - timedelta(hours=2)
    assert moment_of("7d", now) == now - timedelta(days=7)
    assert moment_of("2026-01-31T12:00:00+00:00") == now
    assert moment_of("2026-01-31").tzinfo is not None
    for text in ("lately", "5", "-5m"):
        with pytest.raises(InvalidArgument, match="is no time"):
            moment_of(text)


def test_a_rate_is_of_the_last_seconds_and_begins_anew_with_another_pool() -> None:
    rate = Rate()
    assert rate.note(0.0, 0) == 0.0
    assert rate.note(1.0, 100) == 100.0
    assert rate.note(5.0, 100) == 20.0
    assert rate.note(6.5, 100) == 0.0
    assert rate.note(7.0, 3) == 0.0
    assert rate.note(8.0, 5) == 2.0
    assert rate.note(30.0, 49) == 2.0  # a line each ten seconds always had a rate of 0
