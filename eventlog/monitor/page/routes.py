"""What the page may ask: its files, views of the logs, their events, and actions.

======================================  =======================================================
GET  /, /NAME                           the page and its files
GET  /api/views                         views of all logs, as server-sent events
GET  /api/logs/N/events                 a screenful: `from`, `count`, `where`, `last`
GET  /api/logs/N/live                   event by event, as server-sent events that resume
GET  /api/logs/N/letters                dead letters of `group`
POST /api/logs/N/seek                   `consumer`, `position`, `dry_run`: what it changes
POST /api/logs/N/ack                    `consumer`, `seq_no`
POST /api/logs/N/retry, /drop           `group`, `seq_nos`
======================================  =======================================================

A refusal is a status of 400 with the error's words.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import anyio.to_thread
from starlette.requests import Request
from starlette.responses import FileResponse, Response, StreamingResponse
from starlette.routing import Route

from eventlog.api.group import DeadLetter
from eventlog.api.positions import SeekPosition
from eventlog.errors import EventLogError, InvalidArgument
from eventlog.monitor.page.board import Board, Shown
from eventlog.monitor.page.browsing import IsWanted, live, screenful
from eventlog.monitor.preview import preview_seek
from eventlog.terminal.positions import position_of
from eventlog.terminal.show import plain_event, to_json
from eventlog.terminal.where import where_of

FILES: Final = Path(__file__).parent / "files"
TYPES: Final = {".html": "text/html", ".js": "text/javascript", ".css": "text/css"}
COUNT_MAX: Final = 500
LETTERS_MAX: Final = 500
BODY_BYTES_MAX: Final = 1 << 20
DIGITS_MAX: Final = 19
"""Digits of the largest number of 63 bits."""


def routes_of(board: Board) -> list[Route]:
    """The routes over a board."""
    of_logs: dict[str, Callable[[Shown, Request], Awaitable[Response]]] = {
        "events": _events,
        "live": _live,
        "letters": _letters,
    }
    actions: dict[str, Callable[[Shown, dict[str, Any]], Awaitable[Any]]] = {
        "seek": _seek,
        "ack": _ack,
        "retry": _retry,
        "drop": _drop,
    }
    return [
        Route("/api/views", partial(_views, board)),
        *(
            Route(f"/api/logs/{{log:int}}/{name}", partial(_of_log, board, answer))
            for name, answer in of_logs.items()
        ),
        *(
            Route(f"/api/logs/{{log:int}}/{name}", partial(_done, board, act), methods=["POST"])
            for name, act in actions.items()
        ),
        *(Route(f"/{path.name}", partial(_file, path)) for path in FILES.iterdir()),
        Route("/", partial(_file, FILES / "index.html")),
    ]


async def _file(path: Path, _: Request) -> Response:
    return FileResponse(path, media_type=TYPES.get(path.suffix, "text/plain"))


def _answer(value: Any, status: int = 200) -> Response:
    return Response(to_json(value), status, media_type="application/json")


def _shown(board: Board, request: Request) -> Shown:
    number: int = request.path_params["log"]
    if number >= len(board.logs):
        raise InvalidArgument(f"there is no log {number} on this page")
    return board.logs[number]


async def _of_log(
    board: Board, answer: Callable[[Shown, Request], Awaitable[Response]], request: Request
) -> Response:
    try:
        return await answer(_shown(board, request), request)
    except EventLogError as error:
        return _answer({"error": str(error)}, 400)


async def _done(
    board: Board, act: Callable[[Shown, dict[str, Any]], Awaitable[Any]], request: Request
) -> Response:
    try:
        return _answer({"done": await act(_shown(board, request), await _asked(request))})
    except EventLogError as error:
        return _answer({"error": str(error)}, 400)


async def _asked(request: Request) -> dict[str, Any]:
    body = b""
    async for some in request.stream():
        body += some
        if len(body) > BODY_BYTES_MAX:
            raise InvalidArgument(f"the request has more than {BODY_BYTES_MAX} bytes")
    try:
        asked = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"the request is no JSON: {error}") from error
    if not isinstance(asked, dict):
        raise InvalidArgument("the request is no JSON object")
    return asked


# --- what is shown ---------------------------------------------------------------------------


async def _views(board: Board, _: Request) -> Response:
    async def views() -> AsyncIterator[str]:
        while True:
            yield _message(await board.next_views())

    return StreamingResponse(views(), media_type="text/event-stream")


def _message(value: Any, *, kind: str = "message", number: int | None = None) -> str:
    place = "" if number is None else f"id: {number}\n"
    return f"event: {kind}\n{place}data: {to_json(value)}\n\n"


async def _events(shown: Shown, request: Request) -> Response:
    asked = request.query_params
    count = min(_number("count", asked.get("count", "100")), COUNT_MAX)
    if "last" in asked:
        last = await shown.log.last_seq_no() or 0
        position = SeekPosition.sequence(max(last - count + 1, 1))
    else:
        position = position_of(asked.get("from", "beginning"))
    found = await screenful(shown.log, position, count, _wanted(asked.get("where")))
    return _answer(found._asdict())


def _wanted(text: str | None) -> IsWanted | None:
    return where_of(text) if text else None


def _number(name: str, value: Any) -> int:
    text = str(value)
    if not text.isdecimal() or len(text) > DIGITS_MAX:
        raise InvalidArgument(f"{name} is {text[:40]!r}; give a whole number")
    return int(text)


async def _live(shown: Shown, request: Request) -> Response:
    is_wanted = _wanted(request.query_params.get("where"))
    # What a browser says that was cut off: it has seen everything up to this number.
    seen = request.headers.get("last-event-id") or request.query_params.get("after")
    start = None if seen is None else _number("Last-Event-ID", seen) + 1

    async def events() -> AsyncIterator[str]:
        yield ": open\n\n"
        async for number, found in live(shown.log, start, is_wanted):
            kind = "passed" if isinstance(found, int) else "message"
            yield _message(found, kind=kind, number=number)

    return StreamingResponse(events(), media_type="text/event-stream")


async def _letters(shown: Shown, request: Request) -> Response:
    letters = await shown.log.dead_letters(request.query_params.get("group", ""))
    return _answer({"count": len(letters), "letters": [*map(_letter, letters[:LETTERS_MAX])]})


def _letter(letter: DeadLetter) -> dict[str, Any]:
    fields = {field.name: getattr(letter, field.name) for field in dataclasses.fields(letter)}
    fields["event"] = plain_event(letter.event)
    fields["failed_at"] = letter.failed_at.isoformat()
    return {name: value for name, value in fields.items() if value is not None}


# --- actions ---------------------------------------------------------------------------------


async def _seek(shown: Shown, asked: dict[str, Any]) -> str:
    consumer, position = asked.get("consumer"), position_of(str(asked.get("position", "")))
    preview = partial(preview_seek, shown.looks, consumer, position)  # type: ignore[arg-type]  # it checks the name
    said = str(await anyio.to_thread.run_sync(preview))
    if asked.get("dry_run") is not True:
        await shown.log.seek(consumer, position)  # type: ignore[arg-type]  # the same
    return said


async def _ack(shown: Shown, asked: dict[str, Any]) -> None:
    await shown.log.ack(asked.get("consumer"), _number("seq_no", asked.get("seq_no", "")))  # type: ignore[arg-type]  # the same


async def _retry(shown: Shown, asked: dict[str, Any]) -> int:
    return await shown.log.retry_dead(str(asked.get("group")), _numbers(asked))


async def _drop(shown: Shown, asked: dict[str, Any]) -> int:
    return await shown.log.drop_dead(str(asked.get("group")), _numbers(asked))


def _numbers(asked: dict[str, Any]) -> list[int]:
    given = asked.get("seq_nos")
    if not isinstance(given, list):
        raise InvalidArgument("seq_nos is no list of numbers")
    return [_number("seq_nos", one) for one in given]
