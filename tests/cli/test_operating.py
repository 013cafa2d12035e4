"""Operating a log of this machine: made, configured, trimmed, stopped, restarted, deleted."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import suppress
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import pytest
import trio

import eventlog
from eventlog import (
    Failure,
    InvalidArgumentType,
    InvalidConfig,
    LogDeleted,
    LogNotFound,
    NotSupported,
    Retention,
    WriterUnavailable,
    blocking,
)
from eventlog.config import AskedOptions
from eventlog.local import rendezvous
from eventlog.local.client import launch
from eventlog.local.client.handle import LocalHandle
from eventlog.local.storage.control import ControlPage
from eventlog.local.storage.identity import process_start
from eventlog.local.writer.placement import numbers_of
from eventlog.tools.doctor.examine import examine
from tests.commands import out, run, run_bytes
from tests.storage.test_locks import HANGS_S, end, first_line, serve
from tests.users import User

EVENTS = [b"x" * 500] * 100


def writer_of(path: str) -> int | None:
    """The process that serves the log now; it is not asked."""
    try:
        handle = LocalHandle(path, AskedOptions())
        handle.open()
    except eventlog.EventLogError:
        return None
    pid = handle.status(0).writer_pid
    handle.close()
    return pid


def end_writer(path: str) -> None:
    if (pid := writer_of(path)) is not None:
        with suppress(ProcessLookupError):
            ended = os.pidfd_open(pid)
            os.kill(pid, signal.SIGTERM)
            assert wait([ended], HANGS_S)
            os.close(ended)


@pytest.fixture
def path(tmp_path: Path) -> Iterator[str]:
    """Where a log may be made; its writer is ended after the test."""
    place = str(tmp_path / "log")
    yield place
    if os.path.isfile(os.path.join(place, "control")):
        end_writer(place)


# --- handles that start no writer ------------------------------------------------------------


def test_a_handle_that_starts_no_writer_reads_and_says_what_it_cannot_do(path: str) -> None:
    with blocking.open(path) as log:
        log.append_many([1, 2])
        log.ack("c", 1)
    end_writer(path)
    with blocking.open(path, start_writer=False) as log:
        assert [envelope.event for envelope in log.read(0)] == [1, 2]
        assert log.status().writer_pid is None
        assert log.status().connections == 0
        assert log.statistics().writer is None
        assert [one.lag for one in log.consumers()] == [1]
        with log.subscribe("c", follow=False) as stream:
            assert [envelope.event for envelope in stream] == [2]
        with pytest.raises(WriterUnavailable, match=r"starts none .*; run: eventlog serve"):
            log.append(3)
        with pytest.raises(WriterUnavailable, match="no writer serves the log"):
            log.ack("c", 2)
    assert writer_of(path) is None


def test_a_handle_that_starts_no_writer_opens_while_one_is_coming_up(path: str) -> None:
    """The control page names it, and it does not listen yet: opening was `WriterUnavailable`."""
    with blocking.open(path) as log:
        log.append(1)
    end_writer(path)
    coming = subprocess.Popen(["sleep", "60"])
    control = ControlPage(path, writable=True)
    control.writer_pid, control.writer_start = coming.pid, process_start(coming.pid)
    control.close()

    async def read() -> list[Any]:
        async with eventlog.open(path, start_writer=False) as log:
            return [envelope.event for envelope in await log.read(1)]

    try:
        with blocking.open(path, start_writer=False) as log:
            assert [envelope.event for envelope in log.read(1)] == [1]
        assert trio.run(read) == [1]
    finally:
        coming.kill()
        coming.wait()


def test_an_append_that_found_no_writer_is_not_stored_later(path: str) -> None:
    # It stayed queued behind its error: the next append of the handle stored it too, and a program
    # that tried again had it twice.
    with blocking.open(path):
        pass
    end_writer(path)

    async def main() -> None:
        async with eventlog.open(path, start_writer=False) as waiting:
            with blocking.open(path, start_writer=False) as log:
                with pytest.raises(WriterUnavailable):
                    await waiting.append("refused")
                with pytest.raises(WriterUnavailable):
                    log.append("refused")
                with pytest.raises(WriterUnavailable) as caught:
                    log.append_many(["refused", "refused"])
                assert caught.value.stored == 0
                assert log.statistics().in_flight == 0
                with blocking.open(path):
                    assert await waiting.append("a") == 1
                    assert log.append("b") == 2

    trio.run(main)


def test_a_handle_that_starts_no_writer_uses_the_one_that_serves(path: str) -> None:
    with blocking.open(path) as log, blocking.open(path, start_writer=False) as other:
        assert other.append(1) == log.append(2) - 1
        assert other.status().connections > 0


def test_a_handle_that_starts_no_writer_waits_for_the_next_one_after_the_end_of_the_last(
    path: str,
) -> None:
    """A supervisor starts it again in a moment, and an error meanwhile would help nobody."""
    with blocking.open(path):
        pass
    with blocking.open(path, start_writer=False) as log:
        assert log.append(1) == 1
        end_writer(path)
        assert writer_of(path) is None
        numbers: list[int] = []
        waiting = threading.Thread(target=lambda: numbers.append(log.append(2)))
        waiting.start()
        server = serve(path)
        waiting.join(HANGS_S)
        assert numbers == [2]
        assert writer_of(path) == server.pid
        end(server)


def test_closing_ends_the_wait_for_a_writer_that_somebody_else_starts(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = threading.Semaphore(0)

    def connect(directory: str) -> None:
        looks.release()

    with blocking.open(path):
        pass
    log = blocking.open(path, start_writer=False)
    log.append(1)
    end_writer(path)
    monkeypatch.setattr(launch, "AWAIT_WRITER_S", 1000.0)
    monkeypatch.setattr(rendezvous, "connect", connect)
    errors: list[BaseException] = []

    def append() -> None:
        try:
            log.append(2)
        except eventlog.EventLogError as error:
            errors.append(error)

    waiting = threading.Thread(target=append)
    waiting.start()
    assert looks.acquire(timeout=HANGS_S)
    log.close()
    waiting.join(HANGS_S)
    assert [type(error) for error in errors] == [eventlog.LogClosed]


def test_workers_of_a_pool_open_the_log_as_their_pool_does(path: str) -> None:
    with blocking.open(path), blocking.open(path, start_writer=False) as log:
        assert log.for_event_loop().opening() == (path, {"start_writer": False})


def test_other_engines_have_no_writer_to_start() -> None:
    with pytest.raises(NotSupported, match="start_writer"):
        blocking.open("memory:", start_writer=False)
    with pytest.raises(NotSupported, match="writer_cpus"):
        blocking.open("memory:", writer_cpus=[0])


def test_each_writer_that_a_handle_starts_runs_on_the_processors_that_it_says(path: str) -> None:
    first = min(os.sched_getaffinity(0))
    with blocking.open(path, writer_cpus=[first]) as log:
        pids = [log.status().writer_pid]
        os.kill(pids[0] or 0, signal.SIGKILL)
        log.append("a new writer stores it")
        pids.append(log.status().writer_pid)
        assert pids[0] != pids[1]
        assert os.sched_getaffinity(pids[1] or 0) == {first}
        said = " ".join(one.what for one in examine(path) if one.about == "writer")
        assert f"processors ({first})" in said or os.cpu_count() == 1


def test_a_restart_leaves_the_writer_where_it_was_placed(path: str) -> None:
    first = min(os.sched_getaffinity(0))
    with blocking.open(path, writer_cpus=[first]) as log:
        before = log.status().writer_pid
        out("restart", path)
        after = log.status().writer_pid
        assert after != before
        assert os.sched_getaffinity(after or 0) == {first}


@pytest.mark.parametrize("cpus", ["3-1", "0-999999999", "", "x"])
def test_a_text_that_names_no_processors_is_refused_at_once(cpus: str) -> None:
    with pytest.raises(ValueError, match=r"processors|invalid literal"):
        numbers_of(cpus)


@pytest.mark.parametrize("cpus", [[], "0", [-1], [0.5], 3, [True]])
def test_processors_are_given_by_their_numbers(path: str, cpus: Any) -> None:
    with pytest.raises(InvalidArgumentType, match="writer_cpus"):
        blocking.open(path, writer_cpus=cpus)


def test_a_processor_that_is_not_there_is_told_by_whoever_opens_the_log(path: str) -> None:
    with pytest.raises(WriterUnavailable, match="processors '9999'"):
        blocking.open(path, writer_cpus=[9999])


# --- create and delete -----------------------------------------------------------------------


def test_create_makes_a_log_with_its_options_and_starts_no_writer(path: str) -> None:
    given = ("--max-bytes", "10M", "--max-age", "7d", "--keep-unacked", "no", "--on-full", "error")
    made = json.loads(out("create", path, *given, "--durability", "memory", "--json"))
    assert made == {
        "durability": "memory",
        "max_bytes": 10 << 20,
        "max_age_s": 7 * 86_400.0,
        "keep_unacked": False,
        "on_full": "error",
        "segment_bytes": (10 << 20) // 4,
        "max_event_bytes": (10 << 20) // 16,
    }
    assert writer_of(path) is None
    assert json.loads(out("config", path, "--json")) == made
    assert writer_of(path) is None


def test_create_refuses_a_log_that_is_there_and_options_that_make_no_sense(path: str) -> None:
    assert run("create", path, "--max-bytes", "much").returncode == 2
    assert run("create", path, "--keep-unacked", "perhaps").returncode == 2
    assert run("create", path, "--max-age", "7").returncode == 2
    with pytest.raises(InvalidConfig, match="does not fit"):
        blocking.open(path, max_event_bytes=10**12).__enter__()
    assert not os.path.exists(path)
    assert "made" in out("create", path)
    again = run("create", path)
    assert again.returncode == 2
    assert "there is a log" in again.stderr


def test_delete_asks_for_the_name_and_leaves_no_files(path: str) -> None:
    out("create", path)
    refused = run("delete", path, given="logs\n")
    assert refused.returncode == 1
    assert "nothing of" in refused.stderr
    assert run("delete", path).returncode == 1
    assert os.path.exists(os.path.join(path, "control"))
    assert "deleted" in out("delete", path, given="log\n")
    assert not os.path.exists(path)
    assert run("delete", path, "--yes").returncode == 2


def test_delete_refuses_while_a_writer_serves_unless_it_is_forced(path: str) -> None:
    with blocking.open(path) as log:
        log.append(1)
        refused = run("delete", path, "--yes")
        assert refused.returncode == 2
        assert "is served by a writer" in refused.stderr
        assert log.append(2) == 2
        out("delete", path, "--yes", "--force")
        assert not os.path.exists(path)
        with pytest.raises((LogDeleted, LogNotFound)):
            log.append(3)
    assert not os.path.exists(path)


def test_delete_touches_nothing_where_a_folder_lies_in_the_log(path: str) -> None:
    out("create", path)
    os.mkdir(os.path.join(path, "mine"))
    refused = run("delete", path, "--yes")
    assert refused.returncode == 2
    assert "holds the folder 'mine'" in refused.stderr
    assert os.path.exists(os.path.join(path, "control"))


def test_deleting_through_a_link_deletes_the_log_and_the_link(path: str, tmp_path: Path) -> None:
    out("create", path)
    link = tmp_path / "link"
    link.symlink_to(path)
    out("delete", str(link), "--yes")
    assert not os.path.lexists(link)
    assert not os.path.exists(path)


# --- stop and restart ------------------------------------------------------------------------


def test_stop_ends_the_writer_and_connected_clients_start_another_when_they_need_one(
    path: str,
) -> None:
    with blocking.open(path) as log:
        log.append(1)
        before = writer_of(path)
        assert f"process {before}" in out("stop", path)
        assert writer_of(path) is None
        assert log.append(2) == 2
        assert writer_of(path) not in (None, before)
        out("stop", path)
    assert out("stop", path) == f"no writer serves {path}\n"


def test_stop_ends_a_serve_too(path: str) -> None:
    server = serve(path)
    first_line(server, ", epoch")
    assert f"process {server.pid}" in out("stop", path)
    assert server.wait(HANGS_S) == 0
    assert server.stderr is not None
    server.stderr.close()


def test_restart_replaces_the_writer_and_clients_lose_nothing(path: str) -> None:
    with blocking.open(path) as log, log.subscribe("reader") as stream:
        numbers = [log.append(1)]
        is_over = threading.Event()

        def produce() -> None:
            while not is_over.is_set():
                numbers.append(log.append(len(numbers) + 1))

        producer = threading.Thread(target=produce)
        producer.start()
        before = writer_of(path)
        assert f"process {before};" in out("restart", path)
        now = writer_of(path)
        assert now not in (None, before)
        is_over.set()
        producer.join()
        assert numbers == list(range(1, len(numbers) + 1))
        assert [next(stream).event for _ in numbers] == numbers


def test_the_end_of_a_writer_takes_nothing_from_members_that_live(path: str) -> None:
    """Each orderly end gave their events to others, and counted those begun as failed."""
    with blocking.open(path) as log:
        log.append_many(list(range(10)))
        with log.member("g", max_deliveries=1) as member:
            lease = member.lease(10)
            assert lease is not None
            ((_, first), *rest) = lease
            assert lease.begin(first)
            for command in ("restart", "stop", "restart"):
                out(command, path)
            lease.done(first)
            for _, envelope in rest:
                assert lease.begin(envelope)
                lease.done(envelope)
            member.flush()
        (report,) = log.groups()
        assert (report.position, report.redeliveries, report.dead_letters) == (10, 0, 0)


def test_restart_starts_a_writer_where_none_serves(path: str) -> None:
    out("create", path)
    assert "started a writer" in out("restart", path)
    assert writer_of(path) is not None


@pytest.mark.parametrize("command", ["stop", "restart", "delete", "config", "trim --before 1"])
def test_a_command_for_a_log_that_is_not_there_says_so(command: str, path: str) -> None:
    name, *rest = command.split()
    done = run(name, path, *rest)
    assert done.returncode == 2
    assert "there is no log at" in done.stderr


# --- config and trim -------------------------------------------------------------------------


def test_config_changes_what_is_named_and_keeps_the_rest(path: str) -> None:
    out("create", path, "--max-bytes", "10M", "--on-full", "error")
    assert "10,485,760" in out("config", path)
    changed = json.loads(out("config", path, "--max-age", "12h", "--keep-unacked", "no", "--json"))
    assert (changed["max_bytes"], changed["max_age_s"]) == (10 << 20, 43_200.0)
    assert (changed["keep_unacked"], changed["on_full"]) == (False, "error")
    changed = json.loads(out("config", path, "--max-bytes", "none", "--json"))
    assert (changed["max_bytes"], changed["max_age_s"]) == (None, 43_200.0)
    assert run("config", path, "--on-full", "[/red]").returncode == 2
    status = json.loads(out("status", path, "--json"))
    assert status["retention"]["max_age_s"] == 43_200.0


def test_trim_says_what_it_deleted_and_what_holds_it_back(path: str) -> None:
    with blocking.open(path, segment_bytes=8192) as log:
        for _ in range(5):
            log.append_many(EVENTS[:14])
        log.ack("billing", 3)
    done = run("trim", path, "--before", "60")
    assert done.returncode == 1
    assert "the consumer 'billing' has not acknowledged event 4" in done.stderr
    gone = json.loads(out("trim", path, "--before", "60", "--force", "--json"))
    assert gone["deleted"] == gone["first_available"] - 1 > 3
    assert out("trim", path, "--before", "2h").startswith("nothing to delete")
    assert out("trim", path, "--before", "1").startswith("nothing to delete")
    assert run("trim", path, "--before", "[/red]").returncode == 2
    assert "whole" in out("verify", path)
    end_writer(path)
    with blocking.open(path) as log:
        assert log.status().first_seq_no == gone["first_available"]
        assert log.append(b"next") == 71


def test_a_backup_has_changed_options_and_corrected_letters(path: str, tmp_path: Path) -> None:
    made = Retention(max_bytes=1 << 20)
    with blocking.open(path, retention=made) as log:
        log.append("wrong")
        with log.member("g", max_deliveries=1) as member:
            lease = member.lease(1)
            assert lease is not None
            ((_, envelope),) = lease
            lease.begin(envelope)
            lease.failed(envelope, Failure(error="no", traceback=""))
            member.flush()
        log.retry_corrected("g", 1, "right")
    out("config", path, "--max-bytes", "2M")
    copy = str(tmp_path / "copy")
    out("backup", path, copy)
    with blocking.open(copy, retention=made) as log, log.member("g", max_deliveries=1) as member:
        assert log.configure().retention.max_bytes == 2 << 20
        lease = member.lease(1)
        assert lease is not None
        assert [one.event for _, one in lease] == ["right"]
    end_writer(copy)


# --- ls --------------------------------------------------------------------------------------


def listed(*arguments: str, folder: str = ".") -> dict[str, dict[str, Any]]:
    done = run_bytes("ls", *arguments, "--json", folder=folder)
    assert done.returncode == 0
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    return {row["path"]: row for row in rows}


def test_ls_lists_the_logs_below_a_folder_and_who_serves_them(path: str, tmp_path: Path) -> None:
    (tmp_path / "control").write_text("a file of somebody else")
    idle = str(tmp_path / "deep" / "down" / "idle")
    out("create", idle)
    with blocking.open(path) as log:
        log.append_many([1, 2, 3])
        found = listed(str(tmp_path))
        assert {*found} == {path, idle}
        assert (found[path]["is_served"], found[path]["writer_pid"]) == (True, writer_of(path))
        assert (found[path]["first_seq_no"], found[path]["last_seq_no"]) == (1, 3)
        assert (found[idle]["is_served"], found[idle]["last_seq_no"]) == (False, None)
        assert {*listed(str(tmp_path / "deep"))} == {idle}
        # Without a folder, what is served elsewhere too.
        assert path in listed(folder=str(tmp_path / "deep"))
    assert out("ls", str(tmp_path / "deep" / "down" / "idle")).count("idle") == 1
    (tmp_path / "empty").mkdir()
    os.mkfifo(tmp_path / "empty" / "control")  # as supervisors have them: nobody waits for it
    assert out("ls", str(tmp_path / "empty")) == "no logs\n"


@pytest.mark.real_starts
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_ls_shows_served_logs_to_a_user_who_may_not_open_them() -> None:
    place = tempfile.mkdtemp(prefix="listing-")
    os.chmod(place, 0o755)
    path = os.path.join(place, "log")
    with blocking.open(path) as log:
        log.append(1)
        row = json.loads(User(65534).out("ls", place, "--json"))
    end_writer(path)
    shutil.rmtree(place)
    assert (row["path"], row["is_served"], row["last_seq_no"]) == (path, True, None)
    assert row["problem"] == "you may not open it: it belongs to the user root (id 0)"
