"""The file of a segment's index: written whole at a start, read whole to find a place.

Losing it is no damage: it is made again from the segment.
"""

from __future__ import annotations

import os
from contextlib import suppress

from eventlog.errors import EventLogError
from eventlog.local.storage.files import Files, read_if_possible, replace_file
from eventlog.local.storage.formats.format import IndexEntry, index_name, pack_index_entry


def write_index(directory: str, base_seq_no: int, entries: list[IndexEntry], files: Files) -> None:
    """The index of a sealed segment, made again, whole or not at all.

    On a full disk it stays missing: that makes a seek longer, never wrong, and the next start tries
    again.
    """
    packed = b"".join(map(pack_index_entry, entries))
    with suppress(EventLogError):
        replace_file(directory, index_name(base_seq_no), packed, files)


def read_index(directory: str, base_seq_no: int, files: Files) -> bytes:
    """All entries, packed; a few hundred KiB at most. Nothing, if the file cannot be read."""
    return read_if_possible(os.path.join(directory, index_name(base_seq_no)), files)
