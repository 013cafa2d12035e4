"""The control page: what everybody must know of a log, in one mapped page.

    control page (4096 bytes)
        0    8  magic            b"EVLOGCTL"
        8    2  version          of the format
       10    2  byte_order       0x0102
       12    4  options_bytes    of the options, MessagePack, at offset 512
       16   16  log_id           random; tells a log from another one at the same path
       32    8  created_ns       nanoseconds since 1970
       40    4  options_crc      CRC-32C of the options
       44    4  crc              CRC-32C of all before
       48   16  reserved         zero
       64    8  high_water       number of the last published event; readers never go past it
       72    8  synced           number of the last event that is known to be on the disk
       80    8  first_available  number of the oldest event still stored
       88    8  epoch            raised at each start of a writer
       96    8  writer_pid       of the current writer; 0 after an orderly end
      104    8  writer_start     its start time in clock ticks since boot, so no reused pid fools
      112   36  boot_id          of the kernel that ran the writer, so no reboot does either
      148    4  padding          zero
      152    8  sync_failed      the boot in which a sync failed (`boot_word`); 0: none did
      160    8  times_from       number of the event at which stored times last went back; 0: none
      168    8  clock_offset     wall clock less the one since boot, ns; 0: not known
      176    8  due_from         number of the first event that may have due times; 0: none has
      184    8  due_to           number of the last event that may have due times

What stands before offset 64 is written when the log is made; only its options change later (see
`changed_options`). Each of the others is one
aligned 8-byte word with one owner, the writer, stored and loaded whole by every processor that
Python runs on. (`struct` with a byte order copies byte by byte: words are only ever touched through
a `memoryview` of type "Q".)
"""

from __future__ import annotations

import os
import struct
from collections.abc import Collection
from typing import Any, Final

import msgpack

from eventlog.checksum import crc32c
from eventlog.config import LogOptions
from eventlog.errors import CorruptLog, LogNotFound, NotALog, UnknownFormat
from eventlog.local.storage.files import FILES, Files, os_errors, sync_errors
from eventlog.local.storage.formats.changed_options import (
    CHANGES_OFFSET,
    Change,
    pack_change,
    unpack_change,
)
from eventlog.local.storage.formats.format import BYTE_ORDER, VERSION
from eventlog.local.storage.formats.layout import Field, Layout
from eventlog.local.storage.identity import boot_id, boot_word, is_same_process
from eventlog.local.storage.owner import check_may_enter

PAGE_BYTES: Final = 4096
OPTIONS_OFFSET: Final = 512
MAGIC: Final = b"EVLOGCTL"
FILE_NAME: Final = "control"
BOOT_ID_BYTES: Final = 36
EPOCH_MAX: Final = 2**31
"""No log has had so many writers; the number of a lease has 32 bits for it."""

CONTROL: Final = Layout(
    "control page",
    Field("magic", "8s", 'b"EVLOGCTL"'),
    Field("version", "H", "of the format"),
    Field("byte_order", "H", "0x0102"),
    Field("options_bytes", "I", "of the options, MessagePack, at offset 512"),
    Field("log_id", "16s", "random; tells a log from another one at the same path"),
    Field("created_ns", "Q", "nanoseconds since 1970"),
    Field("options_crc", "I", "CRC-32C of the options"),
    Field("crc", "I", "CRC-32C of all before"),
    Field("reserved", "16s", "zero"),
    Field("high_water", "Q", "number of the last published event; readers never go past it"),
    Field("synced", "Q", "number of the last event that is known to be on the disk"),
    Field("first_available", "Q", "number of the oldest event still stored"),
    Field("epoch", "Q", "raised at each start of a writer"),
    Field("writer_pid", "Q", "of the current writer; 0 after an orderly end"),
    Field("writer_start", "Q", "its start time in clock ticks since boot, so no reused pid fools"),
    Field("boot_id", "36s", "of the kernel that ran the writer, so no reboot does either"),
    Field("padding", "I", "zero"),
    Field("sync_failed", "Q", "the boot in which a sync failed (`boot_word`); 0: none did"),
    Field("times_from", "Q", "number of the event at which stored times last went back; 0: none"),
    Field(
        "clock_offset",
        "Q",
        "wall clock less the one since boot, ns; 0: not known",
    ),
    Field("due_from", "Q", "number of the first event that may have due times; 0: none has"),
    Field("due_to", "Q", "number of the last event that may have due times"),
)
_IDENTITY_BYTES: Final = CONTROL.offset("crc")
_CRC: Final = struct.Struct("<I")
_IDENTITY_END: Final = _IDENTITY_BYTES + _CRC.size


def _head_with(head: bytes, options: LogOptions) -> bytes:
    """The beginning of a page whose options are these."""
    packed = msgpack.packb(options.to_dict())
    fresh = bytearray(head)
    _CRC.pack_into(fresh, CONTROL.offset("options_bytes"), len(packed))
    _CRC.pack_into(fresh, CONTROL.offset("options_crc"), crc32c(packed))
    _CRC.pack_into(fresh, _IDENTITY_BYTES, crc32c(fresh[:_IDENTITY_BYTES]))
    return bytes(fresh)


def new_control_page(
    options: LogOptions,
    log_id: bytes,
    created_ns: int,
    *,
    high_water: int = 0,
    first_available: int = 1,
    epoch: int = 0,
    due: tuple[int, int] = (0, 0),
) -> bytes:
    """The page of a log whose events are all on the disk; of a new and empty one by default."""
    packed = msgpack.packb(options.to_dict())
    assert OPTIONS_OFFSET + len(packed) <= PAGE_BYTES
    page = bytearray(PAGE_BYTES)
    CONTROL.pack_into(
        page, 0, MAGIC, VERSION, BYTE_ORDER, len(packed), log_id, created_ns, crc32c(packed), 0,
        bytes(16), high_water, high_water, first_available, epoch, 0, 0, b"", 0, 0, 0, 0,
        *due,
    )  # fmt: skip
    _CRC.pack_into(page, _IDENTITY_BYTES, crc32c(page[:_IDENTITY_BYTES]))
    page[OPTIONS_OFFSET : OPTIONS_OFFSET + len(packed)] = packed
    return bytes(page)


class _Word:
    """One of the page's words, named as its attribute: loaded and stored as a whole."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._index = CONTROL.word(name)

    def __get__(self, page: ControlPage, owner: type | None = None) -> int:
        return page._words[self._index]

    def __set__(self, page: ControlPage, value: int) -> None:
        page._words[self._index] = value


class ControlPage:
    """The mapped page; only the writer opens it as writable."""

    def __init__(self, directory: str, *, writable: bool = False, files: Files = FILES) -> None:
        self.directory = directory
        self._files = files
        self._path = path = os.path.join(directory, FILE_NAME)
        with os_errors(directory, "opening its control file"):
            self._descriptor = files.open_write(path) if writable else files.open_read(path)
        try:
            self._check_size()
            with os_errors(directory, "mapping its control file"):
                self._identity = files.identity(self._descriptor)
                self._map = files.map(self._descriptor, PAGE_BYTES, writable=writable)
        except BaseException:
            files.close(self._descriptor)
            raise
        self._view = memoryview(self._map)
        self._words = files.words(self._descriptor, self._view)
        try:
            self._change = unpack_change(self._view)
            self._fields = self._checked_fields()
            self.options = self._read_options()
            if writable:
                self._finish_change()
        except BaseException:
            self.close()
            raise

    def _check_size(self) -> None:
        if self._files.size(self._descriptor) < PAGE_BYTES:
            raise NotALog(
                f"{self.directory} is no log: its control file is shorter than a page",
                path=self.directory,
            )

    def _checked_fields(self) -> dict[str, Any]:
        fields = CONTROL.to_dict(self._view)
        if fields["magic"] != MAGIC:
            raise NotALog(
                f"{self.directory} is no log: its file 'control' is something else",
                path=self.directory,
            )
        if not self._is_identified(fields):
            raise CorruptLog(
                f"the control file of {self.directory} is damaged; `eventlog verify --repair`"
                " makes it again from the segments",
                path=self.directory,
            )
        if fields["version"] != VERSION or fields["byte_order"] != BYTE_ORDER:
            raise UnknownFormat(
                f"the log {self.directory} has format version {fields['version']} (byte order"
                f" {fields['byte_order']:#06x}); this program reads version {VERSION}"
                f" ({BYTE_ORDER:#06x}): use the release that wrote it",
                path=self.directory,
            )
        return fields

    def _is_identified(self, fields: dict[str, Any]) -> bool:
        """Whether the page's first part is whole, or a writer was killed while it changed options.

        While another process changes them, a look may meet neither state: a second one does.
        """
        if fields["crc"] == crc32c(self._view[:_IDENTITY_BYTES]):
            return True
        self._change = unpack_change(self._view)
        if self._change is None:
            return False
        head = _head_with(bytes(self._view[:_IDENTITY_END]), self._change.options)
        return crc32c(head[:_IDENTITY_BYTES]) == self._change.identity_crc

    def _read_options(self) -> LogOptions:
        if self._change is not None:
            return self._change.options
        size = self._fields["options_bytes"]
        packed = bytes(self._view[OPTIONS_OFFSET : OPTIONS_OFFSET + size])
        try:
            if len(packed) != size or crc32c(packed) != self._fields["options_crc"]:
                raise CorruptLog("its checksum is wrong")
            return LogOptions.from_dict(msgpack.unpackb(packed))
        except (CorruptLog, TypeError, ValueError, msgpack.UnpackException) as error:
            raise CorruptLog(
                f"the options in the control file of {self.directory} are damaged ({error});"
                " `eventlog verify --repair` makes it again from the segments",
                path=self.directory,
            ) from error

    # --- changed options ---------------------------------------------------------------------

    @property
    def changed_options(self) -> frozenset[str]:
        """The names of options that were changed since the log was made."""
        return frozenset() if self._change is None else self._change.names

    def look_at_options(self) -> LogOptions:
        """The options as they are now; the writer may have changed them since the last look.

        Raises:
            CorruptLog: somebody has truncated the file.
        """
        self.check_whole()
        change = unpack_change(self._view)
        if change is not None:  # else it is being changed just now
            self._change, self.options = change, change.options
        return self.options

    def change_options(self, options: LogOptions, names: Collection[str]) -> None:
        """Store changed options, for everybody; only the writer does.

        Raises:
            StorageFailed: they are not on the disk.
        """
        head = _head_with(bytes(self._view[:_IDENTITY_END]), options)
        (identity_crc,) = _CRC.unpack_from(head, _IDENTITY_BYTES)
        change = Change(options, self.changed_options.union(names), identity_crc)
        packed = pack_change(change)
        assert CHANGES_OFFSET + len(packed) <= PAGE_BYTES
        self._files.store(self._descriptor, self._view, CHANGES_OFFSET, packed)
        self._sync_change()  # before the first place is touched
        self._change, self.options = change, options
        self._finish_change()

    def _finish_change(self) -> None:
        """Store the changed options in the first place too, where earlier releases read them."""
        if self._change is None:
            return
        head = bytes(self._view[:_IDENTITY_END])
        packed = msgpack.packb(self._change.options.to_dict())
        wanted = _head_with(head, self._change.options)
        if head + packed == wanted + self._view[OPTIONS_OFFSET : OPTIONS_OFFSET + len(packed)]:
            return
        self._files.store(self._descriptor, self._view, OPTIONS_OFFSET, packed)
        self._files.store(self._descriptor, self._view, 0, wanted)
        self._sync_change()

    def _sync_change(self) -> None:
        if self.options.durability != "memory":
            self.sync()

    @property
    def log_id(self) -> bytes:
        """16 bytes that tell this log from any other."""
        log_id: bytes = self._fields["log_id"]
        return log_id

    @property
    def created_ns(self) -> int:
        """When the log was made, nanoseconds since 1970."""
        created: int = self._fields["created_ns"]
        return created

    high_water = _Word()
    synced = _Word()
    first_available = _Word()
    epoch = _Word()
    writer_pid = _Word()
    writer_start = _Word()
    sync_failed = _Word()
    times_from = _Word()
    clock_offset = _Word()
    due_from = _Word()
    due_to = _Word()

    @property
    def boot_id(self) -> str:
        """The kernel's boot id when the last writer started."""
        start = CONTROL.offset("boot_id")
        return (
            bytes(self._view[start : start + BOOT_ID_BYTES])
            .rstrip(b"\0")
            .decode("ascii", "replace")
        )

    @boot_id.setter
    def boot_id(self, value: str) -> None:
        start = CONTROL.offset("boot_id")
        padded = value.encode()[:BOOT_ID_BYTES].ljust(BOOT_ID_BYTES, b"\0")
        self._files.store(self._descriptor, self._view, start, padded)

    def note_due(self, first: int, last: int) -> None:
        """Say that some of these events may have due times."""
        self.due_to = max(self.due_to, last)
        self.due_from = min(self.due_from or first, first)

    def note_failed_sync(self, boot: str) -> None:
        """Have the next start in this boot copy what it cannot believe the disk to have."""
        if not self.is_cut_off():
            self.sync_failed = boot_word(boot)

    @property
    def running_writer(self) -> int | None:
        """The pid of the writer; `None` if the one that is named here no longer runs.

        Of a writer in another PID namespace it is the number there.
        """
        pid = self.writer_pid
        if pid == 0 or self.boot_id != boot_id():
            return None
        is_running = is_same_process(pid, self.writer_start) or self._is_held()
        return pid if is_running else None

    def hold(self) -> None:
        """Give a sign of life as the writer, until the file is closed."""
        self._files.hold(self._descriptor, 0, PAGE_BYTES)

    def _is_held(self) -> bool:
        return self._files.is_held(self._descriptor, 0, PAGE_BYTES)

    def is_cut_off(self) -> bool:
        """Whether somebody has truncated the file, so that a look at the page would be a SIGBUS."""
        return self._files.is_cut_off(self._descriptor, PAGE_BYTES)

    def check_whole(self) -> None:
        """Pass if the page is still there.

        Raises:
            CorruptLog: somebody has truncated it.
        """
        if self.is_cut_off():
            raise CorruptLog(
                f"the control file of {self.directory} was truncated while it was in use;"
                " `eventlog verify --repair` makes it again from the segments",
                path=self.directory,
            )

    def is_replaced(self) -> bool:
        """Whether the log at the path is no longer this one: deleted, made anew, or truncated."""
        return not self._files.is_there(self._path, self._identity, PAGE_BYTES)

    def sync(self) -> None:
        """Return when the page is on the disk."""
        with sync_errors(self.directory, "syncing its control file"):
            self._files.sync(self._descriptor)

    def close(self) -> None:
        """Unmap and close; may be called twice."""
        if self._descriptor < 0:
            return
        self._words.release()
        self._view.release()
        self._map.close()
        self._files.close(self._descriptor)
        self._descriptor = -1


def is_log(directory: str) -> bool:
    """Whether the directory has a control file."""
    return os.path.isfile(os.path.join(directory, FILE_NAME))


def check_is_log(directory: str) -> None:
    """Pass if there is a log at the path.

    Raises:
        LogNotFound: there is nothing at the path.
        PermissionDenied: this process cannot see what is there.
        NotALog: there is something else.
    """
    if is_log(directory):
        return
    if not os.path.lexists(directory):
        raise LogNotFound(f"there is no log at {directory}", path=directory)
    check_may_enter(directory)
    what = "a directory without a log" if os.path.isdir(directory) else "no directory"
    raise NotALog(f"{directory} is {what}; a log is a directory of its own", path=directory)
