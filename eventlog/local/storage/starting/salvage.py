"""After a failed sync: what only the kernel has is put on the disk, in new files.

When the kernel cannot write a page, one sync says so, and the page counts as clean from then on: it
can be read, and is written no more. The next sync finds nothing to do, and succeeds. So the writer
whose sync failed says that in the control page, and ends; the next one, before it believes any
file, copies those that have something newer than the synced mark:

    segments with events past the mark, and the last one; the journals; the offset table

Writing over the same places would not do: blocks that were allocated and not written when the sync
failed may stay so, whatever is written there later (ext4). Each copy takes its file's place whole
and synced, and the note goes when all are there; a start that is killed on the way, or fails, does
nothing that cannot be done again. Who has an old file mapped finds all there that it had, and the
copy when it looks for more.

After a reboot the note means nothing: what can be read is what the disk has. What is left is a
writer that is killed between the kernel's error and its note of it; nobody can tell that from any
other kill.
"""

from __future__ import annotations

import os
from itertools import pairwise
from typing import Final

from eventlog.local.storage.control import ControlPage
from eventlog.local.storage.files import Files, os_errors, sync_errors
from eventlog.local.storage.formats.format import base_of_name, segment_name
from eventlog.local.storage.formats.offset_format import FILE_NAME as OFFSETS_NAME
from eventlog.local.storage.identity import boot_word
from eventlog.local.storage.journal import DEAD_NAME, GROUPS_NAME, STATES_NAME

_STEP_BYTES: Final = 1 << 20


def salvage(control: ControlPage, boot: str, files: Files) -> None:
    """Have all that can be read on the disk, if a sync failed since the machine was started.

    Raises:
        StorageFailed: the disk refuses, or has no room for the copies; nothing is lost by that.
    """
    if not control.sync_failed:
        return
    if control.sync_failed == boot_word(boot) and control.options.durability != "memory":
        directory = control.directory
        with os_errors(directory, "looking into the directory"):
            names = files.names(directory)
        for name in doubtful(names, control.synced):
            with sync_errors(directory, f"copying {name} after a failed sync"):
                _copy(os.path.join(directory, name), files)
        with sync_errors(directory, "syncing its directory"):
            files.sync_directory(directory)
    control.sync_failed = 0


def doubtful(names: list[str], synced: int) -> list[str]:
    """Which of a log's files the disk may not have as they are. Pure.

    Journals come first, as in each sync.
    """
    bases = sorted(base for base in map(base_of_name, names) if base is not None)
    wanted = [base for base, following in pairwise(bases) if following > synced + 1]
    segments = map(segment_name, [*wanted, *bases[-1:]])
    there = set(names)
    wanted_names = (GROUPS_NAME, DEAD_NAME, STATES_NAME, *segments, OFFSETS_NAME)
    return [name for name in wanted_names if name in there]


def _copy(path: str, files: Files) -> None:
    """Put a copy into the place of a file, with all its room."""
    source = files.open_read(path)
    try:
        target = files.create(path + ".new")
        try:
            size = files.size(source)
            files.allocate(target, size)
            # Read and written, not by `Files.copy`: that may share the blocks, which are what the
            # disk has.
            for start in range(0, size, _STEP_BYTES):
                data = files.read(source, min(_STEP_BYTES, size - start), start)
                if data.strip(b"\0"):
                    files.write(target, [data], start)
            files.sync(target)
        finally:
            files.close(target)
        files.rename(path + ".new", path)
    finally:
        files.close(source)


def sync_segments(directory: str, bases: list[int], files: Files) -> None:
    """Return when these segments, and the names in the directory, are on the disk."""
    with sync_errors(directory, "syncing what was left unsynced"):
        for base in bases:
            descriptor = files.open_read(os.path.join(directory, segment_name(base)))
            try:
                files.sync(descriptor)
            finally:
                files.close(descriptor)
        files.sync_directory(directory)
