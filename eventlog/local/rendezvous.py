"""Where clients and the writer of a log find each other: the socket and the locks.

Two locks (`flock`), and what holding each one means:

===================  ==========================================================================
lock on              held by
===================  ==========================================================================
`writer.lock`        the writer, as long as it lives: there is one writer
the directory        whoever makes the log, starts a writer, or leaves as one: the writer that a
                     client starts inherits the lock and lets go once it listens, so whoever waits
                     for the lock finds either a listening writer or none at all. No polling
===================  ==========================================================================

A lock ends when its holder releases it or dies. The kernel would keep it as long as any process
has a copy of the descriptor: so a holder unlocks before it closes, and a forked child closes its
copies.

A socket's path is limited to 108 bytes, so a deep directory is reached through a descriptor.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final, TypeVar

from eventlog.api import forks
from eventlog.config import PIPE_BUFFER_BYTES
from eventlog.errors import LogInUse, PermissionDenied, UnsupportedFileSystem
from eventlog.local.storage.files import os_errors
from eventlog.local.storage.owner import check_owner, described_user, is_owner, owner_of
from eventlog.local.storage.sharing import SOCKET_MODE, is_in_group, shared_with
from eventlog.system import above_standard, hold_standard_descriptors

LOCK_NAME: Final = "writer.lock"
SOCKET_NAME: Final = "writer.sock"
LOG_NAME: Final = "writer.log"
READY: Final = b"ready"
"""What a new writer tells its starter, on its standard output, once it serves."""
BACKLOG: Final = 1024
_WAIT_S: Final = 86_400.0
"""How long a blocking call on a pipe waits before it has to be made again (`TimeoutError`)."""
_SOCKET_PATH_BYTES_MAX: Final = 100
_CREDENTIALS: Final = struct.Struct("3i")
_NETWORK_FILE_SYSTEMS: Final = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs"}
    | {"lustre", "ocfs2", "gfs2", "beegfs", "fuse.sshfs", "fuse.s3fs", "fuse.glusterfs"}
    | {"fuse.ceph", "fuse.ceph-fuse"}
)
"""Those of clusters too, and of guests that share what their host has. Not all that begin with
`fuse`: most of those are of local disks."""


class Lock:
    """A lock that this process holds, or hands to a process that it starts."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        """-1 once the lock is released."""
        forks.leave_to_parent(self)

    def __repr__(self) -> str:
        """The descriptor, and whether the lock is still held by it."""
        return f"<Lock {self.descriptor}>" if self.descriptor >= 0 else "<Lock released>"

    def acquire(self, *, wait: bool) -> bool:
        """Take the lock; whether it is held now. `Lock` is closed if it is not."""
        try:
            fcntl.flock(self.descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BaseException as error:
            self.hand_over()
            if isinstance(error, OSError) and error.errno in (errno.EWOULDBLOCK, errno.EAGAIN):
                return False
            raise
        return True

    def release(self) -> None:
        """Unlock, whoever else has a copy of the descriptor; may be called twice."""
        if self.descriptor >= 0:
            with suppress(OSError):
                fcntl.flock(self.descriptor, fcntl.LOCK_UN)
            self.hand_over()

    def hand_over(self) -> None:
        """Close without unlocking: a process that inherited the descriptor holds the lock on."""
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def drop_copy(self) -> None:
        """In a forked child: the parent alone holds the lock."""
        self.hand_over()


class Pipe(socket.socket):
    """A pipe to the writer, which sees its end although children of this process live on."""

    def drop_copy(self) -> None:
        """In a forked child: the pipe is the parent's."""
        self.close()


Socket = TypeVar("Socket", bound=socket.socket)


@contextmanager
def _reachable(directory: str) -> Iterator[str]:
    """The socket's path, short enough for the kernel while the block runs."""
    path = os.path.join(directory, SOCKET_NAME)
    if len(os.fsencode(path)) <= _SOCKET_PATH_BYTES_MAX:
        yield path
        return
    descriptor = above_standard(os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
    try:
        yield f"/proc/self/fd/{descriptor}/{SOCKET_NAME}"
    finally:
        os.close(descriptor)


def connect(directory: str) -> socket.socket | None:
    """A connection to the log's writer; `None` if nobody listens.

    Raises:
        PermissionDenied: the socket, or who listens on it, belongs to another user.
    """
    pipe = _new_socket(directory, Pipe)
    forks.leave_to_parent(pipe)
    try:
        with os_errors(directory, "connecting to its writer"):
            try:
                with _reachable(directory) as path:
                    pipe.connect(path)
            except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError):
                pipe.close()  # nobody listens, nor can without a directory
                return None
        check_peer(pipe, directory)
        pipe.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, PIPE_BUFFER_BYTES)
        # Who has a time limit waits in `poll`, for what it waits for. Who waits in `recv` itself is
        # woken also when the other end takes what was sent, as there is room then, and to wake
        # somebody for nothing takes that end 10 us: the writer, for each request.
        pipe.settimeout(_WAIT_S)
    except BaseException:
        pipe.close()
        raise
    return pipe


def _new_socket(directory: str, kind: type[Socket]) -> Socket:
    with os_errors(directory, "making a socket"):
        hold_standard_descriptors()
        return kind(socket.AF_UNIX, socket.SOCK_STREAM)


def listen(directory: str) -> socket.socket:
    """The writer's socket, in the place of one that a dead writer left; needs both locks."""
    with suppress(FileNotFoundError):
        os.unlink(os.path.join(directory, SOCKET_NAME))
    listener = _new_socket(directory, socket.socket)
    try:
        with os_errors(directory, "making the writer's socket"), _reachable(directory) as path:
            mode = 0o600 if shared_with(directory) is None else SOCKET_MODE
            before = os.umask(0o777 & ~mode)  # at no moment has the socket another mode
            try:
                listener.bind(path)
            finally:
                os.umask(before)
            listener.listen(BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener


def check_peer(pipe: socket.socket, directory: str) -> None:
    """Pass if the process at the other end belongs to this user, or to root.

    The owner of a shared log hears whoever the socket's mode lets in, and they speak with him.

    Raises:
        PermissionDenied: it belongs to somebody else.
    """
    _, uid = peer_of(pipe)
    if uid not in (os.geteuid(), 0) and not _is_shared_by(uid, directory):
        check_owner(directory)
        raise PermissionDenied(
            f"the process at the other end of a pipe of the log {directory} belongs to"
            f" {described_user(uid)}",
            path=directory,
        )


def _is_shared_by(uid: int, directory: str) -> bool:
    return shared_with(directory) is not None and (
        is_owner(directory) or (uid == owner_of(directory) and is_in_group(directory))
    )


def peer_of(pipe: socket.socket) -> tuple[int, int]:
    """Process and user at the other end; the process is 0 if it cannot be seen from here."""
    option = getattr(socket, "SO_PEERCRED", None)
    if option is None:  # elsewhere than on Linux, the directory's mode alone keeps others out
        return 0, os.geteuid()
    packed = pipe.getsockopt(socket.SOL_SOCKET, option, _CREDENTIALS.size)
    pid, uid, _ = _CREDENTIALS.unpack(packed)
    return pid, uid


def lock_directory(directory: str) -> Lock:
    """The directory's lock, as soon as nobody else holds it."""
    lock = _directory_lock(directory, wait=True)
    assert lock is not None
    return lock


def try_lock_directory(directory: str) -> Lock | None:
    """The directory's lock; `None` if somebody holds it."""
    return _directory_lock(directory, wait=False)


def _directory_lock(directory: str, *, wait: bool) -> Lock | None:
    with os_errors(directory, "locking the directory"):
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        lock = Lock(above_standard(os.open(directory, flags)))
        return lock if lock.acquire(wait=wait) else None


def try_lock_writer(directory: str) -> Lock | None:
    """The lock that makes this process the writer; `None` if another process holds it."""
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    with os_errors(directory, "opening the writer's lock"):
        descriptor = above_standard(os.open(os.path.join(directory, LOCK_NAME), flags, 0o600))
        lock = Lock(descriptor)
        return lock if lock.acquire(wait=False) else None


def has_socket(directory: str) -> bool:
    """Whether the writer's socket has its name, be it a dead writer's."""
    return os.path.lexists(os.path.join(directory, SOCKET_NAME))


@contextmanager
def writers_locked_out(directory: str) -> Iterator[None]:
    """While the block runs, no process is the log's writer and none can become it.

    Raises:
        LogInUse: a writer serves the log, or is about to.
        PermissionDenied: the log belongs to another user.
    """
    check_owner(directory)
    lock = try_lock_directory(directory)
    if lock is None:
        raise _in_use(directory)
    writer: Lock | None = None
    try:
        writer = try_lock_writer(directory)
        if writer is None:
            raise _in_use(directory)
        yield
    finally:
        if writer is not None:
            writer.release()
        lock.release()


def _in_use(directory: str) -> LogInUse:
    return LogInUse(
        f"the log {directory} is served by a writer (`eventlog status {directory}` shows it); end"
        f" it first (`eventlog stop {directory}`): it leaves by itself ten seconds after its last"
        " client; one of `eventlog serve` stays until you end that, at its supervisor if need be",
        path=directory,
    )


def check_file_system(directory: str) -> None:
    """Pass if maps and locks in the directory are coherent between processes.

    Raises:
        UnsupportedFileSystem: it lies on a network file system.
    """
    kind = file_system_of(os.path.realpath(directory))
    if is_network(kind):
        raise UnsupportedFileSystem(
            f"{directory} lies on a network file system ({kind}), where processes would not see"
            " each other's writes; put the log on a local disk or in /dev/shm",
            path=directory,
        )


def is_network(kind: str | None) -> bool:
    """Whether processes do not see each other's writes on file systems of that type."""
    return kind in _NETWORK_FILE_SYSTEMS


def file_system_of(path: str, table: str = "/proc/self/mountinfo") -> str | None:
    """The type of the file system, from the mount table; `None` where there is no such table.

    The names of mount points are bytes of any kind, so the table is read as bytes.
    """
    wanted, best, kind = os.fsencode(path), b"", None
    with suppress(OSError), open(table, "rb") as mounts:
        for line in mounts:
            before, _, after = line.partition(b" - ")
            point = _ESCAPED.sub(_unescaped, before.split(b" ")[4])
            inside = wanted == point or wanted.startswith(point.rstrip(b"/") + b"/")
            if inside and len(point) >= len(best):
                best, kind = point, os.fsdecode(after.split(b" ")[0])
    return kind


_ESCAPED: Final = re.compile(rb"\\([0-7]{3})")
"""A space, tab, newline or backslash in the table."""


def _unescaped(match: re.Match[bytes]) -> bytes:
    return bytes([int(match[1], 8)])
