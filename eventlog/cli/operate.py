"""`create`, `delete`, `stop`, `restart`: the life of a log and of its writer."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import Annotated, cast

import typer

from eventlog import blocking
from eventlog.api.engines import is_directory
from eventlog.cli.address import LogFiles, check_directory, check_usable
from eventlog.cli.app import EPILOG, FAILED, app
from eventlog.cli.log_options import (
    KeepUnacked,
    MaxAge,
    MaxBytes,
    OnFull,
    changed_retention,
    option_fields,
    shown_options,
)
from eventlog.config import AskedOptions, Durability, LogOptions, Retention
from eventlog.config import OnFull as OnFullOption
from eventlog.errors import InvalidArgument, LogInUse, WriterUnavailable
from eventlog.local import rendezvous
from eventlog.local.client.launch import prepare, start_writer
from eventlog.local.storage.control import ControlPage, check_is_log, is_log
from eventlog.local.storage.owner import check_owner
from eventlog.local.storage.sharing import (
    check_may_share,
    described_group,
    gid_of,
    share,
    shared_with,
)
from eventlog.local.writer.succession import end_writer, is_of_clients
from eventlog.terminal.printing import complain, counted, fail_with, say
from eventlog.terminal.show import to_json
from eventlog.terminal.sizes import bytes_of
from eventlog.tools.removal import remove_log

CREATE_EXAMPLES = """
[bold]Examples[/]

  eventlog create orders --max-bytes 10G --max-age 7d --keep-unacked no

  eventlog create /var/lib/orders/log --durability sync --json
"""
DELETE_EXAMPLES = """
[bold]Examples[/]

  eventlog delete orders                       (asks for the name)

  eventlog delete --yes --force orders         (also while a writer serves it)
"""
STOP_EXAMPLES = """
[bold]Example[/]

  eventlog stop orders && cp -r orders /backups/

[bold]Clients[/]

  Those that are connected lose nothing: they start another writer as soon as they need one, unless
  they were opened with start_writer=False. A writer that `eventlog serve` runs is ended too; its
  supervisor may start it again. Clients of a shared log (`create --group`) start none: they wait
  for the next `eventlog serve`, up to 10 seconds.
"""
RESTART_EXAMPLES = """
[bold]Example[/]

  pip install --upgrade eventlog && eventlog restart orders

[bold]Clients[/]

  They go on without an error; what they were storing is stored once. The new writer is of the
  release of this command. Where `eventlog serve` ran, its supervisor starts it again, and it takes
  the place of the writer that this command has started.
"""


@app.command(epilog=CREATE_EXAMPLES + "\n\n" + EPILOG)
def create(  # noqa: PLR0917 - typer calls it by name; these are options of a command line
    log: Annotated[str, typer.Argument(help="The log: a directory, or an engine's address.")],
    durability: Annotated[
        str | None, typer.Option(metavar="memory|disk|sync", help="What an append survives.")
    ] = None,
    max_bytes: MaxBytes = None,
    max_age: MaxAge = None,
    keep_unacked: KeepUnacked = None,
    on_full: OnFull = None,
    segment_bytes: Annotated[
        str | None, typer.Option(metavar="SIZE", help="The size of a file; it stays so.")
    ] = None,
    max_event_bytes: Annotated[
        str | None, typer.Option(metavar="SIZE", help="The largest event; it stays so.")
    ] = None,
    group: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Share it with that group of users; see `serve`."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Say its options as JSON.")] = False,
) -> None:
    """Make a log with these options; one that is there already is an error.

    No writer is started. `eventlog config` changes the options later, but for the sizes and the
    durability.
    """
    asked = AskedOptions(
        durability=cast("Durability | None", durability),
        retention=changed_retention(Retention(), max_bytes, max_age, keep_unacked),
        on_full=cast("OnFullOption | None", on_full),
        segment_bytes=None if segment_bytes is None else bytes_of(segment_bytes),
        max_event_bytes=None if max_event_bytes is None else bytes_of(max_event_bytes),
    )
    gid = None if group is None else gid_of(group)
    if not is_directory(check_usable(log)):
        if group is not None:
            raise InvalidArgument(f"--group is about the files of a log, and {log} has none")
        _create_on_engine(log, asked, as_json=as_json)
        return
    if is_log(log):
        raise InvalidArgument(
            f"there is a log at {log} already; `eventlog config` shows its options and changes them"
        )
    directory = check_directory(log, "create")
    if gid is not None:
        check_may_share(gid, directory)
    prepare(directory, asked)
    if gid is not None:
        share(directory, gid)
    control = ControlPage(directory)
    options = control.options
    control.close()
    say(to_json(option_fields(options)) if as_json else f"made {log}: {_in_words(options)}")


def _create_on_engine(log: str, asked: AskedOptions, *, as_json: bool) -> None:
    """An engine makes what is not there, and checks the options of what is."""
    given = {name: getattr(asked, name) for name in asked.given}
    with blocking.open(log, **given) as opened:
        status = opened.status()
    if as_json:
        say(to_json({"durability": status.durability, "max_event_bytes": status.max_event_bytes}))
    else:
        say(f"{status.path} is there, with {counted(status.last_seq_no or 0, 'event')} so far")


def _in_words(options: LogOptions) -> str:
    return ", ".join(f"{name} {value}" for name, value in shown_options(options).items())


@app.command(epilog=DELETE_EXAMPLES + "\n\n" + EPILOG)
def delete(
    log: LogFiles,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Stop a writer that serves it, whoever uses it.")
    ] = False,
) -> None:
    """Delete a log with all its events, and its directory; ask for its name first.

    Clients that still use it get `LogDeleted`. A log on a server is deleted with the tools of the
    server.
    """
    directory = check_directory(log, "delete")
    check_is_log(directory)
    if not yes and not _is_confirmed(directory):
        fail_with(f"that is not the name of the log; nothing of {log} is deleted")
        raise typer.Exit(FAILED)
    if force:
        _, lock = end_writer(directory)
        try:
            remove_log(directory)
        finally:
            lock.release()
    else:
        try:
            with rendezvous.writers_locked_out(directory):
                remove_log(directory)
        except LogInUse as error:
            raise LogInUse(f"{error}; or delete it with --force", path=directory) from None
    say(f"deleted {log}")


def _is_confirmed(directory: str) -> bool:
    control = ControlPage(directory)
    count = max(control.high_water - control.first_available + 1, 0)
    control.close()
    name = os.path.basename(directory)
    complain(f"{directory} has {counted(count, 'event')}. To delete it for good, give its name:")
    return sys.stdin is not None and sys.stdin.readline().rstrip("\n") == name


@app.command(epilog=STOP_EXAMPLES + "\n\n" + EPILOG)
def stop(log: LogFiles) -> None:
    """End the writer of a log in order, with everything on the disk; none is no error."""
    directory = check_directory(log, "stop")
    check_is_log(directory)
    pid, lock = end_writer(directory)
    lock.release()
    if pid is None:
        say(f"no writer serves {log}")
        return
    follows = "clients that are still connected start another one when they need it"
    if shared_with(directory) is not None:
        follows = "the log is shared, so its clients wait until `eventlog serve` runs again"
    say(f"stopped the writer of {log}, process {pid}; {follows}")


@app.command(epilog=RESTART_EXAMPLES + "\n\n" + EPILOG)
def restart(log: LogFiles) -> None:
    """End the writer of a log in order, and start another one, as clients do.

    If none serves the log, one is started.
    """
    directory = check_directory(log, "restart")
    check_is_log(directory)
    if (gid := shared_with(directory)) is not None:
        raise InvalidArgument(
            f"the log {log} is shared with {described_group(gid)}, so it is `eventlog serve` alone"
            " that serves it: restart that, or use `eventlog stop` if a supervisor starts it again"
        )
    before, now = _restarted(directory)
    if before is None:
        say(f"started a writer of {log}, process {now}")
    else:
        say(f"stopped the writer of {log}, process {before}; process {now} is its writer now")


def _restarted(directory: str) -> tuple[int | None, int]:
    """The process that served the log, and the one that does now."""
    check_owner(directory)
    lock = rendezvous.lock_directory(directory)
    try:
        before, is_told = _look(directory)
        if is_told:
            lock.release()
            _, lock = end_writer(directory)
        # Perhaps its supervisor was faster.
        if not is_told or _look(directory)[0] is None:
            start_writer(directory, lock.descriptor, replaces=True, cpus=_cpus_of(before))
    except BaseException:
        lock.hand_over()  # a writer that was started, and not waited for, still needs it
        raise
    lock.release()
    now, _ = _look(directory)
    if now is None:
        raise WriterUnavailable(
            f"the new writer of {directory} ended at once; see {rendezvous.LOG_NAME} there",
            path=directory,
        )
    return before, now


def _cpus_of(pid: int | None) -> set[int]:
    """The processors that a writer was placed on: its follower runs there."""
    with suppress(OSError, AttributeError):
        if pid and (cpus := os.sched_getaffinity(pid)) != os.sched_getaffinity(0):
            return cpus
    return set()


def _look(directory: str) -> tuple[int | None, bool]:
    """The process that serves the log, and whether it was told to, as by `eventlog serve`."""
    pipe = rendezvous.connect(directory)
    if pipe is None:
        return None, False
    with pipe:
        return rendezvous.peer_of(pipe)[0], not is_of_clients(pipe)
