"""Deleting a log: its files, and its directory."""

from __future__ import annotations

import os
from contextlib import suppress

from eventlog.errors import NotALog
from eventlog.local.storage.control import FILE_NAME
from eventlog.local.storage.files import os_errors


def remove_log(directory: str) -> None:
    """Delete the log; the caller holds the directory's lock, and no writer serves it.

    The control file goes first: without it there is no log, so an interrupted deletion leaves files
    that nobody takes for one.

    Raises:
        NotALog: a folder is in the directory, which no log has; nothing is deleted.
        PermissionDenied, StorageFailed: the operating system refuses.
    """
    place = os.path.realpath(directory)
    with os_errors(directory, "deleting the log"):
        entries = sorted(os.scandir(place), key=lambda entry: entry.name != FILE_NAME)
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                raise NotALog(
                    f"{directory} holds the folder {entry.name!r}, which is no part of a log; move"
                    " it away first: nothing is deleted",
                    path=directory,
                )
        for entry in entries:
            with suppress(FileNotFoundError):
                os.unlink(entry.path)
        os.rmdir(place)
    if os.path.islink(directory):
        with os_errors(directory, "deleting the link to the log"):
            os.unlink(directory)
