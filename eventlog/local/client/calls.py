"""What a handle asks for, call by call, written once for both colours: generators, no I/O.

A call checks its arguments, yields what it needs, is sent the outcome, and returns what its caller
gets. A shell (`asynchronous`, `threads`) performs:

=======  =====================================================================
`Ask`    say a request, and wait for its answer
`Work`   call a function that reads or packs: on an event loop, in a thread
`PAUSE`  let other tasks run
=======  =====================================================================
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Generator, Iterable
from typing import Any, Final, NamedTuple, TypeVar

from eventlog.api.arguments import check_numbers
from eventlog.api.group import DeadLetter, GroupReport
from eventlog.api.operated import Trimmed
from eventlog.api.positions import SeekPosition, check_name, check_seq_no, check_state
from eventlog.api.refusals import older_writer
from eventlog.api.statistics import (
    LogStatistics,
    PublisherStatistics,
    log_statistics,
    statistics_of,
)
from eventlog.api.status import LogStatus
from eventlog.config import AskedOptions, LogOptions
from eventlog.errors import WriterUnavailable
from eventlog.event.batch_builder import BatchBuilder
from eventlog.local.client.handle import LocalHandle
from eventlog.local.groups.letter_content import corrected_letter
from eventlog.local.groups.ranges import ranges_of
from eventlog.local.groups.stored import find_letter, read_dead_letters, read_groups
from eventlog.local.wire.group_messages import DropDead, RetryCorrected, RetryDead
from eventlog.local.wire.messages import (
    Ack,
    AckState,
    AwaitSynced,
    Configure,
    Forget,
    Request,
    Seek,
    Statistics,
    Status,
    Trim,
)

RANGES_AT_ONCE: Final = 1024


class Ask(NamedTuple):
    """Say this request; `fields` are all but its number."""

    kind: type[Request]
    fields: tuple[Any, ...] = ()


class Work(NamedTuple):
    """Call this function."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]


class Pause(NamedTuple):
    """Let others run."""


PAUSE: Final = Pause()
Result = TypeVar("Result")
Call = Generator[Ask | Work | Pause, Any, Result]


def reach_writer(handle: LocalHandle) -> Call[int]:
    """How many are connected; 0 if there is no writer to ask, and none is started."""
    if not handle.may_ask:
        return 0
    report = yield Ask(Status)
    connections: int = report.connections
    return connections


def status(handle: LocalHandle) -> Call[LogStatus]:
    """The log as it can be seen, and who is connected."""
    return handle.status((yield from reach_writer(handle)))


def statistics(handle: LocalHandle, own: PublisherStatistics) -> Call[LogStatistics]:
    """What the handle's own appends have counted, and what the writer has."""
    report = (yield Ask(Statistics)) if handle.may_ask else None
    return log_statistics(own, None if report is None else statistics_of(report.numbers))


def synced(handle: LocalHandle, seq_no: int | None) -> Call[None]:
    """Return when the event is on the disk."""
    wanted = handle.number_to_sync(seq_no)
    if wanted is not None:
        yield Ask(AwaitSynced, (wanted,))


def ack(handle: LocalHandle, consumer: str, seq_no: int, state: bytes | None) -> Call[None]:
    """Move a consumer forward, with a state or none."""
    fields = check_name(consumer), check_seq_no(seq_no, consumer=consumer)
    if check_state(state, consumer) is None:
        yield Ask(Ack, fields)
        return
    writer = None
    while (yield Ask(AckState, (*fields, state))) is None:
        # Hung up on, twice: by one writer that does not know the message, or by two that died.
        writer, before = handle.reader.control.epoch, writer
        if writer == before:
            raise older_writer(handle.path, "state=")


def seek(handle: LocalHandle, consumer: str, position: SeekPosition) -> Call[None]:
    """Put a consumer somewhere."""
    number = handle.seek_number(consumer, position)
    if number is not None:
        yield Ask(Seek, (consumer, number))


def forget(consumer: str) -> Call[None]:
    """Remove a consumer."""
    yield Ask(Forget, (check_name(consumer),))


def configure(handle: LocalHandle, asked: AskedOptions) -> Call[LogOptions]:
    """Change the options that are given; those of the log then."""
    if asked.given:
        _known((yield Ask(Configure, (asked.to_dict(),))), handle, "configure")
    return handle.reader.control.look_at_options()


def trim(handle: LocalHandle, position: SeekPosition, *, force: bool) -> Call[Trimmed]:
    """Delete what is before the position."""
    before = yield Work(handle.reader.resolve, (position, ""))
    answer = _known((yield Ask(Trim, (before, force))), handle, "trim")
    return Trimmed(deleted=answer.deleted, first_available=answer.first_available)


def _known(answer: Any, handle: LocalHandle, what: str) -> Any:
    """The answer of a writer that knows what was asked.

    Raises:
        WriterUnavailable: it is of an earlier release.
    """
    if answer is None:
        raise WriterUnavailable(
            f"the writer of the log {handle.path} is of an earlier release, which has no `{what}`;"
            f" let another one start: eventlog restart {shlex.quote(handle.path)}",
            path=handle.path,
        )
    return answer


def groups(handle: LocalHandle) -> Call[list[GroupReport]]:
    """The groups of the log."""
    found: list[GroupReport] = yield Work(read_groups, (handle.path,))
    return found


def dead_letters(handle: LocalHandle, group: str) -> Call[list[DeadLetter]]:
    """The dead letters of a group."""
    letters: list[DeadLetter] = yield Work(read_dead_letters, (handle.path, check_name(group)))
    return letters


def retry_corrected(handle: LocalHandle, group: str, seq_no: int, event: Any) -> Call[int]:
    """Hand a dead letter out again with another event; 1 if it was one."""
    seq_no = check_seq_no(seq_no, consumer=check_name(group))
    BatchBuilder(handle.options.max_event_bytes, handle.path).add(event, None, None)  # checks it
    old = yield Work(find_letter, (handle.path, group, seq_no))
    if old is None:
        return 0
    fields = group, seq_no, corrected_letter(old.letter, event)
    number: int = _known((yield Ask(RetryCorrected, fields)), handle, "retry_corrected").number
    return number


def end_dead(kind: type[RetryDead | DropDead], group: str, seq_nos: Iterable[int]) -> Call[int]:
    """Retry or drop dead letters, in as many messages as they need; how many there were."""
    ranges = tuple(ranges_of(check_numbers(check_name(group), seq_nos)))
    number = 0
    for start in range(0, len(ranges), RANGES_AT_ONCE):
        number += (yield Ask(kind, (group, ranges[start : start + RANGES_AT_ONCE]))).number
    return number
