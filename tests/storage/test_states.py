"""States of consumers as they lie in a directory: a journal beside the offset table."""

from __future__ import annotations

import errno
import os
import random
import shutil
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventlog.config import STATE_BYTES_MAX
from eventlog.errors import CorruptLog, EventLogError, LogFull
from eventlog.local.storage import states as states_file
from eventlog.local.storage.files import Files
from eventlog.local.storage.formats.offset_format import HEADER, SLOT, STATES_VERSION, Offset
from eventlog.local.storage.journal import STATES_NAME, framed, journal_header
from eventlog.local.storage.offsets import OffsetTable, open_or_make
from eventlog.local.storage.reading.reader import LogReader
from eventlog.local.storage.states import REWRITE_BYTES
from eventlog.testing import FailingFiles, batch_of, open_storage
from eventlog.tools.repair import repair_log
from eventlog.tools.survey import survey
from tests.fuzz.targets import seal_journal
from tests.storage.test_golden import V1


@pytest.fixture
def table(tmp_path: Path) -> Iterator[OffsetTable]:
    opened = open_or_make(str(tmp_path))
    yield opened
    opened.close()


@pytest.fixture
def reader(table: OffsetTable) -> Iterator[OffsetTable]:
    opened = OffsetTable(table.directory)
    yield opened
    opened.close()


def version_of(directory: str) -> int:
    with open(os.path.join(directory, "offsets"), "rb") as file:
        return int(HEADER.to_dict(file.read(HEADER.size))["version"])


def test_a_log_without_states_stays_as_older_releases_know_it(table: OffsetTable) -> None:
    table.set("a", 5, 1)
    table.set("a", 3, 2)
    assert version_of(table.directory) == 1
    assert STATES_NAME not in os.listdir(table.directory)


def test_a_table_with_a_state_is_refused_by_releases_that_would_misread_it(
    table: OffsetTable,
) -> None:
    table.set("a", 5, 1)
    table.set("b", 7, 1, b"state")
    assert version_of(table.directory) == STATES_VERSION == 2


positions = st.tuples(
    st.sampled_from("abc"), st.integers(0, 50), st.none() | st.binary(max_size=20)
)


@given(st.lists(positions | st.sampled_from(["forget a", "forget b", "open anew"]), max_size=40))
def test_any_moves_are_seen_by_readers_and_by_the_next_writer(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int, bytes | None] | str]
) -> None:
    directory = str(tmp_path_factory.mktemp("table"))
    table, wanted = open_or_make(directory), dict[str, Offset]()
    reader = OffsetTable(directory)
    for number, step in enumerate(steps):
        if step == "open anew":
            table.close()
            table = open_or_make(directory)
        elif isinstance(step, str):
            table.forget(step[-1])
            wanted.pop(step[-1], None)
        else:
            name, position, state = step
            table.set(name, position, number, state)
            wanted[name] = Offset(name, position, number, state)
        expected = [wanted[name] for name in sorted(wanted)]
        assert table.all() == reader.all() == expected
        assert [reader.find(one.name) for one in expected] == expected
        lowest = min((one.position for one in expected), default=None)
        assert table.lowest() == lowest
    table.close()
    reader.close()


def test_the_file_of_states_is_kept_short(table: OffsetTable, reader: OffsetTable) -> None:
    table.set("small", 1, 1, b"small")
    for number in range(1, 201):
        table.set("large", number, number, bytes([number]) * STATE_BYTES_MAX)
    size = os.path.getsize(os.path.join(table.directory, STATES_NAME))
    assert size < 2 * REWRITE_BYTES < 200 * STATE_BYTES_MAX
    assert reader.find("large") == Offset("large", 200, 200, bytes([200]) * STATE_BYTES_MAX)
    assert reader.find("small") == Offset("small", 1, 1, b"small")
    table.forget("large")
    assert os.path.getsize(os.path.join(table.directory, STATES_NAME)) < 1000


class CountedReads(Files):
    """How many bytes were read."""

    total = 0

    def read(self, descriptor: int, size: int, position: int) -> bytes:
        data = super().read(descriptor, size, position)
        self.total += len(data)
        return data


def test_a_reader_reads_each_record_once(table: OffsetTable) -> None:
    """It read all of them again whenever one was added."""
    files = CountedReads()
    with closing(OffsetTable(table.directory, files=files)) as reader:
        for position in range(1, 101):
            table.set("a", position, 1, bytes(1000))
            assert reader.find("a") == Offset("a", position, 1, bytes(1000))
    assert 100 * 1000 <= files.total < 150 * 1000


def test_a_reader_reads_a_file_that_took_the_place_of_another(
    table: OffsetTable, reader: OffsetTable
) -> None:
    """Also one that is as long, and one that is gone and there again."""
    path = Path(table.directory, STATES_NAME)
    table.set("a", 1, 1, b"one")
    assert reader.find("a") == Offset("a", 1, 1, b"one")
    for position, state in [(2, b"two"), (3, b"tri")]:
        path.with_suffix(".new").write_bytes(
            journal_header() + framed(Offset("a", position, 1, state))
        )
        os.replace(path.with_suffix(".new"), path)
        assert reader.find("a") == Offset("a", position, 1, state)
    kept = path.read_bytes()
    path.unlink()
    assert reader.find("a") == Offset("a", 0, 1)
    path.write_bytes(kept)
    assert reader.find("a") == Offset("a", 3, 1, b"tri")


def test_a_reader_never_sees_a_position_with_another_ones_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(states_file, "REWRITE_BYTES", 500)
    table = open_or_make(str(tmp_path))
    table.set("c", 1, 1, b"1")
    reader = OffsetTable(str(tmp_path))
    is_over = threading.Event()

    def move() -> None:
        for number in range(2, 2000):
            table.set("c", number, number, None if number % 7 == 0 else b"%d" % number)
        is_over.set()

    thread = threading.Thread(target=move)
    thread.start()
    seen = set()
    while not is_over.is_set():
        found = reader.find("c")
        assert found is not None
        wanted = None if found.position % 7 == 0 else b"%d" % found.position
        assert found.state == wanted
        seen.add(found.position)
    thread.join()
    assert len(seen) > 1
    reader.close()
    table.close()


def test_a_full_disk_refuses_the_state_and_moves_nothing(tmp_path: Path) -> None:
    open_or_make(str(tmp_path)).close()
    files = FailingFiles(errno.ENOSPC, {"write"}, at=3, torn=True)  # a header, a record, a record
    table, reader = open_or_make(str(tmp_path), files), OffsetTable(str(tmp_path))
    table.set("c", 1, 1, b"one")
    with pytest.raises(LogFull):
        table.set("c", 2, 2, b"two")
    assert table.all() == reader.all() == [Offset("c", 1, 1, b"one")]
    table.set("c", 2, 2, b"2")
    assert table.all() == reader.all() == [Offset("c", 2, 2, b"2")]
    table.close()
    reader.close()


# --- what is lost --------------------------------------------------------------------------------


@pytest.fixture
def log(tmp_path: Path) -> str:
    """A log of ten events, with a consumer that had no state at 2 and then states at 5 and 8."""
    opened = open_storage(str(tmp_path / "log"))
    opened.append(batch_of(*range(10)))
    opened.ack("c", 2)
    opened.ack("c", 5, b"five")
    opened.ack("c", 8, b"eight")
    opened.close()
    return str(tmp_path / "log")


def found_in(path: str) -> tuple[list[tuple[int, bytes | None]], list[str]]:
    """Positions and states after a start, and what the start says."""
    opened = open_storage(path)
    found = [(one.position, one.state) for one in opened.offsets.all()]
    opened.close()
    return found, opened.warnings


def test_without_its_file_a_state_is_gone_with_the_positions_from_its_first_on(log: str) -> None:
    os.unlink(os.path.join(log, STATES_NAME))
    reader = LogReader(log)
    texts = [fault.text for fault in survey(reader) if fault.is_problem]
    reader.close()
    assert len(texts) == 1
    assert "the state of the consumer 'c' is lost: it goes on after event 2" in texts[0]
    found, warnings = found_in(log)
    assert found == [(2, None)]
    assert warnings == texts
    assert found_in(log) == ([(2, None)], [])


def test_a_damaged_record_leaves_the_state_before_it_with_its_own_position(log: str) -> None:
    path = Path(log, STATES_NAME)
    data = path.read_bytes()
    path.write_bytes(data[:-3] + b"\xff\xff\xff")
    assert found_in(log)[0] == [(5, b"five")]


def test_a_torn_record_is_cut(log: str) -> None:
    path = Path(log, STATES_NAME)
    data = path.read_bytes()
    path.write_bytes(data[:-3])
    assert found_in(log)[0] == [(5, b"five")]
    opened = open_storage(log)
    opened.ack("c", 9, b"nine")
    opened.close()
    assert found_in(log)[0] == [(9, b"nine")]


def test_a_file_of_states_that_is_another_one_is_said_to_be_damaged(log: str) -> None:
    Path(log, STATES_NAME).write_bytes(b"something else, of more than a header")
    with pytest.raises(CorruptLog, match="header of the file 'states'"):
        open_storage(log)
    path = Path(log, STATES_NAME)
    path.write_bytes(journal_header() + framed(["c", "five", 3, None]))
    with pytest.raises(CorruptLog, match="'states'"):
        open_storage(log)


@pytest.mark.parametrize("is_sealed", [False, True], ids=["as it is", "with right checksums"])
@pytest.mark.parametrize("inputs", [10, pytest.param(200, marks=pytest.mark.slow)])
def test_any_bytes_are_states_or_an_error_of_ours(
    tmp_path: Path, is_sealed: bool, inputs: int
) -> None:
    rng = random.Random(1)
    golden = (V1 / "states" / STATES_NAME).read_bytes()
    path = tmp_path / "log"
    for _ in range(inputs):
        shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(V1 / "states", path)
        content = bytearray(golden)
        for _ in range(rng.randint(1, 4)):
            place = rng.randrange(len(content))
            content[place : place + rng.choice([0, 1, 8])] = rng.randbytes(rng.choice([0, 1, 9]))
        if is_sealed:
            seal_journal(content)
        (path / STATES_NAME).write_bytes(content)
        with suppress(EventLogError), closing(LogReader(str(path))) as reader:
            reader.consumers()
            survey(reader)
        with suppress(EventLogError):
            open_storage(str(path)).close()
        with suppress(EventLogError):
            repair_log(str(path))


def test_a_repaired_table_leaves_the_states_of_others_as_they_are(log: str) -> None:
    opened = open_storage(log)
    opened.ack("other", 4)
    opened.close()
    path = Path(log, "offsets")
    content = bytearray(path.read_bytes())
    content[HEADER.size + SLOT.size + SLOT.offset("name")] ^= 1  # the second one's
    content[0] ^= 1
    path.write_bytes(content)
    report = repair_log(log)
    assert "made the offset table again, with 1 consumer(s)" in report.done
    assert version_of(log) == STATES_VERSION
    assert found_in(log) == ([(8, b"eight")], [])


def test_a_repair_says_which_states_are_lost(log: str) -> None:
    path = Path(log, STATES_NAME)
    content = bytearray(path.read_bytes())
    content[-3] ^= 1  # in the last record; the next one is whole
    path.write_bytes(bytes(content) + framed(["c", 9, 1, b"nine"]))
    report = repair_log(log)
    assert [text for text in report.lost if "states of consumers" in text]
    assert found_in(log)[0] == [(5, b"five")]


def test_a_consumer_goes_back_with_a_state_from_before_the_events_that_are_lost(
    tmp_path: Path,
) -> None:
    synced = 10
    table = open_or_make(str(tmp_path), synced=lambda: synced)
    for number in range(1, 200):
        table.set("c", number, number, b"%d" % number + bytes(STATE_BYTES_MAX - 10))
    table.set("plain", 150, 1)
    assert os.path.getsize(tmp_path / STATES_NAME) < 2 * REWRITE_BYTES
    table.go_back(12)
    found = table.find("c")
    assert found is not None
    assert (found.position, (found.state or b"")[:2]) == (10, b"10")
    assert table.find("plain") == Offset("plain", 12, 1)
    table.close()
