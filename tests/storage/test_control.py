from __future__ import annotations

import os
from pathlib import Path

import pytest
from crc32c import crc32c
from hypothesis import given
from hypothesis import strategies as st

from eventlog.config import AskedOptions, LogOptions, Retention
from eventlog.errors import (
    CorruptLog,
    EventLogError,
    LogFull,
    LogNotFound,
    NotALog,
    PermissionDenied,
    UnknownFormat,
)
from eventlog.local.storage.control import (
    CONTROL,
    FILE_NAME,
    PAGE_BYTES,
    ControlPage,
    check_is_log,
    is_log,
    new_control_page,
)
from eventlog.local.storage.starting.start import make_control_file
from eventlog.testing import FailingFiles, Killed, KillingFiles

OPTIONS = LogOptions.of(AskedOptions(segment_bytes=8192, retention=Retention(max_bytes=1 << 20)))
PAGE = new_control_page(OPTIONS, bytes(range(16)), 1_700_000_000_000_000_000)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    make_control_file(str(tmp_path), OPTIONS)
    return tmp_path


def put(directory: Path, page: bytes) -> None:
    (directory / FILE_NAME).write_bytes(page)


def test_a_new_page_says_what_the_log_was_made_with(directory: Path) -> None:
    page = ControlPage(str(directory))
    assert page.options == OPTIONS
    assert (page.high_water, page.synced, page.first_available) == (0, 0, 1)
    assert (page.epoch, page.writer_pid, page.boot_id) == (0, 0, "")
    page.close()
    page.close()


def test_two_logs_have_two_ids(tmp_path: Path) -> None:
    ids = set()
    for name in "ab":
        (tmp_path / name).mkdir()
        make_control_file(str(tmp_path / name), OPTIONS)
        page = ControlPage(str(tmp_path / name))
        ids.add(page.log_id)
        page.close()
    assert len(ids) == 2


def test_readers_see_at_once_what_the_writer_stores(directory: Path) -> None:
    writer, reader = ControlPage(str(directory), writable=True), ControlPage(str(directory))
    names = ["high_water", "synced", "first_available", "epoch", "writer_pid", "writer_start"]
    for value, name in enumerate(names, start=2**40):
        setattr(writer, name, value)
    writer.boot_id = "0" * 36
    assert [getattr(reader, name) for name in names] == list(range(2**40, 2**40 + len(names)))
    assert reader.boot_id == "0" * 36
    assert reader.log_id == writer.log_id
    writer.sync()
    writer.close()
    reader.close()


def test_readers_cannot_write(directory: Path) -> None:
    reader = ControlPage(str(directory))
    with pytest.raises(TypeError):
        reader.high_water = 1
    reader.close()


def test_a_damaged_page_is_said_so(directory: Path) -> None:
    for place in range(CONTROL.offset("high_water") - 16):
        page = bytearray(PAGE)
        page[place] ^= 0x11
        put(directory, bytes(page))
        with pytest.raises((CorruptLog, NotALog, UnknownFormat)):
            pytest.fail(f"byte {place}: {ControlPage(str(directory)).options}")


def test_damaged_options_are_said_so(directory: Path) -> None:
    put(directory, PAGE[:520] + b"\xff" + PAGE[521:])
    with pytest.raises(CorruptLog, match="options"):
        ControlPage(str(directory))


def with_crc(page: bytes) -> bytes:
    """The page, with the checksum that its first bytes should have."""
    end = CONTROL.offset("crc")
    return page[:end] + crc32c(page[:end]).to_bytes(4, "little") + page[end + 4 :]


@pytest.mark.parametrize(
    ("page", "error", "words"),
    [
        (b"", NotALog, "shorter"),
        (PAGE[:-1], NotALog, "shorter"),
        (b"#!/bin/sh\n".ljust(PAGE_BYTES), NotALog, "something else"),
        (with_crc(PAGE[:8] + b"\x02\x00" + PAGE[10:]), UnknownFormat, "version 2"),
        (with_crc(PAGE[:10] + b"\x01\x02" + PAGE[12:]), UnknownFormat, "byte order"),
        (PAGE[:8] + b"\x02\x00" + PAGE[10:], CorruptLog, "damaged"),
    ],
    ids=[
        "empty",
        "short",
        "a script",
        "version 2",
        "other byte order",
        "flipped",
    ],
)
def test_what_is_no_control_page_of_ours(
    directory: Path, page: bytes, error: type[EventLogError], words: str
) -> None:
    put(directory, page)
    with pytest.raises(error, match=words) as caught:
        ControlPage(str(directory))
    assert caught.value.path == str(directory)


@given(st.binary(max_size=300), st.booleans())
def test_arbitrary_bytes_are_no_log(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, has_magic: bool
) -> None:
    directory = tmp_path_factory.mktemp("any")
    put(directory, ((PAGE[:12] if has_magic else b"") + data).ljust(PAGE_BYTES, b"\1"))
    with pytest.raises((CorruptLog, NotALog, UnknownFormat)):
        ControlPage(str(directory))


def test_where_there_is_no_log(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path, error in ((tmp_path, NotALog), (tmp_path / "file", NotALog)):
        assert not is_log(str(path))
        with pytest.raises(error):
            check_is_log(str(path))
    with pytest.raises(LogNotFound):
        check_is_log(str(tmp_path / "nothing"))
    with pytest.raises(LogNotFound):
        ControlPage(str(tmp_path / "nothing"))


def test_a_link_is_not_followed(directory: Path, tmp_path: Path) -> None:
    os.rename(directory / FILE_NAME, directory / "elsewhere")
    os.symlink(directory / "elsewhere", directory / FILE_NAME)
    with pytest.raises(EventLogError):
        ControlPage(str(directory))


def test_a_log_made_anew_at_the_path_is_another_one(directory: Path) -> None:
    page = ControlPage(str(directory))
    assert not page.is_replaced()
    make_control_file(str(directory), OPTIONS)
    assert page.is_replaced()
    os.unlink(directory / FILE_NAME)
    assert page.is_replaced()
    page.close()


def test_a_page_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    at = 0
    while True:
        at += 1
        directory = tmp_path / str(at)
        directory.mkdir()
        files = KillingFiles(at, torn=True)
        try:
            make_control_file(str(directory), OPTIONS, files)
        except Killed:
            files.bury()
        else:
            break
        if is_log(str(directory)):
            ControlPage(str(directory)).close()
        make_control_file(str(directory), OPTIONS)
        ControlPage(str(directory)).close()
    assert at > 4


@pytest.mark.parametrize(("number", "error"), [(28, LogFull), (13, PermissionDenied)])
@pytest.mark.parametrize("kind", ["create", "allocate", "write", "sync", "rename"])
def test_errors_are_ours(
    tmp_path: Path, kind: str, number: int, error: type[EventLogError]
) -> None:
    with pytest.raises(error):
        make_control_file(str(tmp_path), OPTIONS, FailingFiles(number, [kind], 1))
    assert not is_log(str(tmp_path))
