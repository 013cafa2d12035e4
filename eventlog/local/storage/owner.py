"""The owner of a log. Only the owner may change it: files of root would lock the owner out."""

from __future__ import annotations

import os
import pwd

from eventlog.errors import PermissionDenied


def described_user(uid: int) -> str:
    """The user's name and number."""
    try:
        return f"the user {pwd.getpwuid(uid).pw_name} (id {uid})"
    except KeyError:
        return f"the user with id {uid}"


def owner_of(directory: str) -> int:
    """The user that the log's control file belongs to; of no log, the owner of the directory.

    Raises:
        OSError: there is no directory, or it may not be looked at.
    """
    try:
        return os.stat(os.path.join(directory, "control")).st_uid
    except OSError:
        return os.stat(directory).st_uid


def is_owner(directory: str) -> bool:
    """Whether the log is this process's user's."""
    try:
        return owner_of(directory) == os.geteuid()
    except OSError:
        return False


def check_owner(directory: str) -> None:
    """Pass if the log belongs to the user that this process runs as, or if nothing is there.

    Raises:
        PermissionDenied: it belongs to somebody else; root, too, would leave files in it that the
            owner cannot use.
    """
    try:
        uid = owner_of(directory)
    except OSError:
        return  # whatever is to be done there says it better
    if uid != os.geteuid():
        raise PermissionDenied(
            f"the log {directory} belongs to {described_user(uid)}, and this process runs as"
            f" {described_user(os.geteuid())}; {advice(uid)}",
            path=directory,
        )


def check_may_enter(directory: str) -> None:
    """Pass if this process sees what is in the directory, or if there is none.

    Raises:
        PermissionDenied: it does not, so that it cannot know whether there is a log.
    """
    if os.path.isdir(directory) and not os.access(directory, os.X_OK, effective_ids=True):
        uid = os.stat(directory).st_uid
        raise PermissionDenied(
            f"{directory} belongs to {described_user(uid)}, and this process, which runs as"
            f" {described_user(os.geteuid())}, may not look into it; {advice(uid)}, or as a user of"
            " the group that shares the log",
            path=directory,
        )


def advice(uid: int) -> str:
    """How to do it as that user."""
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"run it as its owner: `sudo -u '#{uid}' ...`"
    return f"run it as its owner: `sudo -u {name} ...` or `runuser -u {name} -- ...`"
