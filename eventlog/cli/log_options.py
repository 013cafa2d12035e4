"""Options of a log on the command line: as they are given, and as they are shown."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Annotated

import typer

from eventlog.config import LogOptions, Retention
from eventlog.terminal.sizes import NONE, bytes_of, is_yes, span_of, span_text

MaxBytes = Annotated[
    str | None,
    typer.Option(metavar="SIZE", help="Delete the oldest segments beyond that: 500M, 10G, none."),
]
MaxAge = Annotated[
    str | None, typer.Option(metavar="SPAN", help="Delete older segments: 90s, 12h, 7d, none.")
]
KeepUnacked = Annotated[
    str | None,
    typer.Option(metavar="yes|no", help="Keep what a consumer has not acknowledged."),
]
OnFull = Annotated[
    str | None,
    typer.Option(metavar="wait|error", help="What an append does that finds the log full."),
]


def changed_retention(
    known: Retention, max_bytes: str | None, max_age: str | None, keep_unacked: str | None
) -> Retention | None:
    """What is kept, with the options that were given; `None` if none of them was.

    Raises:
        InvalidArgument, InvalidConfig: a text is no size, no span of time, or neither yes nor no.
    """
    changes: dict[str, object] = {}
    if max_bytes is not None:
        changes["max_bytes"] = None if max_bytes == NONE else bytes_of(max_bytes)
    if max_age is not None:
        changes["max_age"] = None if max_age == NONE else span_of(max_age)
    if keep_unacked is not None:
        changes["keep_unacked"] = is_yes(keep_unacked, "--keep-unacked")
    return replace(known, **changes) if changes else None  # type: ignore[arg-type]


def option_fields(options: LogOptions) -> dict[str, object]:
    """The options by the names that commands have for them, for JSON."""
    fields = asdict(options)
    del fields["retention"]
    return {"durability": fields.pop("durability"), **options.retention.to_dict(), **fields}


def shown_options(options: LogOptions) -> dict[str, str]:
    """The same for people."""
    kept = options.retention
    return {
        "durability": options.durability,
        "max-bytes": NONE if kept.max_bytes is None else f"{kept.max_bytes:,}",
        "max-age": NONE if kept.max_age is None else span_text(kept.max_age),
        "keep-unacked": "yes" if kept.keep_unacked else "no",
        "on-full": options.on_full,
        "segment-bytes": f"{options.segment_bytes:,}",
        "max-event-bytes": f"{options.max_event_bytes:,}",
    }
