"""The members' pages: what an author leaves in one is what the writer finds."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventlog.config import LEASE_RANGES_MAX
from eventlog.errors import CorruptLog, LogFull, LogNotFound, StorageFailed
from eventlog.local.storage.members import (
    DONE,
    FILE_NAME,
    LEASE_EVENTS_MAX,
    NOT_STARTED,
    PAGE,
    PAGE_BYTES,
    STARTED,
    MemberPage,
    MemberPages,
)
from eventlog.testing import FailingFiles, KillingFiles


@pytest.fixture
def pages(tmp_path: Path) -> Iterator[MemberPages]:
    opened = MemberPages(str(tmp_path), writable=True)
    yield opened
    opened.close()
    opened.close()


@pytest.fixture
def page(tmp_path: Path, pages: MemberPages) -> Iterator[MemberPage]:
    """Page 2 of member 7."""
    pages.make(2)
    opened = MemberPage(str(tmp_path), 2, 7)
    yield opened
    opened.close()
    opened.close()


def test_a_page_holds_a_header_and_a_byte_for_each_event_of_a_lease() -> None:
    assert PAGE.size + LEASE_EVENTS_MAX == PAGE_BYTES
    assert [PAGE.word(field.name) for field in PAGE.fields] == list(range(len(PAGE.fields)))
    assert PAGE.word("lease_id") == 0, "`MemberPage.begin` relies on it"
    assert LEASE_EVENTS_MAX <= LEASE_RANGES_MAX, "a lease of single events fits a message"


def test_a_page_that_was_not_made_reads_as_zeros(pages: MemberPages) -> None:
    for slot in (0, 1, 1000):
        view = pages.read(slot)
        assert view[:-1] == (0,) * len(PAGE.fields)
        assert view.states == bytes(LEASE_EVENTS_MAX)


def test_what_a_member_notes_is_what_the_writer_reads(pages: MemberPages, page: MemberPage) -> None:
    page.begin(99, 5)
    page.states[0], page.states[1], page.states[LEASE_EVENTS_MAX - 1] = STARTED, DONE, STARTED
    for number, field in enumerate(PAGE.fields[2:], start=2):
        page.words[PAGE.word(field.name)] = 2**64 - number
    view = pages.read(2)
    assert (view.lease_id, view.member_id) == (99, 7)
    assert view[2:-1] == tuple(2**64 - number for number in range(2, len(PAGE.fields)))
    wanted = bytearray(LEASE_EVENTS_MAX)
    wanted[0], wanted[1], wanted[-1] = STARTED, DONE, STARTED
    assert view.states == wanted


def test_pages_do_not_touch_each_other(tmp_path: Path, pages: MemberPages) -> None:
    authors = []
    for slot in (3, 0, 2, 1):
        pages.make(slot)
        author = MemberPage(str(tmp_path), slot, 100 + slot)
        author.begin(200 + slot, LEASE_EVENTS_MAX)
        author.states[:] = bytes([slot + 1]) * LEASE_EVENTS_MAX
        authors.append(author)
    for slot in range(4):
        view = pages.read(slot)
        assert (view.lease_id, view.member_id) == (200 + slot, 100 + slot)
        assert view.states == bytes([slot + 1]) * LEASE_EVENTS_MAX
    for author in authors:
        author.close()
    assert pages.read(1).member_id == 101, "a member's end leaves its page"


def test_a_new_lease_begins_with_no_event_started(pages: MemberPages, page: MemberPage) -> None:
    page.begin(1, 10)
    page.states[:10] = bytes([DONE]) * 10
    page.begin(2, 4)
    view = pages.read(2)
    assert view.lease_id == 2
    assert view.states[:4] == bytes([NOT_STARTED]) * 4


def test_a_lease_is_never_seen_with_the_states_of_another(tmp_path: Path, page: MemberPage) -> None:
    """Killed at any step of `begin`, a page belongs to a lease whose states stand in it."""
    pages = MemberPages(str(tmp_path))
    seen = []

    class Watched:
        """The states; whoever looks at the page while they change, looks now."""

        def __init__(self, states: memoryview) -> None:
            self._states = states

        def __setitem__(self, places: slice, value: bytes) -> None:
            seen.append(pages.read(2).lease_id)
            self._states[places] = value
            seen.append(pages.read(2).lease_id)

        def release(self) -> None:
            self._states.release()

    page.begin(1, 10)
    page.states = Watched(page.states)  # type: ignore[assignment]
    page.begin(2, 10)
    assert seen == [0, 0]
    assert pages.read(2).lease_id == 2
    pages.close()


def test_a_page_made_again_is_empty(tmp_path: Path, pages: MemberPages, page: MemberPage) -> None:
    page.begin(5, 5)
    page.states[0] = STARTED
    pages.make(2)
    assert pages.read(2) == pages.read(1)
    assert (tmp_path / FILE_NAME).stat().st_size == 3 * PAGE_BYTES


@given(st.integers(0, 40), st.binary(max_size=200))
def test_any_bytes_are_a_page(
    tmp_path_factory: pytest.TempPathFactory, slot: int, data: bytes
) -> None:
    directory = tmp_path_factory.mktemp("members")
    (directory / FILE_NAME).write_bytes(bytes(slot * PAGE_BYTES) + data)
    pages = MemberPages(str(directory))
    view = pages.read(slot)
    pages.close()
    whole = data.ljust(PAGE_BYTES, b"\0")
    assert dict(zip(view._fields, view, strict=True)) == {
        **PAGE.to_dict(whole),
        "states": whole[PAGE.size :],
    }


# --- the operating system --------------------------------------------------------------------


def test_a_reader_needs_the_file(tmp_path: Path) -> None:
    with pytest.raises(LogNotFound):
        MemberPages(str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_member_whose_page_is_not_there_is_told_so(tmp_path: Path, pages: MemberPages) -> None:
    pages.make(0)
    files = KillingFiles()
    with pytest.raises(CorruptLog):
        MemberPage(str(tmp_path), 1, 7, files)
    assert files.open_descriptors == set()


def test_a_page_has_all_its_room_before_its_member_writes(tmp_path: Path) -> None:
    files = FailingFiles(errno.ENOSPC, ["allocate"], 1)
    pages = MemberPages(str(tmp_path), writable=True, files=files)
    with pytest.raises(LogFull):
        pages.make(0)
    pages.make(0)
    stat = (tmp_path / FILE_NAME).stat()
    assert stat.st_blocks * 512 >= stat.st_size == PAGE_BYTES
    pages.close()
    assert files.open_descriptors == set()


@pytest.mark.parametrize("kind", ["open_write", "map"])
def test_a_page_that_cannot_be_mapped_leaves_no_descriptor(
    tmp_path: Path, pages: MemberPages, kind: str
) -> None:
    pages.make(0)
    files = FailingFiles(errno.EIO, [kind], 1)
    with pytest.raises(StorageFailed):
        MemberPage(str(tmp_path), 0, 7, files)
    assert files.open_descriptors == set()


def test_what_pages_were_there_is_kept_by_the_next_writer(
    tmp_path: Path, pages: MemberPages, page: MemberPage
) -> None:
    page.begin(5, 5)
    page.states[4] = DONE
    again = MemberPages(str(tmp_path), writable=True)
    assert again.read(2) == pages.read(2)
    assert again.read(2).states[4] == DONE
    again.close()
