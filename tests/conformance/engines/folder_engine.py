"""An engine whose logs other processes reach: directories of this machine, under another scheme.

A worker that a command has started finds it as the command did, by its entry point. It has no
blocking log of its own, so that a worker's is made over the asynchronous one.
"""

from __future__ import annotations

from typing import Any

from eventlog import local
from eventlog.config import AskedOptions
from eventlog.local.log import LocalEventLog

NAME = "folder"
OPTIONS = local.OPTIONS


class FolderLog(LocalEventLog):
    """A local log that other processes open by its address."""

    def opening(self) -> tuple[str, dict[str, Any]]:
        """See `EventLog`."""
        return f"folder://{self.path}", super().opening()[1]


def open_log(address: str, asked: AskedOptions) -> FolderLog:
    """A handle of the log in the directory that `folder://PATH` names."""
    return FolderLog(address.removeprefix("folder://"), asked)
