"""Backups of logs that are at work: whole, consistent, and logs of their own."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import textwrap
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from eventlog import Cause, EventEnvelope, Retention, SeekPosition, blocking
from eventlog.demo.main_job import stop_process
from eventlog.errors import CorruptLog, InvalidArgument, LogFull, LogNotFound
from eventlog.local.groups.stored import read_dead_letters, read_groups
from eventlog.local.storage.control import ControlPage
from eventlog.local.storage.files import Files
from eventlog.local.storage.formats.format import segment_name
from eventlog.local.storage.reading.reader import LogReader
from eventlog.testing import FailingFiles, batch_of, open_storage, stored_events
from eventlog.tools.backup import back_up
from eventlog.tools.verify import verify_log
from workers.blocking import Pool

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "200", "NO_COLOR": "1"}
COMMAND = [sys.executable, "-m", "eventlog"]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A folder for logs; their writers are ended after the test."""
    yield tmp_path
    for path in tmp_path.iterdir():
        if (path / "writer.sock").exists():
            stop_writer(path)


def stop_writer(path: Path) -> None:
    with blocking.open(path) as log:
        pid = log.status().writer_pid
    assert pid is not None
    stop_process(pid)


def fill(directory: Path, **options: Any) -> None:
    log = open_storage(str(directory), segment_bytes=4096, **options)
    for n in range(1, 41):
        log.append(batch_of(f"event {n} " + "." * 300))
    log.ack("billing", 17)
    log.seek("ahead", 99)
    log.close()


def check_whole(directory: Path) -> LogReader:
    log = LogReader(str(directory))
    found = verify_log(log)
    assert found.problems == []
    assert [note for note in found.notes if "waits for" not in note] == []
    return log


def test_a_backup_holds_what_the_log_does_and_goes_on_as_one(place: Path) -> None:
    source, target = place / "log", place / "copy"
    fill(source)
    (source / "writer.log").write_text("not for the copy")
    report = back_up(str(source), str(target))
    assert (report.first_seq_no, report.last_seq_no) == (1, 40)
    assert report.segments == len(list(source.glob("*.seg")))
    assert stored_events(str(target)) == stored_events(str(source))
    log = check_whole(target)
    assert log.position_of("billing") == 17
    assert log.position_of("ahead") == 99
    assert log.options == LogReader(str(source)).options
    assert log.control.log_id != LogReader(str(source)).control.log_id
    log.close()
    names = {path.name for path in target.iterdir()}
    assert names == {path.name for path in source.iterdir()} - {"writer.log"}
    assert target.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in target.iterdir()} == {0o600}
    for path in source.glob("*.idx"):
        assert (target / path.name).read_bytes() == path.read_bytes().rstrip(b"\0").ljust(
            len((target / path.name).read_bytes()), b"\0"
        )
    with blocking.open(target) as opened:
        assert opened.append("more") == 41
        assert [one.event for one in opened.read(41)] == ["more"]
    assert stored_events(str(source), 41) == {}


def test_a_backup_has_causes_marks_and_states(place: Path) -> None:
    source, target = place / "log", place / "copy"
    cause = Cause(UUID(int=9), 7, "g")
    with blocking.open(source) as log:
        log.append(EventEnvelope("result", key="k", cause=cause))
        log.delete("k")
        log.ack("plain", 1)
        log.ack("total", 1, state=b"one")
        log.ack("total", 2, state=b"two")
        log.ack("moved on", 1, state=b"one")
        log.ack("moved on", 2)
        wanted = [(one.name, one.last_acked, one.state) for one in log.consumers()]
        back_up(str(source), str(target))
    check_whole(target).close()
    with blocking.open(target) as log:
        found = [(one.name, one.last_acked, one.state) for one in log.consumers()]
        result, mark = log.read(1)
        assert result.cause == cause
        assert mark.is_deletion
        log.ack("total", 2, state=b"of the copy")
        with log.subscribe("total", follow=False) as stream:
            assert stream.state == b"of the copy"
    assert found == wanted == [("moved on", 2, None), ("plain", 1, None), ("total", 2, b"two")]
    with blocking.open(source) as log:
        assert [one.state for one in log.consumers()] == [None, None, b"two"]


def test_an_empty_log_and_one_that_nobody_served_can_be_copied(place: Path) -> None:
    log = open_storage(str(place / "log"))
    log.close()
    report = back_up(str(place / "log"), str(place / "copy"))
    assert (report.first_seq_no, report.last_seq_no, report.bytes) == (None, None, 0)
    (place / "log" / "offsets").unlink()
    (place / "empty").mkdir()
    back_up(str(place / "log"), str(place / "empty"))
    for name in ("copy", "empty"):
        check_whole(place / name).close()
        with blocking.open(place / name) as opened:
            assert opened.append(1) == 1


def test_a_backup_takes_no_room_for_what_is_not_there(place: Path) -> None:
    log = open_storage(str(place / "log"))  # segments of 64 MiB
    log.append(batch_of("x"))
    log.close()
    report = back_up(str(place / "log"), str(place / "copy"))
    assert report.bytes < 1000
    copied = place / "copy" / segment_name(1)
    assert copied.stat().st_size == 64 << 20
    assert copied.stat().st_blocks * 512 < 1 << 20


def test_nothing_of_a_batch_in_the_making_is_copied(place: Path) -> None:
    fill(place / "log")
    newest = max((place / "log").glob("*.seg"))
    content = newest.read_bytes()
    end = len(content.rstrip(b"\0")) + 8 & ~7
    with open(newest, "r+b") as file:
        file.seek(end)
        file.write(content[64 : 64 + 200])
    back_up(str(place / "log"), str(place / "copy"))
    assert (place / "copy" / newest.name).read_bytes() == content


def test_damage_is_copied_as_it_is_and_not_hidden(place: Path) -> None:
    fill(place / "log")
    second, *_, newest = sorted((place / "log").glob("*.seg"))[1:]
    content = bytearray(second.read_bytes())
    content[100] ^= 1
    second.write_bytes(content)
    back_up(str(place / "log"), str(place / "copy"))
    log = LogReader(str(place / "copy"))
    (problem,) = verify_log(log).problems
    log.close()
    assert f"events {int(second.stem)} to {int(second.stem)} " in problem
    newest.unlink()
    with pytest.raises(CorruptLog):
        back_up(str(place / "log"), str(place / "other"))
    assert not (place / "other").exists()
    second.unlink()


@pytest.mark.parametrize("is_header_whole", [True, False])
def test_a_segment_that_retires_while_it_is_copied_is_not_written_over(
    place: Path, is_header_whole: bool
) -> None:
    """A copy held no lock: the writer recycled the file, and the copy had the bytes of both."""
    log = open_storage(
        str(place / "log"),
        segment_bytes=4096,
        durability="memory",
        retention=Retention(max_bytes=4 * 4096, keep_unacked=False),
    )

    def prepare() -> None:
        if (work := log.spare.begin()) is not None:
            log.spare.finish(work.run())

    def append(count: int) -> None:
        for _ in range(count):
            log.append(batch_of(f"event {log.last_seq_no + 1} " + "x" * 1500))

    log.on_spare_wanted = prepare
    append(8)
    oldest = min((place / "log").glob("*.seg"))
    content = bytearray(oldest.read_bytes())
    if not is_header_whole:
        content[40] ^= 1
        oldest.write_bytes(content)

    class Slow(Files):
        def copy(self, source: int, target: int, size: int, target_size: int) -> None:
            if os.readlink(f"/proc/self/fd/{source}") == str(oldest):
                append(8)
            super().copy(source, target, size, target_size)

    report = back_up(str(place / "log"), str(place / "copy"), files=Slow())
    assert not oldest.exists()
    assert (report.first_seq_no, report.last_seq_no) == (1, 8)
    assert (place / "copy" / oldest.name).read_bytes() == content
    log.close()


@pytest.mark.parametrize("what", ["file", "directory", "link", "inside", "itself", "no parent"])
def test_a_target_that_is_there_is_refused(place: Path, what: str) -> None:
    fill(place / "log")
    target = {"inside": place / "log" / "copy", "itself": place / "log"}.get(what, place / "copy")
    if what == "file":
        target.write_text("precious")
    elif what == "directory":
        target.mkdir()
        (target / "precious").write_text("")
    elif what == "link":
        (place / "elsewhere").mkdir()
        target.symlink_to(place / "elsewhere")
    elif what == "no parent":
        target = place / "nothing" / "copy"
    names = sorted(os.listdir(place)), sorted(os.listdir(place / "log"))
    with pytest.raises(InvalidArgument):
        back_up(str(place / "log"), str(target))
    assert (sorted(os.listdir(place)), sorted(os.listdir(place / "log"))) == names
    with pytest.raises(LogNotFound):
        back_up(str(place / "nolog"), str(place / "new"))


@pytest.mark.parametrize("kind", ["create", "write", "sync"])
@pytest.mark.parametrize("at", [1, 3, 8])
def test_a_full_disk_leaves_nothing_of_a_copy(place: Path, kind: str, at: int) -> None:
    fill(place / "log")
    files = FailingFiles(errno.ENOSPC, {kind}, at, for_ever=True)
    with pytest.raises(LogFull):
        back_up(str(place / "log"), str(place / "copy"), files=files)
    assert os.listdir(place) == ["log"]
    assert files.open_descriptors == set()


def test_an_interrupted_copy_leaves_nothing_under_the_targets_name(place: Path) -> None:
    fill(place / "log")

    def interrupt(done: int, _total: int) -> None:
        if done > 2 * 4096:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        back_up(str(place / "log"), str(place / "copy"), interrupt)
    assert os.listdir(place) == ["log"]


def test_a_killed_copy_leaves_nothing_under_the_targets_name(place: Path) -> None:
    fill(place / "log")
    program = """
        import sys
        from eventlog.tools.backup import back_up
        def wait(done, total):
            print(done, flush=True)
            sys.stdin.read(1)
        back_up("log", "copy", wait)
        """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=place,
        env=ENVIRONMENT,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with process.stdin, process.stdout:
        assert process.stdout.readline() == b"4096\n"
        process.kill()
        process.wait(30)
    assert not (place / "copy").exists()
    back_up(str(place / "log"), str(place / "copy"))
    check_whole(place / "copy").close()


PRODUCER = """
    import sys
    from eventlog import blocking
    with blocking.open("log") as log:
        n = 0
        while True:
            first, last = log.append_many({"n": n + k, "pad": "." * 50} for k in range(20))
            n += 20
            log.ack("reader", last)
            if first < 2000 < last + 21:
                print("going", flush=True)
    """


@contextmanager
def at_work(place: Path, count: int = 2) -> Iterator[None]:
    """Processes that append and acknowledge all the time."""
    producers = [
        subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(PRODUCER)],
            stdout=subprocess.PIPE,
            cwd=place,
            env=ENVIRONMENT,
        )
        for _ in range(count)
    ]
    try:
        assert producers[0].stdout is not None
        yield
    finally:
        for producer in producers:
            producer.kill()
            assert producer.stdout is not None
            producer.stdout.close()
            producer.wait(30)


def wait_for(log: blocking.EventLog, seq_no: int) -> None:
    with log.subscribe("waiter", SeekPosition.sequence(seq_no)) as stream:
        for _ in stream:
            return


@pytest.mark.parametrize("retention", [None, Retention(max_bytes=300_000, keep_unacked=False)])
def test_a_log_is_copied_while_it_is_written(place: Path, retention: Retention | None) -> None:
    with blocking.open(place / "log", segment_bytes=65_536, retention=retention) as log:
        last = 0
        with at_work(place):
            for number in range(5):
                wait_for(log, (log.last_seq_no() or 0) + 500)
                before = log.last_seq_no()
                assert before is not None
                target = place / f"copy-{number}"
                report = back_up(log.path, str(target))
                assert report.last_seq_no is not None
                assert report.first_seq_no is not None
                assert report.last_seq_no >= before
                copied = check_whole(target)
                assert copied.last_seq_no == report.last_seq_no
                assert copied.position_of("reader") <= report.last_seq_no
                copied.close()
                events = stored_events(str(target), report.first_seq_no)
                assert list(events) == list(range(report.first_seq_no, report.last_seq_no + 1))
                last = report.last_seq_no
        if retention is None:
            for number in range(5):
                copy = stored_events(str(place / f"copy-{number}"), 1)
                assert stored_events(log.path, 1, len(copy) + 1) == copy
    with blocking.open(place / "copy-4") as opened:
        assert opened.append("on") == last + 1


def test_a_group_at_work_is_copied_so_that_each_result_is_there_once(place: Path) -> None:
    """Results and acknowledgements are one step in the log; they must be in its copy, too."""
    count, copies = 1200, 3
    handler = lambda event: {"of": event["n"]}  # noqa: E731 - travels by value
    with blocking.open(place / "log", segment_bytes=65_536) as log:
        log.append_many({"n": n} for n in range(count))
        with Pool(log, group="g", handler=handler, processes=2, output=log) as pool:
            for number in range(copies):
                wait_for(log, count + 1 + number * count // copies)
                back_up(log.path, str(place / f"copy-{number}"))
            pool.drained()
    for number in range(copies):
        copy = place / f"copy-{number}"
        (report,) = read_groups(copy)
        assert (report.members, report.in_flight) == (0, 0)
        with blocking.open(copy) as log:
            with Pool(log, group="g", handler=handler, processes=1, output=log) as pool:
                pool.drained()
            results = Counter(one.event["of"] for one in log.read(count + 1))
        assert results == dict.fromkeys(range(count), 1), number


def test_what_members_have_in_their_hands_is_handed_out_in_the_copy(place: Path) -> None:
    with blocking.open(place / "log") as log:
        log.append_many(range(10))
        with log.group("g") as group, group.open_member() as member:
            lease = member.lease(4)
            assert lease is not None
            back_up(log.path, str(place / "copy"))
            # The copying process passed for the copy's writer, which it is as little as any other.
            control = ControlPage(str(place / "copy"))
            assert control.running_writer is None
            control.close()
            with blocking.open(place / "copy") as copied, copied.group("g") as other:
                copied.append("end")
                with other.open_member() as taker:
                    found: list[int] = []
                    while len(found) < 11:
                        got = taker.lease(100)
                        assert got is not None
                        for _, envelope in got:
                            found.append(envelope.seq_no or 0)
                            assert got.begin(envelope)
                            got.done(envelope)
                assert sorted(found) == list(range(1, 12))


def test_dead_letters_are_in_the_copy(place: Path) -> None:
    with blocking.open(place / "log") as log:
        log.append_many(range(3))
        bad = lambda event: 1 / event  # noqa: E731 - travels by value
        with Pool(log, group="g", handler=bad, processes=1, max_deliveries=1) as pool:
            pool.drained()
        back_up(log.path, str(place / "copy"))
    (letter,) = read_dead_letters(place / "copy")
    assert (letter.seq_no, letter.event) == (1, 0)
    assert read_groups(place / "copy") == read_groups(place / "log")
    with blocking.open(place / "copy") as copied:
        assert copied.retry_dead("g", [1]) == 1


def test_the_command_says_what_it_copied(place: Path) -> None:
    fill(place / "log")
    command = [*COMMAND, "backup", str(place / "log"), str(place / "copy")]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, check=True)
    assert "the events 1 to 40 in" in done.stdout
    again = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, check=False)
    assert again.returncode == 2
    assert "overwrites nothing" in again.stderr
    shutil.rmtree(place / "copy")
    done = subprocess.run(
        [*command, "--json"], capture_output=True, text=True, env=ENVIRONMENT, check=True
    )
    assert json.loads(done.stdout)["last_seq_no"] == 40
