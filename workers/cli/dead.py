"""`workers dead`: the events that used up their deliveries, one by one or in bulk.

Listing those of a directory needs no writer. Retrying and dropping go by what the writer finds, so
that doing it twice, or from two terminals, does no harm: what is no dead letter any more is passed
over.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterable
from typing import Annotated, Any, Literal

import typer
from rich.table import Table

from eventlog import DeadLetter, blocking
from eventlog.cli.address import Log, readable
from eventlog.cli.streams import utf8
from eventlog.terminal.positions import moment_of
from eventlog.terminal.printing import cell, clean, counted, is_terminal, print_table, say
from eventlog.terminal.show import JSON_FORMS, event_of_json, event_text, to_json
from workers.cli.app import EPILOG, FAILED, dead, fail_with
from workers.cli.show import letter_fields, letters_table, time_text

__all__ = ["dead"]

Group = Annotated[
    str | None, typer.Option("--group", "-g", help="Those of this group.", callback=utf8)
]
Since = Annotated[
    str | None,
    typer.Option(metavar="TIME", help="Those that died since: an ISO time, or 15m, 2h, 7d ago."),
]
Match = Annotated[
    str | None,
    typer.Option(
        metavar="EXPR",
        callback=utf8,
        help="Those in whose error this is found: a text, or a regular expression.",
    ),
]
MatchLogs = Annotated[
    str | None,
    typer.Option(
        metavar="EXPR",
        callback=utf8,
        help="The same, in tracebacks and the last log lines of workers; those may be about other"
        " events.",
    ),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="List those that are meant, and change nothing.")
]
Every = Annotated[bool, typer.Option("--all", help="All that the other options leave.")]
Numbers = Annotated[
    list[int] | None, typer.Argument(metavar="SEQ", min=1, help="The events' numbers.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Say it as JSON.")]
Verb = Literal["retried", "dropped"]

LIST_EXAMPLES = """
[bold]Examples[/]

  workers dead list images

  workers dead list images --group resize --since 2h --match TimeoutError

  workers dead list images --match-logs 'no space left'

  workers dead list images --json | jq -r '[.seq_no, .error] | @tsv'
"""
SHOW_EXAMPLES = """
[bold]Examples[/]

  workers dead show images 1042

  workers dead show images 1042 --group resize --json | jq .event
"""
RETRY_EXAMPLES = """
[bold]Examples[/]

  workers dead retry images 1042 1043

  workers dead retry images --group resize --match 'Connection(Refused|Reset)Error'

  workers dead retry images --match TimeoutError --dry-run

  workers dead retry images --match-logs 'no space left' --since 2h

  workers dead retry images --all

  workers dead retry images 1042 --event '{"name": "cat.png", "width": 100}'
"""
DROP_EXAMPLES = """
[bold]Examples[/]

  workers dead drop images 1042

  workers dead drop images --group resize --since 2026-01-31T12:00:00+00:00

  workers dead drop images --match 'killed by SIGSEGV' --json

  workers dead drop images --group resize --since 3d --dry-run
"""


@dead.command("list", epilog=LIST_EXAMPLES + "\n\n" + EPILOG)
def list_letters(
    log: Log,
    group: Group = None,
    since: Since = None,
    match: Match = None,
    match_logs: MatchLogs = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per letter.")] = False,
) -> None:
    """List dead letters, in the order in which they died, and say how many each group has."""
    letters = _chosen(log, group=group, since=since, match=match, match_logs=match_logs)
    if as_json:
        _print_json(letters)
        return
    if letters:
        _print_table(letters)
        say(_counted(Counter(letter.group for letter in letters)))
    else:
        say("no dead letters")


@dead.command("show", epilog=f"{SHOW_EXAMPLES}\n\n{JSON_FORMS}\n\n{EPILOG}")
def show_letter(
    log: Log,
    seq_no: Annotated[int, typer.Argument(metavar="SEQ", min=1, help="The event's number.")],
    group: Group = None,
    as_json: AsJson = False,
) -> None:
    """Show all that is known of a dead letter: the event, its error and traceback, its worker."""
    letters = _chosen(log, [seq_no], group=group)
    if not letters:
        where = "" if group is None else f" of the group {group!r}"
        fail_with(f"event {seq_no} of the log {log} is no dead letter{where}")
        raise typer.Exit(FAILED)
    if as_json:
        _print_json(letters)
        return
    for letter in letters:
        _print_letter(letter)


def _print_table(letters: list[DeadLetter]) -> None:
    """A pipe gets every error whole."""
    print_table(letters_table(letters, whole=not is_terminal()))


def _print_json(letters: Iterable[DeadLetter]) -> None:
    for letter in letters:
        say(to_json(letter_fields(letter)))


def _print_letter(letter: DeadLetter) -> None:
    fields = letter_fields(letter)
    log_lines, traceback = fields.pop("log_lines"), fields.pop("traceback")
    fields["failed_at"], fields["event"] = time_text(letter.failed_at), event_text(letter.event)
    texts = {name: _text_of(value) for name, value in fields.items()}
    if is_terminal():
        table = Table(show_header=False, box=None)
        for name, text in texts.items():
            table.add_row(cell(name, "bold"), cell(text))
        print_table(table)
    else:  # a table would fill each line with spaces, as far as the longest one
        width = max(map(len, texts)) + 1
        say("\n".join(f"{name:<{width}} {clean(text)}" for name, text in texts.items()))
    if log_lines:
        say("\nthe last lines that its worker logged:")
        say("\n".join(f"  {clean(line)}" for line in log_lines))
    if traceback:
        say("\n" + traceback.rstrip("\n"))


def _text_of(value: Any) -> str:
    if value is None:
        return "-"
    return value if isinstance(value, str) else to_json(value)


@dead.command("retry", epilog=f"{RETRY_EXAMPLES}\n\n{JSON_FORMS}\n\n{EPILOG}")
def retry(  # noqa: PLR0917 - typer calls it by name; these are options of a command line
    log: Log,
    seq_nos: Numbers = None,
    group: Group = None,
    since: Since = None,
    match: Match = None,
    match_logs: MatchLogs = None,
    every: Every = False,
    event: Annotated[
        str | None,
        typer.Option(
            metavar="JSON", callback=utf8, help="What is handled instead of its event; - reads it."
        ),
    ] = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Hand dead letters out again, as if for the first time, and say how many.

    Doing it twice is harmless: what is no dead letter any more is passed over. With --event, of one
    letter, the group handles that in the place of its event; the log stays as it is.
    """
    _check_says_which(seq_nos, group, since, match, match_logs, every=every)
    letters = _chosen(log, seq_nos, group=group, since=since, match=match, match_logs=match_logs)
    if event is not None:
        _retry_corrected(log, letters, _payload(event), dry_run=dry_run, as_json=as_json)
        return
    _settle(log, letters, "retried", dry_run=dry_run, as_json=as_json)


@dead.command("drop", epilog=DROP_EXAMPLES + "\n\n" + EPILOG)
def drop(  # noqa: PLR0917 - typer calls it by name; these are options of a command line
    log: Log,
    seq_nos: Numbers = None,
    group: Group = None,
    since: Since = None,
    match: Match = None,
    match_logs: MatchLogs = None,
    every: Every = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Forget dead letters for good, and say how many; the events stay in the log."""
    _check_says_which(seq_nos, group, since, match, match_logs, every=every)
    letters = _chosen(log, seq_nos, group=group, since=since, match=match, match_logs=match_logs)
    _settle(log, letters, "dropped", dry_run=dry_run, as_json=as_json)


def _payload(text: str) -> Any:
    """The event that a text of JSON, or the standard input, means."""
    said = sys.stdin.read() if text == "-" and sys.stdin is not None else text
    try:
        return event_of_json(said)
    except ValueError as error:
        raise typer.BadParameter(f"--event is no JSON of an event: {error}") from None


def _retry_corrected(
    log: str, letters: list[DeadLetter], event: Any, *, dry_run: bool, as_json: bool
) -> None:
    """Retry the one letter with another event."""
    if len(letters) > 1:
        raise typer.BadParameter(f"--event is for one dead letter, and these are {len(letters)}")
    counts = {letter.group: 1 for letter in letters}
    if letters and not dry_run:
        (letter,) = letters
        with blocking.open(log) as opened:
            counts[letter.group] = opened.retry_corrected(letter.group, letter.seq_no, event)
    _say_settled(letters, counts, "retried", dry_run=dry_run, as_json=as_json)


def _check_says_which(*choices: object, every: bool) -> None:
    """Nobody means all of them by leaving something out."""
    if not any(choices) and not every:
        raise typer.BadParameter(
            "say which: SEQ, --group, --since, --match, --match-logs, or --all"
        )


def _chosen(
    log: str,
    seq_nos: Iterable[int] | None = None,
    *,
    group: str | None = None,
    since: str | None = None,
    match: str | None = None,
    match_logs: str | None = None,
) -> list[DeadLetter]:
    """The dead letters that every given option means.

    Raises:
        LogNotFound, NotALog, InvalidArgument: the log or `since` is no good.
    """
    with readable(log) as reading:
        letters = reading.dead_letters(group)
    numbers = set(seq_nos) if seq_nos else None
    earliest = None if since is None else moment_of(since)
    return [
        letter
        for letter in letters
        if (numbers is None or letter.seq_no in numbers)
        and (earliest is None or letter.failed_at >= earliest)
        and (match is None or _is_found(match, letter.error))
        and (match_logs is None or _is_found(match_logs, _beside_error(letter)))
    ]


def _beside_error(letter: DeadLetter) -> str:
    return "\n".join([letter.traceback or "", *letter.log_lines])


def _is_found(match: str, text: str) -> bool:
    """Errors are full of brackets: who copies a piece of one means it as it stands."""
    if match in text:
        return True
    try:
        return re.search(match, text, re.MULTILINE) is not None
    except re.error:
        return False


def _settle(
    log: str, letters: list[DeadLetter], verb: Verb, *, dry_run: bool, as_json: bool
) -> None:
    """Retry or drop them, group by group, and say how many; or say which that would be."""
    by_group: dict[str, list[int]] = {}
    for letter in letters:
        by_group.setdefault(letter.group, []).append(letter.seq_no)
    if dry_run:
        counts = {name: len(numbers) for name, numbers in by_group.items()}
    else:
        counts = {name: _ask_writer(log, name, each, verb) for name, each in by_group.items()}
    _say_settled(letters, counts, verb, dry_run=dry_run, as_json=as_json)


def _say_settled(
    letters: list[DeadLetter], counts: dict[str, int], verb: Verb, *, dry_run: bool, as_json: bool
) -> None:
    if as_json:
        name = f"would_be_{verb}" if dry_run else verb
        say(to_json({name: sum(counts.values()), "groups": counts}))
        return
    if dry_run and letters:
        _print_table(letters)
    meant = _counted(counts)
    say(f"{meant} would be {verb}" if dry_run else f"{verb} {meant}")


def _counted(counts: dict[str, int]) -> str:
    """How many, in all and of each group."""
    by = ", ".join(f"{name}: {count:,}" for name, count in counts.items())
    ending = f" ({by})" if len(counts) > 1 else ""
    return f"{counted(sum(counts.values()), 'dead letter')}{ending}"


def _ask_writer(log: str, name: str, numbers: list[int], verb: Verb) -> int:
    with blocking.open(log) as opened:
        change = opened.retry_dead if verb == "retried" else opened.drop_dead
        return change(name, numbers)
