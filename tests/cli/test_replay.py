"""`workers replay`, `workers compare` and `eventlog tail --at`: stored events again, unchanged."""

from __future__ import annotations

import hashlib
import os
import pty
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest

from eventlog import EventEnvelope, InvalidArgument, blocking
from eventlog.api.group import Failure
from eventlog.cli.pace import Pace, speed_of
from eventlog.demo.main_job import stop_process
from eventlog.testing import open_storage
from tests.cli.test_workers_cli import COMMAND, ENVIRONMENT, out, rows, run
from tests.commands import out as eventlog_out
from workers.foreground import in_foreground, run_all
from workers.handlers import Code
from workers.results import Results

HANDLERS: Final = """
from dataclasses import dataclass

import trio
from eventlog import EventEnvelope
from workers import Results

def double(event):
    return event * 2

def double_but_seven(event):
    return 15 if event == 7 else event * 2

def show(envelope):
    group = envelope.cause and envelope.cause.group
    return [envelope.seq_no, envelope.attempt, envelope.key, group]

class Unstorable:
    pass

def unstorable(event):
    return Unstorable()

class Abort(BaseException):
    pass

async def abort(event):
    raise Abort

def refuse_odd(event):
    if event % 2:
        raise ValueError(f"odd {event}")
    return event

def refuse_odd_otherwise(event):
    if event % 2:
        raise ValueError(f"not even: {event}")
    return event

def spoil(event):
    event["seen"] = True
    return event

async def sleep(event):
    await trio.sleep(0)
    return {"slept": event}

def several(event):
    return Results([EventEnvelope(event, key="k"), event])

def prepare():
    global ready
    ready = True

def check_ready(event):
    return ready

@dataclass
class Order:
    number: int

def of_order(order):
    return order.number + 1
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with handlers, and a log that no writer serves."""
    (tmp_path / "tasks.py").write_text(HANDLERS)
    log = open_storage(str(tmp_path / "log"))
    from eventlog.testing import batch_of

    log.append(batch_of(*range(1, 11)))
    log.close()
    return tmp_path


def words(line: str) -> list[str]:
    return line.split()


def bytes_in(directory: Path) -> dict[str, tuple[str, int, int]]:
    """Every file of a directory: its content, and when it was changed."""
    return {
        path.name: (
            hashlib.sha256(path.read_bytes()).hexdigest(),
            path.stat().st_mtime_ns,
            path.stat().st_size,
        )
        for path in sorted(directory.iterdir())
    }


def test_a_handler_runs_with_one_event_and_shows_what_it_returns(folder: Path) -> None:
    assert out(folder, "replay", "log", "--handler", "tasks:double", "--event", "4") == "8\n"
    assert out(folder, "replay", "log", "--handler", "tasks:sleep", "--event", "4") == (
        '{"slept": 4}\n'
    )
    assert out(folder, "replay", "log", "--handler", "tasks:several", "--event", "4") == "4\n4\n"
    said = out(folder, "replay", "log", "--handler", "tasks:show", "--event", "4", "--json")
    assert rows(said) == [{"seq_no": 4, "attempt": 1, "results": [[4, 1, None, None]]}]


def test_not_a_byte_of_the_log_changes(folder: Path) -> None:
    before = bytes_in(folder / "log")
    run(folder, "replay", "log", "--handler", "tasks:refuse_odd", "--event", "1")
    run(folder, "replay", "log", "--handler", "tasks:refuse_odd", "--from", "1", "--json")
    run(folder, "compare", "log", "--handler", "tasks:double", "--handler", "tasks:refuse_odd")
    eventlog_out("tail", str(folder / "log"), "--at", "1d", "--speed", "max")
    assert bytes_in(folder / "log") == before


def test_an_event_of_a_group_has_its_attempt_key_and_cause(tmp_path: Path) -> None:
    (tmp_path / "tasks.py").write_text(HANDLERS)
    with blocking.open(tmp_path / "log") as log:
        log.append_many(["dead", "failed", "new"], keys=["a", "b", "c"])
        with log.group("g", max_deliveries=3) as group, group.open_member(output=log.path) as one:
            for _ in range(5):
                lease = one.lease()
                assert lease is not None
                for _, envelope in lease:
                    assert lease.begin(envelope)
                    if envelope.event == "new":
                        lease.done_with(envelope, ["result"])
                    else:
                        wait_s = 0 if envelope.event == "dead" else 3600
                        lease.failed(envelope, Failure(error="no", delay_s=wait_s))
            one.flush()
        pid = log.status().writer_pid
    assert pid is not None
    stop_process(pid)
    shown = [
        rows(out(tmp_path, *words(f"replay log -g g --handler tasks:show --event {n} --json")))
        for n in (1, 2, 3, 4)
    ]
    assert [one["results"][0] for [one] in shown] == [
        [1, 3, "a", None],
        [2, 2, "b", None],
        [3, 1, "c", None],
        [4, 1, "c", "g"],
    ]
    refused = run(tmp_path, *words("replay log -g nobody --handler tasks:show --event 1"))
    assert refused.returncode == 2
    assert "has no group 'nobody'" in refused.stderr


def test_a_handler_that_raises_shows_its_traceback_and_is_exit_code_1(folder: Path) -> None:
    done = run(folder, "replay", "log", "--handler", "tasks:refuse_odd", "--event", "3")
    assert done.returncode == 1
    assert "event 3, attempt 1:\nTraceback" in done.stderr
    assert "ValueError: odd 3" in done.stderr
    assert "workers/foreground.py" not in done.stderr.replace("\\", "/").split("tasks.py")[1]


def test_the_debugger_opens_where_the_handler_has_raised(folder: Path) -> None:
    ours, theirs = pty.openpty()
    line = words("replay log --handler tasks:refuse_odd --event 3 --pdb")
    process = subprocess.Popen(
        [*COMMAND, *line], stdin=theirs, stdout=theirs, stderr=theirs, cwd=folder, env=ENVIRONMENT
    )
    os.close(theirs)
    said = b""
    with process:
        for ask in (b"p event + 40\n", b"q\n"):
            while not said.endswith(b"(Pdb) "):
                said += os.read(ours, 4096)
            os.write(ours, ask)
            said += os.read(ours, 4096)
        with suppress(OSError):  # the end of a terminal
            while more := os.read(ours, 4096):
                said += more
        assert process.wait(30) == 1
    os.close(ours)
    assert b"43" in said


def test_a_range_is_replayed_and_counted(folder: Path) -> None:
    said = out(folder, "replay", "log", "--handler", "tasks:double", "--from", "3", "--to", "6")
    assert said.startswith("4 events, 0 failed, ")
    done = run(folder, *words("replay log --handler tasks:refuse_odd --from beginning --json"))
    assert done.returncode == 1
    *failures, total = rows(done.stdout)
    assert [one["seq_no"] for one in failures] == [1, 3, 5, 7, 9]
    assert failures[0]["error"] == "ValueError: odd 1"
    assert (total["events"], total["failed"]) == (10, 5)
    assert run(folder, *words("replay log --handler tasks:double --from latest")).stdout[:8] == (
        "0 events"
    )


def test_initializer_and_type_are_those_of_a_pool(folder: Path) -> None:
    line = "replay log --handler tasks:check_ready --initializer tasks:prepare --event 1"
    assert out(folder, *line.split()) == "true\n"
    with blocking.open(folder / "orders") as log:
        log.append({"number": 7})
    line = "replay orders --handler tasks:of_order --type tasks:Order --event 1"
    assert out(folder, *line.split()) == "8\n"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("replay log --handler tasks:double", "give --event for one event, or --from"),
        ("replay log --handler tasks:double --event 1 --from 1", "give --event for one event"),
        ("replay log --handler tasks:double --event 11", "has the events 1 to 10"),
        ("replay log --handler tasks:nothing --event 1", "cannot start: AttributeError"),
        ("replay log --handler tasks --event 1", "give 'package.module:function'"),
        ("replay log --handler tasks:double --from 1 --speed 0x", "'0x' is no speed"),
        ("replay log --handler tasks:double --from last-acknowledged", "of a consumer"),
        ("replay log --handler tasks:double --from 1 --to latest", "--to takes a number"),
        ("compare log --handler tasks:double", "give --handler twice"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(folder: Path, line: str, said: str) -> None:
    done = run(folder, *line.split())
    assert said in done.stderr
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1


def test_a_result_that_no_log_can_store_is_shown_as_it_is(folder: Path) -> None:
    # It was the error "no event holds a Unstorable", and differed from itself by its address.
    said = out(folder, *["replay", "log", "--handler", "tasks:unstorable", "--event", "1"])
    assert said.startswith("<tasks.Unstorable object")
    line = "compare log --handler tasks:unstorable --handler tasks:unstorable"
    assert out(folder, *line.split()).endswith("0 differ\n")


def test_whatever_a_handler_raises_is_a_failure_of_its_event(folder: Path) -> None:
    # What is no Exception ended the command with a traceback of its own.
    done = run(folder, *["replay", "log", "--handler", "tasks:abort", "--from", "1"])
    assert done.returncode == 1
    assert done.stdout.count("failed: tasks.Abort") == 10


# --- the pace -------------------------------------------------------------------------------------


class Clock:
    """A clock that goes on only while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.slept.append(round(seconds, 6))
        self.now += seconds


def stored_at(seconds: float) -> EventEnvelope:
    return EventEnvelope(1, timestamp=datetime(2030, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds))


def test_events_come_again_at_the_distances_of_then() -> None:
    clock = Clock()
    pace = Pace(10.0, lambda: clock.now, clock.sleep)
    for seconds in (0, 5, 5, 25, 24, 30):
        pace.wait_for(stored_at(seconds))
    assert clock.slept == [0.5, 2.0, 0.5]


def test_a_handler_that_takes_long_is_made_up_for() -> None:
    clock = Clock()
    pace = Pace(1.0, lambda: clock.now, clock.sleep)
    pace.wait_for(stored_at(0))
    clock.now += 3
    for seconds in (1, 2, 5):
        pace.wait_for(stored_at(seconds))
    assert clock.slept == [2.0]


@pytest.mark.parametrize(
    ("text", "speed"), [("1x", 1.0), ("10x", 10.0), ("0.5x", 0.5), ("2", 2.0), ("max", None)]
)
def test_a_speed_says_how_many_times_faster(text: str, speed: float | None) -> None:
    assert speed_of(text) == speed


@pytest.mark.parametrize("text", ["", "x", "0x", "-1x", "1e3x", "fast", "²x", "9999999x"])
def test_what_is_no_speed_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match="is no speed"):
        speed_of(text)


@pytest.fixture
def spaced(tmp_path: Path) -> Path:
    """Three events, stored 0.4 seconds apart."""
    now = [time.time_ns() - 10**9 * 3600]
    log = open_storage(str(tmp_path / "log"), clock=lambda: now[0])
    from eventlog.testing import batch_of

    for number in range(3):
        log.append(batch_of(number))
        now[0] += 400_000_000
    log.close()
    (tmp_path / "tasks.py").write_text(HANDLERS)
    return tmp_path


def test_tail_prints_events_at_the_pace_at_which_they_were_stored(spaced: Path) -> None:
    began = time.monotonic()
    said = eventlog_out("tail", str(spaced / "log"), "--at", "2h", "--speed", "2x")
    assert said.splitlines() == ["1\t0", "2\t1", "3\t2"]
    assert time.monotonic() - began >= 0.4
    assert eventlog_out("tail", str(spaced / "log"), "--at", "1s") == ""


def test_a_replay_goes_at_the_pace_that_is_asked_for(spaced: Path) -> None:
    line = "replay log --handler tasks:double --from beginning --speed 2x --json"
    [total] = rows(out(spaced, *line.split()))
    assert total["events"] == 3
    assert total["seconds"] >= 0.4


# --- two handlers ---------------------------------------------------------------------------------


def test_two_handlers_that_do_the_same_are_exit_code_0(folder: Path) -> None:
    said = out(folder, *words("compare log --handler tasks:double --handler tasks:double"))
    assert said == "10 events, 0 differ\n"


def test_where_two_handlers_differ_is_shown(folder: Path) -> None:
    line = "compare log --handler tasks:double --handler tasks:double_but_seven"
    done = run(folder, *line.split())
    assert done.returncode == 1
    assert done.stdout == "event 7\n  old: returned 14\n  new: returned 15\n10 events, 1 differ\n"
    done = run(folder, *line.split(), "--json", "--from", "6", "--to", "8")
    assert done.returncode == 1
    assert rows(done.stdout) == [
        {"seq_no": 7, "key": None, "old": {"results": [14]}, "new": {"results": [15]}},
        {"events": 3, "differ": 1},
    ]


def test_errors_are_compared_too(folder: Path) -> None:
    line = "compare log --handler tasks:refuse_odd --handler tasks:refuse_odd_otherwise --to 2"
    done = run(folder, *line.split())
    assert done.stdout == (
        "event 1\n  old: raised ValueError: odd 1\n  new: raised ValueError: not even: 1\n"
        "2 events, 1 differ\n"
    )
    line = "compare log --handler tasks:refuse_odd --handler tasks:refuse_odd"
    assert run(folder, *line.split()).returncode == 0


def test_each_handler_gets_an_event_of_its_own(tmp_path: Path) -> None:
    """What the first one did to it was the second one's input."""
    (tmp_path / "tasks.py").write_text(HANDLERS)
    with blocking.open(tmp_path / "log") as log:
        log.append({"a": 1})
    line = "compare log --handler tasks:spoil --handler builtins:dict --json"
    done = run(tmp_path, *line.split())
    assert rows(done.stdout)[0]["new"] == {"results": [{"a": 1}]}


# --- what is called ------------------------------------------------------------------------------


def iter_of(event: Any) -> Iterator[Any]:
    """A generator: nothing of it has run."""
    yield event


def test_a_replay_of_all_events_calls_the_handler_with_each_and_goes_on_after_failures() -> None:
    seen: list[Any] = []

    def handle(event: Any) -> Any:
        seen.append(event)
        if event == 2:
            raise SystemExit(3)
        return Results() if event == 3 else iter_of(event) if event == 4 else None

    failed: list[tuple[Any, type[BaseException]]] = []

    def note(envelope: EventEnvelope, error: BaseException) -> None:
        failed.append((envelope.event, type(error)))

    batches = [[EventEnvelope(n) for n in (1, 2)], [EventEnvelope(n) for n in (3, 4, 5)]]
    with in_foreground(Code(handle)) as running:
        counts = run_all(
            running, batches, lambda one, error: failed.append((one.event, type(error)))
        )
    assert counts == (5, 2)
    assert seen == [1, 2, 3, 4, 5]
    assert failed == [(2, SystemExit), (4, TypeError)]


@pytest.mark.slow
def test_a_replay_is_about_as_fast_as_a_bare_loop(tmp_path: Path) -> None:
    from eventlog.cli.address import readable

    total = 0

    def handle(event: Any) -> None:
        nonlocal total
        total += event["n"]

    with blocking.open(tmp_path / "log") as log:
        log.append_many({"n": n, "text": "x" * 100} for n in range(300_000))

    def bare() -> None:
        with readable(str(tmp_path / "log")) as reading:
            for events in reading.batches(*reading.bounds()):
                for envelope in events:
                    handle(envelope.event)

    def replayed() -> None:
        with readable(str(tmp_path / "log")) as reading, in_foreground(Code(handle)) as running:
            assert run_all(running, reading.batches(*reading.bounds()), print) == (300_000, 0)

    def seconds(call: Any) -> float:
        began = time.perf_counter()
        call()
        return time.perf_counter() - began

    pairs = [(seconds(bare), seconds(replayed)) for _ in range(7)]
    parts = sorted(one / other for one, other in pairs)
    assert parts[3] > 0.9, f"{parts[3]:.2f} of a bare loop"
