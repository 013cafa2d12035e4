"""The doctor: real damage, real processes; and what the facts mean, where they cannot be made."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from eventlog import Retention, blocking
from eventlog.api.group import GroupReport
from eventlog.api.positions import ConsumerState
from eventlog.config import AskedOptions, LogOptions
from eventlog.demo.main_job import stop_process
from eventlog.errors import LogFull, LogInUse, LogNotFound, NotALog
from eventlog.local.storage.control import CONTROL
from eventlog.local.storage.formats.format import segment_name
from eventlog.testing import batch_of, open_storage, stored_events
from eventlog.tools.doctor.examine import examine, mend
from eventlog.tools.doctor.findings import Finding, size
from eventlog.tools.doctor.place import (
    Access,
    Place,
    access_findings,
    file_system_findings,
    room_findings,
)
from eventlog.tools.doctor.readers import consumer_findings, group_findings
from tests import commands
from tests.commands import ENVIRONMENT

COMMAND = [*commands.COMMAND, "doctor"]
MIB = 1 << 20


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A log at rest, of several segments."""
    path = tmp_path / "log"
    path.mkdir(0o700)
    opened = open_storage(str(path), segment_bytes=4096)
    for n in range(1, 41):
        opened.append(batch_of(f"event {n} " + "." * 300))
    opened.ack("billing", 17)
    opened.close()
    return path


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    """A log with a writer, and the writer's pid."""
    path = tmp_path / "served"
    with blocking.open(path) as opened:
        opened.append_many(range(10))
        pid = opened.status().writer_pid
        assert pid is not None
        try:
            yield path, pid
        finally:
            stop_process(pid)


def found(log: Path, *levels: str) -> list[Finding]:
    """The findings of these levels; those about the machine's own room are left out."""
    return [one for one in examine(str(log)) if one.level in levels and one.about != "room"]


def text(findings: list[Finding]) -> str:
    return "\n".join(f"{one.what} -> {one.do}" for one in findings)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return commands.run("doctor", *arguments)


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 0xFF
    path.write_bytes(content)


def tear(log: Path) -> None:
    newest = max(log.glob("*.seg"))
    content = newest.read_bytes()
    with open(newest, "r+b") as file:
        file.seek(len(content.rstrip(b"\0")) + 8 & ~7)
        file.write(content[64:264])


def test_a_sound_log_at_rest_has_nothing_to_be_done(log: Path) -> None:
    before = {path.name: path.read_bytes() for path in log.iterdir()}
    assert found(log, "note", "warning", "problem") == []
    about = {one.about for one in examine(str(log))}
    assert about == {"place", "room", "access", "format", "files", "writer", "consumers"}
    assert "version 1: the events 1 to 40" in text(found(log, "ok"))
    assert {path.name: path.read_bytes() for path in log.iterdir()} == before


def test_a_writer_at_work_is_fine(served: tuple[Path, int]) -> None:
    path, pid = served
    assert found(path, "warning", "problem") == []
    assert f"process {pid} serves it" in text(found(path, "ok"))
    done = run(str(path), "--fix")
    assert done.returncode == 0
    with blocking.open(path) as opened:
        assert opened.status().writer_pid == pid


def test_a_stopped_writer_is_a_problem(log: Path) -> None:
    server = subprocess.Popen(
        [*COMMAND[:-1], "serve", str(log)], stderr=subprocess.PIPE, text=True, env=ENVIRONMENT
    )
    assert server.stderr is not None
    with server.stderr:
        assert "writer of" in server.stderr.readline()
        with blocking.open(log) as opened:
            assert opened.status().writer_pid == server.pid
        server.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, server.pid, os.WSTOPPED)
        try:
            (problem,) = found(log, "problem")
            assert f"kill -CONT {server.pid}" in str(problem.do)
        finally:
            server.send_signal(signal.SIGCONT)
            server.send_signal(signal.SIGTERM)
            assert server.wait(30) == 0


def test_a_dead_writer_and_its_socket_are_noted_and_mended(served: tuple[Path, int]) -> None:
    path, pid = served
    descriptor = os.pidfd_open(pid)
    os.kill(pid, signal.SIGKILL)
    subprocess.run(["tail", "--pid", str(pid), "-f", "/dev/null"], check=True, timeout=30)
    os.close(descriptor)
    notes = text(found(path, "note"))
    assert "the last one" in notes
    assert "nobody listens on its socket" in notes
    assert found(path, "warning", "problem") == []
    report = json.loads(run(str(path), "--fix", "--json").stdout)
    assert report["healthy"] is True
    assert "removed the socket that nobody listens on" in report["done"]
    assert not (path / "writer.sock").exists()
    assert "nobody listens" not in text(found(path, "note"))
    assert stored_events(str(path)) == {n: n - 1 for n in range(1, 11)}


def test_a_torn_tail_is_noted_and_cut(log: Path) -> None:
    tear(log)
    (note,) = found(log, "note")
    assert "torn tail after event 40" in note.what
    done = run(str(log), "--fix")
    assert done.returncode == 0
    assert "mended: cut a torn tail after event 40" in done.stdout
    assert f"kept: {max(log.glob('*.seg')).name}.damaged" in done.stdout
    (kept,) = found(log, "note")
    assert "a repair kept" in kept.what


def test_a_missing_index_is_noted_and_made_again(log: Path) -> None:
    min(log.glob("*.idx")).unlink()
    (note,) = found(log, "note")
    assert "no index" in note.what
    mend(str(log), [note])
    assert found(log, "note", "warning", "problem") == []


@pytest.mark.parametrize(
    ("name", "place"),
    [("control", 0), ("control", 20), (segment_name(1), 0), (segment_name(1), 20), ("offsets", 0)],
)
def test_a_damaged_header_is_a_problem_and_mended(log: Path, name: str, place: int) -> None:
    flip(log / name, place)
    (problem,) = found(log, "problem")
    assert problem.remedy == "repair"
    done = run(str(log))
    assert done.returncode == 1
    assert f"eventlog verify --repair {log}" in done.stdout
    assert "Traceback" not in done.stderr
    assert run(str(log), "--fix").returncode == 0
    assert found(log, "problem") == []


def test_damaged_events_of_the_last_segment_are_a_problem(log: Path) -> None:
    newest = max(log.glob("*.seg"))
    flip(newest, 200)
    (problem,) = found(log, "problem")
    assert f"the events {int(newest.stem)} to {int(newest.stem)} are damaged" in problem.what
    assert run(str(log), "--fix").returncode == 1


def test_a_missing_first_segment_is_a_problem(log: Path) -> None:
    min(log.glob("*.seg")).unlink()
    assert "the segment of event 1 is missing" in text(found(log, "problem"))


def test_another_version_is_a_problem_that_is_left_alone(log: Path) -> None:
    from crc32c import crc32c

    page = bytearray((log / "control").read_bytes())
    page[8] = 7
    end = CONTROL.offset("crc")
    page[end : end + 4] = crc32c(page[:end]).to_bytes(4, "little")
    (log / "control").write_bytes(page)
    (problem,) = found(log, "problem")
    assert "version 7" in problem.what
    assert problem.remedy is None
    assert run(str(log), "--fix").returncode == 1
    assert (log / "control").read_bytes() == bytes(page)


def test_modes_that_let_others_in_are_warned_of_and_mended(log: Path) -> None:
    log.chmod(0o755)
    (log / "offsets").chmod(0o644)
    (warning,) = found(log, "warning")
    assert "0755" in warning.what
    log.chmod(0o700)
    (note,) = found(log, "note")
    assert "offsets" in note.what
    log.chmod(0o755)
    report = json.loads(run(str(log), "--fix", "--json").stdout)
    assert report["done"] == [
        "gave the directory the mode 0700",
        "gave offsets the mode 0600",
    ]
    assert log.stat().st_mode & 0o777 == 0o700
    assert found(log, "note", "warning", "problem") == []


def test_a_log_of_another_user_is_a_problem(log: Path) -> None:
    with tempfile.TemporaryDirectory() as open_to_all:
        os.chmod(open_to_all, 0o755)
        theirs = Path(open_to_all) / "log"
        shutil.copytree(log, theirs)
        uid = os.geteuid()
        if uid == 0:
            os.seteuid(65534)
        else:
            theirs.chmod(0)
        try:
            (problem,) = examine(str(theirs))
        finally:
            os.seteuid(uid)
            theirs.chmod(0o700)
        assert problem.level == "problem"
        assert f"user with id {uid}" in problem.what


def test_unknown_files_are_noted_and_left_alone(log: Path) -> None:
    (log / "thesis.txt").write_text("precious")
    (log / "00000000000000000041.seg.new").write_text("")
    notes = text(found(log, "note"))
    assert "thesis.txt is no file of the log" in notes
    assert "00000000000000000041.seg.new was left by a writer" in notes
    for path in log.iterdir():
        path.chmod(0o600)
    run(str(log), "--fix")
    assert (log / "thesis.txt").read_text() == "precious"


def test_while_a_writer_starts_nothing_is_mended(log: Path) -> None:
    from eventlog.local import rendezvous

    (log / "writer.lock").touch(0o600)
    tear(log)
    before = max(log.glob("*.seg")).read_bytes()
    with rendezvous.writers_locked_out(str(log)):
        assert "holds its locks" in text(found(log, "warning"))
        done = run(str(log), "--fix")
        assert "nothing mended" in done.stdout
        with pytest.raises(LogInUse):
            mend(str(log), examine(str(log)))
    assert max(log.glob("*.seg")).read_bytes() == before


def test_a_socket_of_nobody_is_no_writer(log: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(log / "writer.sock"))
    (note,) = found(log, "note")
    assert note.remedy == "socket"


def test_what_the_writer_complained_of_is_said(log: Path) -> None:
    (log / "writer.log").write_text("1 INFO fine\n2 WARNING cut something\n3 ERROR sad\n")
    (log / "writer.log").chmod(0o600)
    assert [one.what for one in found(log, "note")] == [
        "it said: 2 WARNING cut something",
        "it said: 3 ERROR sad",
    ]


def test_what_is_no_log_is_wrong_usage(tmp_path: Path) -> None:
    with pytest.raises(LogNotFound):
        examine(str(tmp_path / "nothing"))
    with pytest.raises(NotALog):
        examine(str(tmp_path))
    assert run(str(tmp_path)).returncode == 2
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["control", segment_name(1), "offsets", "groups", "dead"])
@pytest.mark.parametrize("content", [b"", b"x", b"\xaa" * 5000])
def test_whatever_a_file_holds_there_is_an_answer(log: Path, name: str, content: bytes) -> None:
    (log / name).write_bytes(content)
    (log / name).chmod(0o600)
    assert found(log, "problem")
    mend(str(log), examine(str(log)))
    still = found(log, "problem")
    assert not still or name == segment_name(1)


def test_a_full_file_system_is_a_problem(log: Path) -> None:
    """A real one, as small as the one that containers get."""
    small = log.parent / "small"
    small.mkdir()
    mount = f"mount -t tmpfs -o size=256k,mode=700 none {small}"
    fill = (
        f"cd {small} && cp -r {log} there && {{ head -c 1M /dev/zero > rest 2>/dev/null; true; }}"
    )
    unshared = ["unshare", "--map-root-user", "--mount", "sh", "-c"]
    if subprocess.run([*unshared, mount], capture_output=True, check=False).returncode:
        pytest.skip("this system lets nobody mount a tmpfs")
    done = subprocess.run(
        [*unshared, f"{mount} && {fill} && {' '.join(COMMAND)} there --json"],
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        timeout=60,
        check=False,
    )
    report = json.loads(done.stdout)
    found_ = {one["about"]: one for one in report["findings"] if one["level"] != "ok"}
    assert done.returncode == 1
    assert found_["room"]["level"] == "problem"
    assert "0 bytes of 256.0 KiB are free" in found_["room"]["what"]
    assert "remount" in found_["room"]["do"]
    assert "in memory (tmpfs)" in found_["place"]["what"]


# --- what the facts mean ------------------------------------------------------------------------

PLACE = Place(
    path="/data/log",
    kind="ext4",
    total=1000 * MIB,
    free=900 * MIB,
    inodes=10**6,
    is_read_only=False,
)
DISK, MEMORY = LogOptions(), LogOptions(durability="memory")


@pytest.mark.parametrize(
    ("changes", "options", "level", "words"),
    [
        ({}, DISK, "ok", "ext4"),
        ({"kind": None}, None, "ok", "unknown"),
        ({"kind": "nfs4"}, DISK, "problem", "network"),
        ({"kind": "fuse.sshfs"}, None, "problem", "network"),
        ({"kind": "fuse.ceph-fuse"}, None, "problem", "network"),
        ({"kind": "tmpfs"}, DISK, "warning", "restart"),
        ({"kind": "tmpfs"}, MEMORY, "ok", "tmpfs"),
        ({}, MEMORY, "note", "power"),
    ],
)
def test_the_file_system(
    changes: dict[str, Any], options: LogOptions | None, level: str, words: str
) -> None:
    (finding,) = file_system_findings(replace(PLACE, **changes), options)
    assert finding.level == level
    assert words in finding.what
    assert (finding.do is None) == (level in ("ok", "note"))
    assert len(list(file_system_findings(replace(PLACE, is_read_only=True), DISK))) == 2


@pytest.mark.parametrize(
    ("changes", "level", "words"),
    [
        ({}, "ok", ""),
        ({"free": 200 * MIB}, "warning", "free some space"),
        ({"free": 64 * MIB}, "problem", "LogFull"),
        ({"free": 0}, "problem", "0 bytes of"),
        ({"kind": "tmpfs", "total": 64 * MIB, "free": 60 * MIB}, "problem", "remount"),
        ({"kind": "tmpfs", "total": 400 * MIB, "free": 400 * MIB}, "warning", "small tmpfs"),
        (
            {"path": "/dev/shm/log", "kind": "tmpfs", "total": 64 * MIB, "free": 60 * MIB},
            "problem",
            "--shm-size",
        ),
    ],
)
def test_the_room(changes: dict[str, Any], level: str, words: str) -> None:
    (finding,) = room_findings(replace(PLACE, **changes), 64 * MIB)
    assert finding.level == level
    assert words in f"{finding.what} {finding.do}"


@pytest.mark.parametrize(("inodes", "level"), [(None, None), (63, "warning"), (1, "problem")])
def test_the_room_for_files(inodes: int | None, level: str | None) -> None:
    findings = list(room_findings(replace(PLACE, inodes=inodes), 64 * MIB))
    assert [one.level for one in findings[1:]] == ([level] if level else [])


def test_owners_and_modes() -> None:
    mine = [Access("", 5, 0o700), Access("control", 5, 0o600)]
    assert [one.level for one in access_findings(mine, 5)] == ["ok"]
    (foreign,) = access_findings([*mine, Access("offsets", 6, 0o600)], 5)
    assert foreign.level == "problem"
    assert "offsets belong(s) to the user with id 6" in foreign.what
    assert [one.level for one in access_findings(mine, 0)] == ["warning"]
    of_group = {"": 0o2750, "control": 0o640, "members": 0o660, "writer.lock": 0o600}
    shared = [Access(name, 5, mode, is_shared=True) for name, mode in of_group.items()]
    assert [one.level for one in access_findings(shared, 5)] == ["ok"]
    (ajar,) = access_findings([replace(shared[0], mode=0o2755), *shared[1:]], 5)
    assert ajar.do == "chmod 2750 {log}"
    (closed,) = access_findings([*mine, Access("offsets", 5, 0o400)], 5)
    assert (closed.level, closed.remedy) == ("problem", "modes")


NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


def state(name: str, acked: int | None, lag: int, age: timedelta = timedelta(0)) -> ConsumerState:
    return ConsumerState(name=name, last_acked=acked, lag=lag, last_seen=NOW - age)


def options(on_full: Any = "wait", **retention: Any) -> LogOptions:
    asked = AskedOptions(
        retention=Retention(**retention), on_full=on_full, segment_bytes=MIB, max_event_bytes=1000
    )
    return LogOptions.of(asked)


@pytest.mark.parametrize(
    ("states", "options_", "expected"),
    [
        ([], options(), [("ok", "none")]),
        ([state("a", 5, 95)], options(), [("ok", "at most 95 events behind")]),
        (
            [state("a", 5, 95, timedelta(days=3))],
            options(),
            [("note", "has not moved for 3 day(s)"), ("ok", "")],
        ),
        (
            [state("a", 5, 95)],
            options(max_bytes=3 * MIB),
            [("problem", "the 100 bytes that are left wait")],
        ),
        (
            [state("a", None, 100)],
            options("error", max_bytes=3 * MIB),
            [("problem", "fail with LogFull")],
        ),
        (
            [state("a", 5, 95), state("b", 99, 1)],
            options(max_bytes=10 * MIB),
            [("warning", "'a' is 95 events behind")],
        ),
        ([state("a", 5, 95)], options(max_age=timedelta(1)), [("warning", "keeps retention")]),
        ([state("a", 50, 50)], options(max_bytes=3 * MIB), [("ok", "")]),
        ([state("a", 5, 95)], options(max_bytes=3 * MIB, keep_unacked=False), [("ok", "")]),
    ],
)
def test_consumers(
    states: list[ConsumerState], options_: LogOptions, expected: list[tuple[str, str]]
) -> None:
    findings = list(consumer_findings(states, [1, 40, 80], 3 * MIB - 100, options_, NOW))
    assert [one.level for one in findings] == [level for level, _ in expected]
    assert all(words in one.what for one, (_, words) in zip(findings, expected, strict=True))


def test_a_consumer_that_holds_retention_back_is_found_in_a_real_log(tmp_path: Path) -> None:
    retention = Retention(max_bytes=3 * 4096)
    opened = open_storage(str(tmp_path / "log"), segment_bytes=4096, retention=retention)
    opened.ack("slow", 0)
    for n in range(9):
        opened.append(batch_of(str(n) + "." * 1000))
    opened.close()
    (tmp_path / "log").chmod(0o700)
    (problem,) = found(tmp_path / "log", "problem")
    assert "'slow' is 9 events behind" in problem.what
    assert f"eventlog forget {tmp_path}/log 'slow'" in run(str(tmp_path / "log")).stdout


def test_a_consumer_that_keeps_a_limit_below_a_segment_reached_is_found(tmp_path: Path) -> None:
    retention = Retention(max_bytes=64 * 1024)
    opened = open_storage(str(tmp_path / "log"), segment_bytes=MIB, retention=retention)
    opened.ack("slow", 0)
    opened.append(batch_of("first"))
    assert found(tmp_path / "log", "problem") == []
    for _ in range(55):
        opened.append(batch_of("." * 1000))
    with pytest.raises(LogFull):
        opened.append(batch_of("." * 10_000))
    opened.close()
    (tmp_path / "log").chmod(0o700)
    (problem,) = found(tmp_path / "log", "problem")
    assert "at its limit of 64.0 KiB" in problem.what
    assert "events behind" in problem.what


def test_groups() -> None:
    group = GroupReport(
        name="g",
        ordering=None,
        max_deliveries=1,
        position=1,
        lag=0,
        in_flight=0,
        members=0,
        redeliveries=0,
        dead_letters=0,
    )
    assert list(group_findings([group])) == []
    (dead,) = group_findings([replace(group, dead_letters=2)])
    assert "2 dead letter(s)" in dead.what
    (idle,) = group_findings([replace(group, lag=5)])
    assert "nobody works" in idle.what
    assert list(group_findings([replace(group, lag=5, members=1)])) == []


@pytest.mark.parametrize(
    ("count", "words"), [(0, "0 bytes"), (1023, "1,023 bytes"), (1536, "1.5 KiB")]
)
def test_sizes_for_people(count: int, words: str) -> None:
    assert size(count) == words
    assert size(5 << 50) == "5,120.0 TiB"


def test_a_copy_of_a_log_is_examined_without_a_trace(log: Path, tmp_path: Path) -> None:
    shutil.copytree(log, tmp_path / "copy")
    names = sorted(os.listdir(tmp_path / "copy"))
    run(str(tmp_path / "copy"))
    assert sorted(os.listdir(tmp_path / "copy")) == names
