"""A log that is shared with a group of users: who may do what, and the modes that say so.

====================  ==================================================================
the owner             runs the writer (`eventlog serve`), which alone changes the files
users of the group    enter the directory, map the files, connect to the writer, and have
                      their pages in `members`; none of them starts a writer
everybody else        is kept out by the directory's mode
====================  ==================================================================

The file `shared` says that a log is shared, and its group with whom: modes alone would not, as
people change those of directories for many reasons.
"""

from __future__ import annotations

import grp
import os
from typing import Final

from eventlog.errors import InvalidArgument, PermissionDenied
from eventlog.local.storage.files import FILES, Files, os_errors
from eventlog.local.storage.members import FILE_NAME as MEMBERS

FILE_NAME: Final = "shared"
_DIRECTORY_MODE: Final = 0o2750
"""With the set-group-ID bit: what is made in there is the group's too."""
_FILE_MODE: Final = 0o640
_MEMBERS_MODE: Final = 0o660
SOCKET_MODE: Final = 0o660
GID_DIGITS_MAX: Final = 9
"""Digits of a group's number that surely fits 32 bits."""


class SharedFiles(Files):
    """Files of the writer of a shared log: what it makes, the group may read."""

    def create(self, path: str) -> int:
        """See `Files.create`; the umask of a service is no reason to lock its group out."""
        descriptor = super().create(path)
        os.fchmod(descriptor, shared_mode(os.path.basename(path)))
        return descriptor


def shared_mode(name: str) -> int:
    """The mode of a file of a shared log; of its directory, if the name is empty."""
    if not name:
        return _DIRECTORY_MODE
    return _MEMBERS_MODE if name == MEMBERS else _FILE_MODE


def shared_with(directory: str) -> int | None:
    """The group that the log is shared with; `None` if it is its owner's alone."""
    try:
        return os.stat(os.path.join(directory, FILE_NAME)).st_gid
    except OSError:
        return None


def files_of(directory: str) -> Files:
    """What the log's writer makes files with."""
    return FILES if shared_with(directory) is None else SharedFiles()


def is_in_group(directory: str) -> bool:
    """Whether the log is shared with a group of this process's."""
    gid = shared_with(directory)
    return gid is not None and (gid == os.getegid() or gid in os.getgroups())


def described_group(gid: int) -> str:
    """The group's name and number."""
    try:
        return f"the group {grp.getgrgid(gid).gr_name} (id {gid})"
    except KeyError:
        return f"the group with id {gid}"


def gid_of(name: str) -> int:
    """The number of a group, given as its name or its number.

    Raises:
        InvalidArgument: there is no such group.
    """
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        if name.isascii() and name.isdecimal() and len(name) <= GID_DIGITS_MAX:
            return int(name)
        raise InvalidArgument(
            f"there is no group {name!r} here; `getent group` lists those that there are"
        ) from None


def check_may_share(gid: int, directory: str) -> None:
    """Pass if this process may give files of its own to that group.

    Raises:
        PermissionDenied: its user is not in the group, or was not when the process began.
    """
    if os.geteuid() and gid not in (os.getegid(), *os.getgroups()):
        raise PermissionDenied(
            f"the log {directory} cannot be shared with {described_group(gid)}: this process is not"
            " in it; a user who was put there just now has to log in again",
            path=directory,
        )


def keep_shared(directory: str) -> None:
    """If the log is shared, give its group the files that somebody has made anew."""
    if (gid := shared_with(directory)) is not None:
        share(directory, gid)


def share(directory: str, gid: int) -> None:
    """Share a log, which no writer serves, with a group.

    Raises:
        PermissionDenied: this user does not own the log, or is not in the group.
    """
    with os_errors(directory, "sharing it with a group"):
        # The file that says so is last: what is refused before leaves a log of this user alone.
        for name in ("", *os.listdir(directory), FILE_NAME):
            path = os.path.join(directory, name)
            if name == FILE_NAME:
                os.close(FILES.create(path))
            os.chown(path, -1, gid)
            os.chmod(path, shared_mode(name))
