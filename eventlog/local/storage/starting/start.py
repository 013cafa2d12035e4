"""Opening a log for its writer: make it if need be, recover it, and say what was found."""

from __future__ import annotations

import os
import time

from eventlog.api.times import LogClock
from eventlog.config import AskedOptions, LogOptions
from eventlog.errors import CorruptLog, NotALog, PermissionDenied, StorageFailed
from eventlog.local.storage.control import (
    EPOCH_MAX,
    FILE_NAME,
    PAGE_BYTES,
    ControlPage,
    is_log,
    new_control_page,
)
from eventlog.local.storage.files import FILES, Files, os_errors
from eventlog.local.storage.identity import boot_id, process_start
from eventlog.local.storage.log.writable import WritableLog
from eventlog.local.storage.offsets import open_or_make
from eventlog.local.storage.owner import advice, described_user
from eventlog.local.storage.starting.missing import missing_files
from eventlog.local.storage.starting.restart import Restart
from eventlog.local.storage.starting.salvage import salvage

OWN_FILES = ("writer.lock", "writer.sock", "writer.log", FILE_NAME + ".new")
"""What may lie in the directory of a log that is not made yet."""


def make_control_file(
    directory: str, options: LogOptions, files: Files = FILES, *, first_seq_no: int = 1
) -> None:
    """Make the directory a log: its control file appears whole or not at all."""
    path = os.path.join(directory, FILE_NAME)
    temporary = path + ".new"
    with os_errors(directory, "making the control file"):
        descriptor = files.create(temporary)
        try:
            files.allocate(descriptor, PAGE_BYTES)
            page = new_control_page(
                options,
                os.urandom(16),
                time.time_ns(),
                high_water=first_seq_no - 1,
                first_available=first_seq_no,
            )
            files.write(descriptor, [page], 0)
            files.sync(descriptor)
        finally:
            files.close(descriptor)
        files.rename(temporary, path)
        files.sync_directory(directory)


def make_log(
    directory: str, asked: AskedOptions, files: Files = FILES, *, first_seq_no: int = 1
) -> None:
    """Make the directory a log if it is none; the caller holds the directory's lock.

    Its first event gets the number `first_seq_no`.

    Raises:
        NotALog: the path is a file, or other things are in the directory.
        PermissionDenied: the operating system refuses.
        InvalidConfig: the options contradict each other.
    """
    if is_log(directory):
        return
    with os_errors(directory, "looking into the directory"):
        others = sorted(set(files.names(directory)) - set(OWN_FILES))
    if others:
        raise NotALog(
            f"{directory} is no log and not empty (it holds {others[0]!r}); a log is a directory"
            " of its own: give another path",
            path=directory,
        )
    make_control_file(directory, LogOptions.of(asked), files, first_seq_no=first_seq_no)


def make_directory(directory: str, files: Files = FILES) -> None:
    """Make the directory, and those above it; only its owner may enter it.

    Raises:
        NotALog: the path, or one above it, is a file.
        PermissionDenied: the operating system refuses, or the directory is another user's.
    """
    with os_errors(directory, "making the directory"):
        try:
            files.make_directory(directory)
        except (FileExistsError, NotADirectoryError) as error:
            raise NotALog(
                f"{directory} cannot be a log: {error.filename} is a file; give another path",
                path=directory,
            ) from None
        owner = os.stat(directory).st_uid
    if owner != os.geteuid():
        raise PermissionDenied(
            f"{directory} belongs to {described_user(owner)}; {advice(owner)}, or give another"
            " path",
            path=directory,
        )


def open_log(directory: str, files: Files = FILES, clock: LogClock | None = None) -> WritableLog:
    """The log, recovered; the caller holds its lock.

    Raises:
        CorruptLog: a file that everything hangs on is damaged.
        UnknownFormat: the log is of another version.
        StorageFailed, LogFull, PermissionDenied: from the operating system.
    """
    control = ControlPage(directory, writable=True, files=files)
    try:
        if control.epoch >= EPOCH_MAX:
            raise CorruptLog(
                f"the control file of {directory} is damaged: it tells of {control.epoch} writers;"
                " `eventlog verify --repair` mends it",
                path=directory,
            )
        boot = boot_id()
        salvage(control, boot, files)
        with os_errors(directory, "looking into the directory"):
            warnings = missing_files(files.names(directory), control.epoch)
        offsets = open_or_make(directory, files, lambda: control.synced)
        recovery = Restart(control, files, boot, process_start(os.getpid()), warnings)
        try:
            return recovery.run(offsets, clock or LogClock.of_system())
        except BaseException as error:
            if isinstance(error, StorageFailed):  # a sync, perhaps
                control.note_failed_sync(boot)
            recovery.close()
            offsets.close()
            raise
    except BaseException:
        control.close()
        raise
