"""The narrow door to the files of a log: whatever the storage does to one goes through it.

That is every call, and every store into a mapped page of the writer's (`words`, `store`): together
they are all that a crash can come between. Tests put another object in its place, to stop the world
before and after each, or to fail it (`eventlog.testing`, `tests/faults`). Only this module and
`rendezvous` (locks) use `os` to change a log's files.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import resource
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Protocol

from eventlog.errors import EventLogError, LogFull, LogNotFound, PermissionDenied, StorageFailed
from eventlog.system import above_standard, hold_standard_descriptors

FILE_MODE = 0o600
DIRECTORY_MODE = 0o700
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
_STEP_BYTES = 1 << 20
_ZEROS = bytes(_STEP_BYTES)
_PAGE_BYTES = 4096


def used_bytes(data: bytes) -> int:
    """Bytes of the data without the zeros at its end; whole pages of zeros are compared at once.

    `rstrip` looks at one byte after the other: 0.8 s for a new segment.
    """
    for start in reversed(range(0, len(data), _PAGE_BYTES)):
        page = data[start : start + _PAGE_BYTES]
        if not _ZEROS.startswith(page):
            return start + len(page.rstrip(b"\0"))
    return 0


_RANGE_LOCK = struct.Struct("@hhqqi4x")
"""`struct flock`: kind, whence, start, length, process."""


def _range_lock(kind: int, position: int, size: int) -> bytes:
    return _RANGE_LOCK.pack(kind, os.SEEK_SET, position, size, 0)


class Words(Protocol):
    """The words of a mapped page: 8 bytes each, loaded and stored as a whole."""

    def __getitem__(self, index: int, /) -> int: ...

    def __setitem__(self, index: int, value: int, /) -> None: ...

    def release(self) -> None:
        """Give the memory back, so that it can be unmapped."""


class Files:
    """The calls, one line each; paths are strings, descriptors are integers."""

    def open_read(self, path: str) -> int:
        """A descriptor for reading."""
        return above_standard(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW))

    def open_write(self, path: str) -> int:
        """A descriptor for reading and writing of a file that exists."""
        return above_standard(os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW))

    def create(self, path: str) -> int:
        """A descriptor of a new file; whatever an earlier attempt left there is emptied."""
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        return above_standard(os.open(path, flags, FILE_MODE))

    def allocate(self, descriptor: int, size: int) -> None:
        """Give the file its room now, so that a full disk is an error here and no SIGBUS later."""
        os.posix_fallocate(descriptor, 0, size)

    def write(self, descriptor: int, parts: Sequence[bytes | memoryview], position: int) -> None:
        """Write all the parts, one after the other, from `position` on."""
        written = os.pwritev(descriptor, parts, position)
        if written != sum(map(len, parts)):
            self._write_rest(descriptor, b"".join(parts)[written:], position + written)

    def _write_rest(self, descriptor: int, rest: bytes, position: int) -> None:
        """A short write is rare (a signal, a nearly full disk): go on where it stopped."""
        while rest:
            written = os.pwrite(descriptor, rest, position)
            if written == 0:
                raise OSError(errno.EIO, "a write made no progress")
            rest, position = rest[written:], position + written

    def read(self, descriptor: int, size: int, position: int) -> bytes:
        """Up to `size` bytes; fewer only at the end of the file."""
        data = os.pread(descriptor, size, position)
        while len(data) < size:  # as rare as a short write, but for the end of the file
            more = os.pread(descriptor, size - len(data), position + len(data))
            if not more:
                break
            data += more
        return data

    def data_end(self, descriptor: int, size: int) -> int:
        """The offset after the last byte, of the first `size`, that is not zero.

        Read and not mapped: in a tmpfs a look at a hole through a map takes room, and is a SIGBUS
        if there is none. A copy of a log has holes.
        """
        for start in reversed(range(0, size, _STEP_BYTES)):
            used = used_bytes(self.read(descriptor, min(_STEP_BYTES, size - start), start))
            if used:
                return start + used
        return 0

    def copy(self, source: int, target: int, size: int, target_size: int) -> None:
        """Put the first `size` bytes of a file into an empty one, which gets that target size.

        A file system that can share the blocks of both files does; what only zeros stand in takes
        no room.
        """
        done = 0
        while done < size:
            step = min(size - done, _STEP_BYTES)
            data = os.pread(source, step, done)
            if not data:
                break
            if not _ZEROS.startswith(data):
                self._copy_part(source, target, done, data)
            done += len(data)
        os.ftruncate(target, target_size)

    def _copy_part(self, source: int, target: int, place: int, data: bytes) -> None:
        try:
            copied = os.copy_file_range(source, target, len(data), place, place)
        except AttributeError:
            copied = 0  # not on this system
        except OSError as error:
            if error.errno in _NO_ROOM:
                raise
            copied = 0  # not between these file systems
        if copied < len(data):
            self.write(target, [data[copied:]], place + copied)

    def size(self, descriptor: int) -> int:
        """The size of the file in bytes."""
        return os.fstat(descriptor).st_size

    def is_cut_off(self, descriptor: int, size: int) -> bool:
        """Whether the file has become shorter than that: what was mapped there would be a SIGBUS.

        Half the price of `size`; the descriptor must be the caller's own, since its offset moves.
        """
        return os.lseek(descriptor, 0, os.SEEK_END) < size

    def map(self, descriptor: int, size: int, *, writable: bool = False) -> mmap.mmap:
        """The first `size` bytes in memory, shared with every process that maps them."""
        hold_standard_descriptors()  # the map has a descriptor of its own
        access = mmap.ACCESS_WRITE if writable else mmap.ACCESS_READ
        return mmap.mmap(descriptor, size, access=access)

    def words(self, descriptor: int, view: memoryview) -> Words:
        """The words of a mapped file; `view` is of whole words, and begins where the file does.

        This is a `memoryview` itself: a store into it costs no call of ours.
        """
        return view.cast("Q")

    def store(self, descriptor: int, view: memoryview, position: int, data: bytes) -> None:
        """Put bytes into a mapped file; a crash may leave any part of them."""
        view[position : position + len(data)] = data

    def sync(self, descriptor: int) -> None:
        """Return when the file's data is on the disk."""
        os.fdatasync(descriptor)

    def sync_directory(self, path: str) -> None:
        """Return when the names in the directory are on the disk."""
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def make_directory(self, path: str) -> None:
        """Make a directory and those above it that are missing; their names are on the disk then.

        Only the owner may enter it.
        """
        places = [path]
        while not os.path.lexists(places[-1]):
            places.append(os.path.dirname(places[-1]) or ".")
        os.makedirs(path, DIRECTORY_MODE, exist_ok=True)
        for parent in places[1:]:
            with suppress(PermissionError):  # who may make a name there may not read it, perhaps
                self.sync_directory(parent)

    def rename(self, source: str, target: str) -> None:
        """Put `source` in the place of `target` in one step."""
        os.rename(source, target)

    def unlink(self, path: str) -> None:
        """Remove the name; who has the file open or mapped keeps it. Gone already is fine."""
        with suppress(FileNotFoundError):
            os.unlink(path)

    def names(self, path: str) -> list[str]:
        """The names in a directory."""
        return os.listdir(path)

    def lock_shared(self, descriptor: int) -> None:
        """Say that this process maps the file; an exclusive lock is held for microseconds only."""
        fcntl.flock(descriptor, fcntl.LOCK_SH)

    def lock_exclusive(self, descriptor: int) -> bool:
        """Take the file if no process maps it; whether that was so."""
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def unlock(self, descriptor: int) -> None:
        """Give the lock back."""
        fcntl.flock(descriptor, fcntl.LOCK_UN)

    def hold(self, descriptor: int, position: int, size: int) -> None:
        """Hold a part of the file for as long as the descriptor is open: a sign of life.

        A process's death ends it, in whichever PID namespace that process is. Systems without such
        locks have the process's number alone.
        """
        with suppress(OSError, AttributeError):
            fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _range_lock(fcntl.F_RDLCK, position, size))

    def is_held(self, descriptor: int, position: int, size: int) -> bool:
        """Whether anybody holds a part of that; who only looks disturbs nobody."""
        asked = _range_lock(fcntl.F_WRLCK, position, size)
        try:
            found = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, asked)
        except (OSError, AttributeError):
            return False
        kind: int = _RANGE_LOCK.unpack(found)[0]
        return kind != fcntl.F_UNLCK

    def identity(self, descriptor: int) -> tuple[int, int]:
        """What no other file has as long as this one is open."""
        mine = os.fstat(descriptor)
        return mine.st_dev, mine.st_ino

    def has_name(self, descriptor: int, path: str) -> bool:
        """Whether the path still leads to the open file."""
        return self.is_there(path, self.identity(descriptor), 0)

    def is_there(self, path: str, identity: tuple[int, int], size: int) -> bool:
        """Whether the path leads to that file, and it has at least that size: with one call."""
        try:
            there = os.stat(path, follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return (there.st_dev, there.st_ino) == identity and there.st_size >= size

    def close(self, descriptor: int) -> None:
        """Give the descriptor back."""
        os.close(descriptor)


FILES = Files()


def read_file(directory: str, name: str, files: Files) -> bytes | None:
    """All of a file; `None` if there is none."""
    with os_errors(directory, f"reading its {name}"):
        try:
            descriptor = files.open_read(os.path.join(directory, name))
        except FileNotFoundError:
            return None
        try:
            return files.read(descriptor, files.size(descriptor), 0)
        finally:
            files.close(descriptor)


def read_if_possible(path: str, files: Files) -> bytes:
    """All of a file; nothing, if it cannot be read: for files that can be done without."""
    try:
        descriptor = files.open_read(path)
    except OSError:
        return b""
    try:
        return files.read(descriptor, files.size(descriptor), 0)
    except OSError:
        return b""
    finally:
        files.close(descriptor)


def replace_file(directory: str, name: str, content: bytes, files: Files) -> None:
    """Have a file with this content, in one step; a loss of power may undo it."""
    path = os.path.join(directory, name)
    with os_errors(directory, f"saving its {name}"):
        descriptor = files.create(path + ".new")
        try:
            files.write(descriptor, [content], 0)
        finally:
            files.close(descriptor)
        files.rename(path + ".new", path)


@contextmanager
def os_errors(path: str, what: str) -> Iterator[None]:
    """Turn the operating system's errors into this package's own, saying what was being done."""
    try:
        yield
    except OSError as error:
        raise translated(error, path, what) from error


@contextmanager
def sync_errors(path: str, what: str) -> Iterator[None]:
    """As `os_errors`, for a sync of what is stored already: it fails, whatever the reason.

    `LogFull` would say of a full disk that nothing was stored, and an event that is then appended
    once more would be there twice.
    """
    try:
        yield
    except OSError as error:
        raise StorageFailed(
            f"the storage of the log {path} failed ({_reason(error, what)}); what was appended"
            " since the last sync is stored, and a loss of power may take it until the next one",
            path=path,
        ) from error


def _reason(error: OSError, what: str) -> str:
    return f"{what}: {os.strerror(error.errno) if error.errno else error}"


def translated(error: OSError, path: str, what: str) -> EventLogError:
    """The package's error for one of the operating system's."""
    reason = _reason(error, what)
    kind: type[EventLogError]
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT:
            kind = LogFull
            text = (
                f"no room for the log {path} ({reason}); free some space, the log goes on by"
                f" itself, or make a log with a smaller segment_bytes={_small_tmpfs_hint(path)}"
            )
        case errno.EFBIG:
            kind = LogFull
            text = (
                f"no room for the log {path} ({reason}): {_file_size_limit()}; raise it for the"
                " program that starts the writer, or make a log with a smaller segment_bytes="
            )
        case errno.EROFS:
            kind = PermissionDenied
            text = (
                f"the log {path} lies on a read-only file system ({reason}): it can be read, but"
                " nothing can be appended; mount it for writing"
            )
        case errno.EACCES | errno.EPERM:
            kind = PermissionDenied
            text = f"no permission for the log {path} ({reason}); run as its owner"
        case errno.EMFILE | errno.ENFILE:
            kind = StorageFailed
            text = (
                f"no descriptor is left for the log {path} ({reason}); raise the limit of open"
                " files (ulimit -n), or close what is not needed"
            )
        case errno.ENOENT | errno.ENOTDIR:
            kind, text = LogNotFound, f"there is no log at {path} ({reason})"
        case _:
            kind, text = StorageFailed, f"the storage of the log {path} failed ({reason})"
    return kind(text, path=path)


def _file_size_limit() -> str:
    """What keeps a file of this process small."""
    limit, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    if limit == resource.RLIM_INFINITY:
        return "the file system has no files that large"
    return f"a file of this process may have {limit} bytes (ulimit -f)"


def _small_tmpfs_hint(path: str) -> str:
    if not os.path.abspath(path).startswith("/dev/shm/"):  # noqa: S108 - looked at, not written to
        return ""
    with suppress(OSError):
        room = os.statvfs("/dev/shm")  # noqa: S108
        megabytes = room.f_blocks * room.f_frsize >> 20
        return (
            f" (/dev/shm holds {megabytes} MiB in all here; containers get 64 unless told"
            " otherwise, with docker run --shm-size)"
        )
    return ""
