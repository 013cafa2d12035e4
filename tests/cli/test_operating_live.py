"""A log goes through all of its operation while it is used: nothing is lost, doubled or refused.

Programs of their own append, consume and work in pools. Each of them checks what it is given, and
ends with an error if any call of its does. The test is their operator.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from eventlog import blocking
from tests.cli.test_operating import end_writer, writer_of
from tests.commands import ENVIRONMENT, ROOT, out, run
from tests.storage.test_locks import HANGS_S, end, first_line, serve

EARLIER: Final = "53d3c91"
"""The commit whose logs, writers and programs an upgrade begins with."""

PRODUCER: Final = """
import json, select, sys, time
from eventlog import blocking
path, batch, per_second = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
count, longest_s = 0, 0.0
with blocking.open(path) as log:
    print("ready", flush=True)
    while not select.select([sys.stdin], [], [], 0)[0]:
        begun = time.monotonic()
        numbers = log.append_many(list(range(count + 1, count + batch + 1)))
        took = time.monotonic() - begun
        longest_s = max(longest_s, took)
        assert numbers == (count + 1, count + batch), (numbers, count)
        count += batch
        time.sleep(max(batch / per_second - took, 0))
    log.append("end")
print(json.dumps({"count": count, "longest_s": longest_s}))
"""
CONSUMERS: Final = """
import json, sys, threading
from eventlog import SeekPosition, blocking
path, number = sys.argv[1], int(sys.argv[2])
ended = []

def consume(name):
    with log.subscribe(name, SeekPosition.BEGINNING) as stream:
        expected = 1
        for events in stream.batches():
            for envelope in events:
                assert envelope.seq_no == expected, (name, envelope.seq_no, expected)
                expected += 1
                if envelope.event == "end":
                    ended.append(expected - 2)
                    return
                assert envelope.event == envelope.seq_no
            log.ack(name, events[-1].seq_no)

with blocking.open(path) as log:
    threads = [threading.Thread(target=consume, args=(f"c{n}",)) for n in range(number)]
    for thread in threads:
        thread.start()
    print("ready", flush=True)
    for thread in threads:
        thread.join()
print(json.dumps(ended))
"""
POOL: Final = """
import sys
from eventlog import blocking
from workers.blocking import Pool
path, group, output = sys.argv[1:]
if __name__ == "__main__":
    with blocking.open(path) as log:
        options = {"processes": 1, "output": output}
        with Pool(log, group=group, handler=lambda event: event, **options) as pool:
            print("ready", flush=True)
            sys.stdin.readline()
            pool.drained()
"""


class Programs:
    """The programs of one log, in processes of their own."""

    def __init__(self, path: str, folder: Path) -> None:
        self.path = path
        self.folder = folder
        self._all: list[subprocess.Popen[str]] = []

    def start(self, code: str, *arguments: object, root: Path = ROOT) -> subprocess.Popen[str]:
        """A program that uses the log when this returns."""
        script = self.folder / f"program{len(self._all)}.py"
        script.write_text(code)
        program = subprocess.Popen(
            [sys.executable, str(script), self.path, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=ENVIRONMENT | {"PYTHONPATH": str(root)},
            cwd=self.folder,
        )
        self._all.append(program)
        return program

    @staticmethod
    def wait_ready(program: subprocess.Popen[str]) -> None:
        assert program.stdout is not None
        assert program.stdout.readline() == "ready\n"

    @staticmethod
    def finish(program: subprocess.Popen[str]) -> Any:
        """Tell the program to end; what it reports."""
        said, _ = program.communicate("\n", timeout=10 * HANGS_S)
        assert program.returncode == 0
        return json.loads(said) if said else None

    def close(self) -> None:
        for program in self._all:
            program.kill()
            program.communicate()


@pytest.fixture
def programs(tmp_path: Path) -> Iterator[Programs]:
    made = Programs(str(tmp_path / "log"), tmp_path)
    yield made
    made.close()
    for control in tmp_path.glob("*/control"):
        end_writer(str(control.parent))


def results_of(path: str, output: str) -> list[int]:
    """What the pool stored, in order of the events; its output is beside the log."""
    with blocking.open(Path(path).parent / output) as log:
        return sorted(envelope.event for envelope in log.read(0) if envelope.event != "end")


def lowest_position(path: str) -> int:
    states = [json.loads(line) for line in out("consumers", path, "--json").splitlines()]
    return min((state["last_acked"] or 0 for state in states), default=0)


def change_and_trim(path: str) -> None:
    out("config", path, "--max-age", "1h", "--max-bytes", "1G", "--on-full", "error")
    deleted = 0
    while not deleted:  # until everybody has acknowledged a whole segment
        done = out("trim", path, "--before", str(lowest_position(path)), "--json")
        deleted = json.loads(done)["deleted"]
    out("config", path, "--on-full", "wait", "--keep-unacked", "yes")


def stop_and_take_over(path: str) -> None:
    out("stop", path)
    server = serve(path)
    first_line(server, ", epoch")
    end(server)


def back_up(path: str, target: Path) -> None:
    out("backup", path, str(target))
    assert "whole" in out("verify", str(target))


def go_through_all(programs: Programs, *, batch: int, per_second: float, consumers: int) -> float:
    """Operate the log while it is used; the longest time that an append took."""
    path = programs.path
    out("create", path, "--segment-bytes", "64K")
    reading = programs.start(CONSUMERS, consumers)
    pools = [programs.start(POOL, group, f"{group}-out") for group in ("bill", "ship")]
    for program in (reading, *pools):
        programs.wait_ready(program)
    producing = programs.start(PRODUCER, batch, per_second)
    programs.wait_ready(producing)
    joining = programs.start(POOL, "ship", "ship-out")
    change_and_trim(path)
    out("restart", path)
    stop_and_take_over(path)
    back_up(path, programs.folder / "copy")
    programs.wait_ready(joining)
    report = programs.finish(producing)
    count = report["count"]
    assert programs.finish(reading) == [count] * consumers
    for program in (*pools, joining):
        programs.finish(program)
    for group in ("bill", "ship"):
        assert results_of(path, f"{group}-out") == list(range(1, count + 1))
    return float(report["longest_s"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("per_second", "consumers"), [(1000.0, 3), (10_000.0, 20)], ids=["some", "many"]
)
def test_a_log_in_use_goes_through_all_of_its_operation(
    programs: Programs,
    per_second: float,
    consumers: int,
) -> None:
    """No event is lost or doubled, no program meets an error, and appends hardly pause."""
    is_idle = os.getloadavg()[0] < 1.0
    batch = int(per_second / 100)
    longest_s = go_through_all(programs, batch=batch, per_second=per_second, consumers=consumers)
    logging.getLogger("tests").info("the longest append took %.3f s", longest_s)
    assert longest_s < (1.0 if is_idle else 3 * HANGS_S)


# --- an upgrade ------------------------------------------------------------------------------


@pytest.fixture
def earlier(tmp_path: Path) -> Iterator[Path]:
    """The release of that commit."""
    place = tmp_path / "earlier"
    git = ["git", "-C", str(ROOT)]
    added = subprocess.run(
        [*git, "worktree", "add", "--detach", str(place), EARLIER], capture_output=True, check=False
    )
    if added.returncode:
        pytest.skip(f"there is no commit {EARLIER} here")
    yield place
    subprocess.run(
        [*git, "worktree", "remove", "--force", str(place)], capture_output=True, check=True
    )


def release_of(path: str) -> str:
    """Which release the writer is of: its modules have other names since."""
    command = Path(f"/proc/{writer_of(path)}/cmdline").read_bytes().split(b"\0")
    return "this" if b"eventlog.local.writer" in command else "earlier"


@pytest.mark.slow
def test_an_earlier_releases_log_and_writer_are_upgraded_while_its_programs_run(
    programs: Programs, earlier: Path
) -> None:
    path = programs.path
    producing = programs.start(PRODUCER, 10, 500.0, root=earlier)
    programs.wait_ready(producing)
    assert release_of(path) == "earlier"
    reading = [programs.start(CONSUMERS, 2, root=root) for root in (earlier, ROOT)]
    for program in reading:
        programs.wait_ready(program)
    refused = run("config", path, "--max-age", "1h")
    assert refused.returncode == 1
    assert "is of an earlier release" in refused.stderr
    assert "eventlog restart" in refused.stderr
    pool = programs.start(POOL, "bill", "bill-out")
    out("restart", path)
    assert release_of(path) == "this"
    programs.wait_ready(pool)
    assert json.loads(out("config", path, "--max-age", "1h", "--json"))["max_age_s"] == 3600.0
    out("restart", path)
    count = programs.finish(producing)["count"]
    assert [programs.finish(program) for program in reading] == [[count] * 2] * 2
    programs.finish(pool)
    assert results_of(path, "bill-out") == list(range(1, count + 1))
    assert "whole" in out("verify", path)


# --- a supervisor ----------------------------------------------------------------------------


class Supervisor:
    """Runs `eventlog serve` as the unit of docs/operations.md does: again whenever it has ended."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._is_stopped = threading.Event()
        self._started = threading.Condition()
        self.server: subprocess.Popen[str] | None = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._is_stopped.is_set():
            server = serve(self._path)
            with self._started:
                self.server = server
                self._started.notify_all()
            server.communicate()
            self._is_stopped.wait(0.1)  # RestartSec= of systemd

    def serving(self) -> int:
        """The process that it runs now, once that serves the log."""
        deadline = time.monotonic() + 3 * HANGS_S
        while self.server is None or writer_of(self._path) != self.server.pid:
            assert time.monotonic() < deadline, "the supervised writer does not serve"
            time.sleep(0.01)
        return self.server.pid

    def stop(self) -> None:
        self._is_stopped.set()
        with self._started:
            assert self._started.wait_for(lambda: self.server is not None, HANGS_S)
        while self._thread.is_alive():  # it may start one more
            assert self.server is not None
            self.server.terminate()
            self._thread.join(1.0)


@pytest.mark.slow
def test_a_supervised_writer_ends_in_any_way_and_connected_clients_go_on(tmp_path: Path) -> None:
    path = str(tmp_path / "log")
    out("create", path)
    supervisor = Supervisor(path)
    try:
        supervisor.serving()
        numbers: list[int] = []
        with (
            blocking.open(path) as one,
            blocking.open(path, start_writer=False) as other,
            other.subscribe("reader") as stream,
        ):
            for number in (signal.SIGTERM, signal.SIGKILL, None):
                for log in (one, other):
                    numbers.append(log.append(len(numbers) + 1))
                pid = supervisor.serving()
                if number is None:
                    out("restart", path)
                else:
                    os.kill(pid, number)
                for log in (other, one):
                    numbers.append(log.append(len(numbers) + 1))
                assert supervisor.serving() != pid
            assert numbers == list(range(1, len(numbers) + 1))
            assert [next(stream).event for _ in numbers] == numbers
    finally:
        supervisor.stop()
        end_writer(path)
