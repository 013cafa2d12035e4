"""Where a log lies: the file system, its room, owners and modes; and what that means."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from eventlog.config import LogOptions
from eventlog.local.rendezvous import LOCK_NAME, SOCKET_NAME, file_system_of, is_network
from eventlog.local.storage.files import DIRECTORY_MODE, FILE_MODE
from eventlog.local.storage.formats.format import index_bytes
from eventlog.local.storage.sharing import shared_mode, shared_with
from eventlog.tools.doctor.findings import Finding, size

SEGMENTS_TO_COME: Final = 4
"""With room for fewer, the disk is nearly full as far as the log is concerned."""
INODES_MIN: Final = 64
IN_MEMORY: Final = frozenset({"tmpfs", "ramfs"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What the system says of a directory."""

    path: str
    kind: str | None
    """Kind of file system, such as ext4; `None` if it cannot be told."""
    total: int
    free: int
    """Bytes that this user may still use."""
    inodes: int | None
    """That this user may still use; `None` where there is no limit."""
    is_read_only: bool


def place_of(directory: str) -> Place:
    """Ask the system."""
    room = os.statvfs(directory)
    return Place(
        path=os.path.realpath(directory),
        kind=file_system_of(os.path.realpath(directory)),
        total=room.f_blocks * room.f_frsize,
        free=room.f_bavail * room.f_frsize,
        inodes=room.f_favail if room.f_files else None,
        is_read_only=bool(room.f_flag & os.ST_RDONLY),
    )


def file_system_findings(place: Place, options: LogOptions | None) -> Iterator[Finding]:
    """Whether a log can be there, and survives what it should."""
    kind = place.kind or "unknown"
    durability = options.durability if options else None
    if is_network(kind):
        yield Finding(
            level="problem",
            about="place",
            what=f"it lies on a network file system ({kind}), where processes do not see each"
            " other's writes",
            do="move it to a local disk: `eventlog backup` copies it",
        )
    elif kind in IN_MEMORY and durability in ("disk", "sync"):
        yield Finding(
            level="warning",
            about="place",
            what=f"it lies in memory ({kind}): a restart of the machine takes it, whatever"
            f" durability='{durability}' says",
            do="put it on a disk, or back it up: `eventlog backup`",
        )
    elif durability == "memory" and kind not in IN_MEMORY:
        yield Finding(
            level="note",
            about="place",
            what=f"it lies on {kind} with durability='memory': nothing is synced, so a loss of"
            " power may take any part of it",
        )
    else:
        yield Finding(level="ok", about="place", what=f"{place.path} is on {kind}")
    if place.is_read_only:
        yield Finding(
            level="warning",
            about="place",
            what="the file system is mounted read-only: the log can only be read",
            do="mount it for writing, or copy the log: `eventlog backup`",
        )


def room_findings(place: Place, segment_bytes: int) -> Iterator[Finding]:
    """Whether the next segments will find room."""
    needed = segment_bytes + index_bytes(segment_bytes)
    what = f"{size(place.free)} of {size(place.total)} are free; a segment takes {size(needed)}"
    in_memory = place.kind in IN_MEMORY
    more = "free some space"
    if place.path.startswith("/dev/shm"):  # noqa: S108 - looked at, not written to
        more = "make it larger: docker run --shm-size, or mount -o remount,size=... /dev/shm"
    elif in_memory:
        more = "make it larger: mount -o remount,size=..."
    if place.free < needed:
        what += ": once the present one is full, appends fail with LogFull"
        yield Finding(level="problem", about="room", what=what, do=more)
    elif place.free < SEGMENTS_TO_COME * needed:
        yield Finding(level="warning", about="room", what=what, do=more)
    elif in_memory and place.total < 2 * SEGMENTS_TO_COME * needed:
        yield Finding(level="warning", about="room", what=f"a small {place.kind}: {what}", do=more)
    else:
        yield Finding(level="ok", about="room", what=what)
    if place.inodes is not None and place.inodes < INODES_MIN:
        what = f"the file system has room for {place.inodes} more files"
        yield Finding(
            level="problem" if place.inodes < 2 else "warning",
            about="room",
            what=what,
            do="remove files that are not needed",
        )


# --- owners and modes ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Access:
    """The rights to a file or directory."""

    name: str
    """Empty for the log's directory itself."""
    uid: int
    mode: int
    is_shared: bool = False
    """The log is shared with a group of users."""


def accesses_of(directory: str) -> list[Access]:
    """The directory, and what lies in it but for its socket."""
    is_shared = shared_with(directory) is not None
    found = [_access("", directory, is_shared)]
    for name in sorted(os.listdir(directory)):
        if name != SOCKET_NAME:
            with suppress(FileNotFoundError):
                found.append(_access(name, os.path.join(directory, name), is_shared))
    return found


def _access(name: str, path: str, is_shared: bool) -> Access:
    status = os.lstat(path)
    return Access(name, status.st_uid, stat.S_IMODE(status.st_mode), is_shared)


def wanted_mode(access: Access) -> int:
    """What the mode should be."""
    if access.is_shared:
        return shared_mode(access.name)
    return FILE_MODE if access.name else DIRECTORY_MODE


def access_findings(accesses: list[Access], uid: int) -> Iterator[Finding]:
    """Whether the owner can use everything, and nobody else anything."""
    shown = {access: access.name or "the directory" for access in accesses}
    # A group that shares the log uses what its owner has made.
    sharing = [access.uid for access in accesses if access.is_shared and not access.name]
    owner = sharing[0] if sharing else uid
    foreign = [access for access in accesses if access.uid != owner]
    if foreign:
        owners = ", ".join(sorted({str(access.uid) for access in foreign}))
        yield Finding(
            level="warning" if uid == 0 else "problem",
            about="access",
            what=f"{_few([shown[one] for one in foreign])} belong(s) to the user with id {owners},"
            f" and {'its owner is' if sharing else 'you are'} {owner}",
            do=f"use the log as its owner, or give it to one user: chown -R {owner} {{log}}",
        )
    closed = [one for one in accesses if 0o700 & wanted_mode(one) & ~one.mode]
    if closed:
        yield Finding(
            level="problem",
            about="access",
            what=f"{_few([shown[one] for one in closed])} cannot be used by the owner",
            do="chmod -R u+rwX {log}",
            remedy="modes",
        )
    # The writer's lock is the owner's alone.
    of_group = [one for one in accesses if one.name != LOCK_NAME]
    kept_out = [one for one in of_group if 0o070 & wanted_mode(one) & ~one.mode]
    if kept_out:
        yield Finding(
            level="problem",
            about="access",
            what=f"{_few([shown[one] for one in kept_out])} cannot be used by the group that the"
            " log is shared with",
            remedy="modes",
        )
    shared = [one for one in accesses if _lets_others_in(one) and one not in closed]
    if _lets_others_in(accesses[0]):
        yield Finding(
            level="warning",
            about="access",
            what=f"other users may enter the directory ({accesses[0].mode:04o})",
            do=f"chmod {wanted_mode(accesses[0]):o} {{log}}",
            remedy="modes",
        )
    elif shared:
        yield Finding(
            level="note",
            about="access",
            what=f"{_few([shown[one] for one in shared])} may be used by others, who cannot reach"
            " into the directory",
            remedy="modes",
        )
    if not (foreign or closed or kept_out or shared):
        who = "its owner, you, and its group" if accesses[0].is_shared else "only its owner, you,"
        yield Finding(level="ok", about="access", what=f"{who} can use it")


def _lets_others_in(access: Access) -> int:
    return 0o077 & access.mode & ~wanted_mode(access)


def _few(names: list[str]) -> str:
    rest = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + rest
