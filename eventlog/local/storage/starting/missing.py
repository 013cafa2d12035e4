"""Which of a log's files are not there although others say that they were; pure."""

from __future__ import annotations

from collections.abc import Collection

from eventlog.local.storage.formats.offset_format import FILE_NAME as OFFSETS_NAME
from eventlog.local.storage.journal import DEAD_NAME, GROUPS_NAME
from eventlog.local.storage.members import FILE_NAME as MEMBERS_NAME


def missing_files(names: Collection[str], epoch: int) -> list[str]:
    """What is missing among the names of a directory, in words; `epoch` is the control page's.

    The first writer makes the offset table before it raises the epoch, and the first group makes
    its journal, then that of dead letters, then the members' pages: those tell of the other two.
    """
    found = []
    if epoch and OFFSETS_NAME not in names:
        found.append("the file 'offsets' is missing, so every consumer begins anew")
    if GROUPS_NAME not in names and MEMBERS_NAME in names:
        found.append("the file 'groups' is missing, so every group begins anew")
    if DEAD_NAME not in names and MEMBERS_NAME in names:
        found.append("the file 'dead' is missing, so the dead letters are lost")
    return [f"{text}; put it back from a backup, with no writer running" for text in found]


def lost_state(name: str, position: int) -> str:
    """That a consumer's state is gone, and its position with it, in words."""
    return (
        f"the state of the consumer {name!r} is lost: it goes on after event {position}, where it"
        " was before it had one; put the file 'states' back from a backup, with no writer running"
    )


def ahead(name: str, position: int, last_seq_no: int) -> str:
    """That a consumer waits for an event beyond the end of the log, in words."""
    return (
        f"the consumer {name!r} waits for event {position + 1}, and the last one is {last_seq_no}:"
        " it gets none of those in between. That is so after a seek past the end, and after events"
        " were restored from a copy that is older than the positions"
    )


def ahead_remedy(log: str, name: str, last_seq_no: int) -> str:
    """What to do if that was not wanted."""
    return f"if events were restored: eventlog seek {log} {name!r} {last_seq_no + 1}"
