"""Options that are changed in the control page: whole at every moment, whoever reads them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import msgpack
import pytest
from crc32c import crc32c

from eventlog.config import AskedOptions, LogOptions, Retention
from eventlog.errors import InvalidConfig
from eventlog.local.storage.control import (
    CONTROL,
    FILE_NAME,
    OPTIONS_OFFSET,
    ControlPage,
)
from eventlog.local.storage.files import Files
from eventlog.local.storage.formats.changed_options import (
    CHANGES,
    CHANGES_OFFSET,
    Change,
    pack_change,
)
from eventlog.local.storage.starting.start import make_control_file

MADE = LogOptions.of(AskedOptions(segment_bytes=8192))
FIRST = replace(MADE, retention=Retention(max_bytes=1 << 20, max_age=timedelta(days=7)))
SECOND = replace(FIRST, on_full="error")


class Recording(Files):
    """Keeps what is stored."""

    def __init__(self) -> None:
        self.stores: list[tuple[int, bytes]] = []

    def store(self, descriptor: int, view: memoryview, position: int, data: bytes) -> None:
        self.stores.append((position, data))
        super().store(descriptor, view, position, data)


class Unsynced(Files):
    """Spares the disk, where only the bytes are looked at."""

    def sync(self, descriptor: int) -> None:
        pass


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    make_control_file(str(tmp_path), MADE)
    return tmp_path


def changed(directory: Path, options: LogOptions, *names: str) -> list[tuple[int, bytes]]:
    """Change the options; what was stored for it."""
    files = Recording()
    page = ControlPage(str(directory), writable=True, files=files)
    page.change_options(options, names)
    page.close()
    return files.stores


def options_of(directory: Path) -> LogOptions:
    page = ControlPage(str(directory))
    options = page.options
    page.close()
    return options


def as_earlier_releases_read(page: bytes) -> LogOptions:
    fields = CONTROL.to_dict(page)
    assert fields["crc"] == crc32c(page[: CONTROL.offset("crc")])
    packed = page[OPTIONS_OFFSET : OPTIONS_OFFSET + fields["options_bytes"]]
    assert crc32c(packed) == fields["options_crc"]
    return LogOptions.from_dict(msgpack.unpackb(packed))


def states(page: bytes, stores: list[tuple[int, bytes]]) -> Iterator[bytes]:
    """The page after each byte of what is stored in it."""
    whole = bytearray(page)
    for position, data in stores:
        for place, byte in enumerate(data, position):
            yield bytes(whole)
            whole[place] = byte
    yield bytes(whole)


def test_changed_options_are_those_of_the_log_for_this_release_and_for_earlier_ones(
    directory: Path,
) -> None:
    changed(directory, FIRST, "retention")
    assert options_of(directory) == FIRST
    assert as_earlier_releases_read((directory / FILE_NAME).read_bytes()) == FIRST
    changed(directory, SECOND, "on_full")
    page = ControlPage(str(directory))
    assert page.options == SECOND
    assert page.changed_options == {"retention", "on_full"}
    page.close()
    assert as_earlier_releases_read((directory / FILE_NAME).read_bytes()) == SECOND


@pytest.mark.parametrize("is_second", [False, True])
def test_a_writer_killed_at_any_byte_leaves_the_old_options_or_the_new_ones(
    directory: Path, is_second: bool
) -> None:
    path = directory / FILE_NAME
    if is_second:
        changed(directory, FIRST, "retention")
    old, new = (FIRST, SECOND) if is_second else (MADE, FIRST)
    before = path.read_bytes()
    stores = changed(directory, new, "on_full")
    seen = []
    for state in states(before, stores):
        path.write_bytes(state)
        found = options_of(directory)
        seen.append(found)
        ControlPage(
            str(directory), writable=True, files=Unsynced()
        ).close()  # as the next writer does
        assert as_earlier_releases_read(path.read_bytes()) == found
    assert seen == sorted(seen, key=lambda one: one == new), "old ones, and from some byte on new"
    assert {repr(one) for one in seen} == {repr(old), repr(new)}


def test_an_open_reader_sees_a_change_when_it_looks(directory: Path) -> None:
    page = ControlPage(str(directory))
    changed(directory, FIRST, "retention")
    assert page.options == MADE
    assert page.look_at_options() == FIRST
    page.close()


@pytest.mark.parametrize(
    "asked",
    [
        AskedOptions(durability="sync"),
        AskedOptions(segment_bytes=8192),
        AskedOptions(max_event_bytes=1),
    ],
)
def test_what_a_log_is_made_with_for_good_is_not_changed(asked: AskedOptions) -> None:
    (name,) = asked.given
    with pytest.raises(InvalidConfig, match=f"{name} of a log stays"):
        MADE.changed(asked)


@pytest.mark.parametrize("junk", [b"", b"\x01\x02", msgpack.packb({"options": 3})])
def test_a_second_place_of_junk_does_not_count(directory: Path, junk: bytes) -> None:
    path = directory / FILE_NAME
    page = bytearray(path.read_bytes())
    rest = bytes(4) + junk
    head = CHANGES.pack(len(junk), crc32c(rest), 0)
    page[CHANGES_OFFSET : CHANGES_OFFSET + len(head) + len(junk)] = head + junk
    path.write_bytes(page)
    assert options_of(directory) == MADE


def test_the_largest_options_fit() -> None:
    largest = replace(
        MADE, retention=Retention(max_bytes=2**63 - 1, max_age=timedelta(days=999_999_999))
    )
    names = frozenset({"retention", "on_full"})
    assert CHANGES_OFFSET + len(pack_change(Change(largest, names, 2**32 - 1))) < 4096
