"""The file of a table's snapshot. No table depends on it: without one it reads its whole log."""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from pathlib import Path
from uuid import UUID

from eventlog.api.table_rows import Snapshot, snapshot_in
from eventlog.errors import InvalidArgumentType

logger = logging.getLogger("eventlog")


def check_place(place: object) -> str | None:
    """The path of a snapshot that a user gave.

    Raises:
        InvalidArgumentType: it is none.
    """
    if place is None:
        return None
    try:
        return os.path.abspath(os.fsdecode(os.fspath(place)))  # type: ignore[call-overload]
    except TypeError:
        raise InvalidArgumentType(f"snapshot={place!r:.80}; give the path of a file") from None


def load(place: str | None, log_id: UUID) -> Snapshot | None:
    """The snapshot of that log; `None` if there is none that can be used, which a warning says."""
    if place is None:
        return None
    try:
        snapshot = snapshot_in(Path(place).read_bytes())
        if snapshot.log_id != log_id.bytes:
            raise ValueError("it is of another log")
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        logger.warning("the snapshot %s is not used, and the log is read: %s", place, reason)
        return None
    return snapshot


def save(place: str, snapshot: Snapshot) -> None:
    """Put the snapshot there, whole or not at all; a warning says why it could not be."""
    fresh = f"{place}.{os.getpid()}.new"
    try:
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with open(descriptor, "wb") as file:
            file.write(snapshot.to_bytes())
        os.replace(fresh, place)
    except OSError as error:
        logger.warning("the snapshot %s could not be stored: %s", place, error.strerror)
        with suppress(OSError):
            os.unlink(fresh)
