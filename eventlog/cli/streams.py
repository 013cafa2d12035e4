"""Standard input, output and arguments: UTF-8 whatever the locale says, open or not."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from io import TextIOWrapper
from typing import BinaryIO, TypeVar, cast

from eventlog.errors import InvalidArgument, InvalidEvent

T = TypeVar("T", str, list[str] | None, str | None)


def prepare_streams() -> None:
    """Write UTF-8 from now on, and let no file take the number of a closed standard stream.

    A closed one stays `None` in `sys`.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")


def standard_input(wanted: str) -> BinaryIO:
    """The bytes of the standard input.

    Raises:
        InvalidArgument: it is closed, or a terminal, where nobody means to type events.
    """
    if sys.stdin is None:
        raise InvalidArgument(f"the standard input is closed: {wanted}")
    if sys.stdin.isatty():
        raise InvalidArgument(f"the standard input is a terminal: {wanted}")
    return cast("BinaryIO", sys.stdin.buffer)


def check_output() -> None:
    """Pass if what is printed arrives somewhere.

    Raises:
        InvalidArgument: the standard output is closed.
    """
    if sys.stdout is None:
        raise InvalidArgument(
            "the standard output is closed, so that nobody would see an event; give it a place,"
            " such as /dev/null"
        )


def input_lines(source: BinaryIO) -> Iterator[tuple[int, str]]:
    """The lines of the input, from 1 on, without their ends.

    Raises:
        InvalidEvent: a line is no UTF-8.
    """
    for number, line in enumerate(source, 1):
        try:
            yield number, line.removesuffix(b"\n").removesuffix(b"\r").decode()
        except UnicodeDecodeError as error:
            raise InvalidEvent(
                f"line {number} is no UTF-8 ({error.reason} at byte {error.start}); those before"
                " it are appended"
            ) from None


def utf8(value: T) -> T:
    """An argument that is text, not a path, as UTF-8: Python decoded it as the locale says.

    Bytes that are no UTF-8 stay surrogates, which no name, key or event may hold.
    """
    if value is None:
        return value
    if isinstance(value, str):
        return os.fsencode(value).decode(errors="surrogateescape")
    return [utf8(one) for one in value]
