"""A door to the operating system through which nothing of a log gets lost: what `repair` works by.

Before the first change to a file there is a copy of it beside it, `NAME.damaged`; a file that would
be deleted gets that name instead. What is made anew at every start anyway, or was never finished,
is not kept.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Final

from eventlog.local.storage.files import Files, used_bytes
from eventlog.local.storage.formats.producers import FILE_NAME as PRODUCERS_NAME

ENDING: Final = ".damaged"
_UNFINISHED: Final = ".new"


def is_kept_copy(name: str) -> bool:
    """Whether a repair made the file, to keep what was there before."""
    stem, dot, number = name.rpartition(".")
    return name.endswith(ENDING) or (bool(dot) and number.isdigit() and stem.endswith(ENDING))


class KeepingFiles(Files):
    """`Files`, with a copy of every file from before its first change."""

    def __init__(self) -> None:
        self.copies: dict[str, str] = {}
        """The copy of each path that was changed."""
        self._paths: dict[int, str] = {}
        self._made: set[str] = set()

    def keep(self, path: str) -> None:
        """Copy the file, if it is there and was not copied before."""
        if self._needs_copy(path):
            copy = self._free_name(path)
            self._copy(path, copy)
            self.copies[path] = copy

    def _needs_copy(self, path: str) -> bool:
        if path in self.copies or path in self._made or not os.path.lexists(path):
            return False
        return os.path.basename(path) != PRODUCERS_NAME and not path.endswith(_UNFINISHED)

    def _free_name(self, path: str) -> str:
        name, number = path + ENDING, 1
        while os.path.lexists(name):
            number += 1
            name = f"{path}{ENDING}.{number}"
        return name

    def _copy(self, path: str, copy: str) -> None:
        source = super().open_read(path)
        try:
            target = super().create(copy + _UNFINISHED)
            try:
                size = self.size(source)
                self.copy(source, target, size, size)
                self.sync(target)
            except BaseException:
                super().unlink(copy + _UNFINISHED)
                raise
            finally:
                super().close(target)
        finally:
            super().close(source)
        super().rename(copy + _UNFINISHED, copy)
        self.sync_directory(os.path.dirname(copy))  # before the original is changed

    def drop_unneeded(self) -> None:
        """Remove the copies of files that turned out as they were, zeros at the end aside."""
        for path, copy in list(self.copies.items()):
            if os.path.exists(path) and _content(path) == _content(copy):
                super().unlink(copy)
                del self.copies[path]

    # --- the calls that change something ---

    def open_write(self, path: str) -> int:
        """See `Files`."""
        descriptor = super().open_write(path)
        self._paths[descriptor] = path
        return descriptor

    def create(self, path: str) -> int:
        """See `Files`."""
        self.keep(path)
        descriptor = super().create(path)
        self._made.add(path)
        return descriptor

    def write(self, descriptor: int, parts: Sequence[bytes | memoryview], position: int) -> None:
        """See `Files`."""
        if descriptor in self._paths:
            self.keep(self._paths[descriptor])
        super().write(descriptor, parts, position)

    def rename(self, source: str, target: str) -> None:
        """See `Files`."""
        self.keep(target)
        super().rename(source, target)
        self._made.add(target)

    def unlink(self, path: str) -> None:
        """See `Files`; the file gets another name instead."""
        if self._needs_copy(path):
            copy = self._free_name(path)
            super().rename(path, copy)
            self.copies[path] = copy
        else:
            super().unlink(path)

    def close(self, descriptor: int) -> None:
        """See `Files`."""
        self._paths.pop(descriptor, None)
        super().close(descriptor)


def _content(path: str) -> bytes:
    """What a file says; segments and indexes are of fixed size, with zeros after what they say."""
    with open(path, "rb") as file:
        data = file.read()
    return data[: used_bytes(data)]
