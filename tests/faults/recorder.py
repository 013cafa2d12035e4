"""The storage's door to the system, which writes down what passes; and directories from images."""

from __future__ import annotations

import errno
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from eventlog.local.storage.files import Words
from eventlog.testing import WatchedFiles
from tests.faults.disk import Call, Disk, Image

MEMORY: Final = "/dev/shm" if os.access("/dev/shm", os.W_OK) else tempfile.gettempdir()


class RecordingFiles(WatchedFiles):
    """Does all that is asked, on real files, and keeps the list of what changed anything."""

    def __init__(self, disk: Disk | None = None) -> None:
        super().__init__()
        self.disk = disk or Disk()
        """As it is now."""
        self.start = self.disk.copy()
        """As it was before the first call."""
        self.calls: list[Call] = []
        self._file_of: dict[int, int] = {}

    def note(self, call: Call) -> None:
        """Write a call down."""
        self.disk.apply(call)
        self.calls.append(call)

    def open_read(self, path: str) -> int:
        return self._known(super().open_read(path), path)

    def open_write(self, path: str) -> int:
        return self._known(super().open_write(path), path)

    def create(self, path: str) -> int:
        descriptor = super().create(path)
        self.note(Call("create", self.disk.next_file, name=os.path.basename(path)))
        return self._known(descriptor, path)

    def _known(self, descriptor: int, path: str) -> int:
        self._file_of[descriptor] = self.disk.names[os.path.basename(path)]
        return descriptor

    def allocate(self, descriptor: int, size: int) -> None:
        super().allocate(descriptor, size)
        self.note(Call("allocate", self._file_of[descriptor], size))

    def write(self, descriptor: int, parts: Sequence[bytes | memoryview], position: int) -> None:
        super().write(descriptor, parts, position)
        self.note(Call("write", self._file_of[descriptor], position, b"".join(parts)))

    def words(self, descriptor: int, view: memoryview) -> Words:
        return RecordedWords(self, self._file_of[descriptor], view)

    def store(self, descriptor: int, view: memoryview, position: int, data: bytes) -> None:
        super().store(descriptor, view, position, data)
        self.note(Call("store", self._file_of[descriptor], position, data))

    def sync(self, descriptor: int) -> None:
        super().sync(descriptor)
        self.note(Call("sync", self._file_of[descriptor]))

    def sync_directory(self, path: str) -> None:
        super().sync_directory(path)
        self.note(Call("sync_names"))

    def rename(self, source: str, target: str) -> None:
        super().rename(source, target)
        names = os.path.basename(source), os.path.basename(target)
        self.note(Call("rename", name=names[0], target=names[1]))

    def unlink(self, path: str) -> None:
        super().unlink(path)
        if os.path.basename(path) in self.disk.names:
            self.note(Call("unlink", name=os.path.basename(path)))


class ForgetfulFiles(RecordingFiles):
    """Fails the sync number `at`, counted from 1; its pages count as clean from then on."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.syncs = 0
        self.at = at

    @property
    def has_failed(self) -> bool:
        return self.syncs >= self.at

    def sync(self, descriptor: int) -> None:
        self.syncs += 1
        if self.syncs == self.at:
            self.note(Call("fail_sync", self._file_of[descriptor]))
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        super().sync(descriptor)


class RecordedWords:
    """The words of a mapped file; each store is written down."""

    def __init__(self, files: RecordingFiles, file: int, view: memoryview) -> None:
        self._files = files
        self._file = file
        self._words = view.cast("Q")

    def __getitem__(self, index: int) -> int:
        return self._words[index]

    def __setitem__(self, index: int, value: int) -> None:
        self._words[index] = value
        data = value.to_bytes(8, sys.byteorder)
        self._files.note(Call("store", self._file, 8 * index, data))

    def release(self) -> None:
        """Give the memory back."""
        self._words.release()


@contextmanager
def arena() -> Iterator[str]:
    """A directory in memory for one log at a time, removed afterwards."""
    place = tempfile.mkdtemp(prefix="eventlog-faults-", dir=MEMORY)
    try:
        yield os.path.join(place, "log")
    finally:
        shutil.rmtree(place)


def materialise(image: Image, directory: str) -> None:
    """Make the directory what the image says, and nothing else."""
    os.makedirs(directory, exist_ok=True)
    for name in os.listdir(directory):
        if name not in image:
            os.unlink(os.path.join(directory, name))
    for name, content in image.items():
        descriptor = os.open(
            os.path.join(directory, name), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600
        )
        try:
            os.write(descriptor, content)
        finally:
            os.close(descriptor)


def image_of(directory: str) -> Image:
    """What a directory holds."""
    return {path.name: path.read_bytes() for path in Path(directory).iterdir() if path.is_file()}
