"""What keys and headers may be. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from eventlog.errors import InvalidArgument, InvalidArgumentType

Keys = Iterable[str | None] | None
"""Keys of many events: one for each, or `None`; or no keys at all."""
Headers = Mapping[str, str] | Iterable[Mapping[str, str] | None] | None
"""Headers of many events: those of all, or of each."""


def check_key(key: object) -> str:
    """The key itself.

    Raises:
        InvalidArgumentType: it is not a string.
        InvalidArgument: it cannot be written as UTF-8.
    """
    if not isinstance(key, str):
        raise InvalidArgumentType(f"the key is {key!r}; give a string")
    _check_text(key)
    return key


def check_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """A copy of the headers.

    Raises:
        InvalidArgumentType: not a mapping of strings to strings.
        InvalidArgument: one cannot be written as UTF-8.
    """
    if not isinstance(headers, Mapping):
        raise InvalidArgumentType(f"the headers are {headers!r}; give a dict of strings")
    for text in (*headers.keys(), *headers.values()):
        if not isinstance(text, str):
            raise InvalidArgumentType(f"the headers hold {text!r}; give a dict of strings")
        _check_text(text)
    return dict(headers)


def _check_text(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidArgument(f"{text!r} is not valid text: {error.reason}") from None
