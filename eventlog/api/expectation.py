"""`Expectation`: what a conditional append expects of the log that it is stored in. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sized
from typing import NamedTuple

from eventlog.api.positions import SEQ_NO_MAX, whole_number
from eventlog.api.refusals import wrong_expectation, wrong_last
from eventlog.config import BATCH_EVENTS_LIMIT
from eventlog.errors import EventLogError, EventTooLarge, InvalidArgument, InvalidArgumentType
from eventlog.event.envelope import EventEnvelope
from eventlog.event.texts import check_key


class Expectation(NamedTuple):
    """The last numbers that an append expects; it is stored only if all of them are right."""

    last: int | None = None
    """Last number of the whole log; 0: it is empty. `None`: whatever it is."""
    of_keys: dict[str, int] = {}  # noqa: RUF012 - nobody changes one
    """Last number of each key that is named; 0: no event of it is stored."""

    @classmethod
    def of_event(
        cls, event: object, key: str | None, expect: object, expect_last: object
    ) -> Expectation | None:
        """What an `append` was given, checked; `None` for nothing.

        Raises:
            InvalidArgument, InvalidArgumentType: a number is none, or the event has no key.
        """
        if expect is None:
            return cls.of_events(None, expect_last)
        if key is None and isinstance(event, EventEnvelope):
            key = event.key
        if key is None:
            raise InvalidArgument(
                "expect= is the number of the last event of a key; give key=, or expect_last= for"
                " the whole log"
            )
        return cls(_checked_last(expect_last), {check_key(key): _checked(expect, "expect")})

    @classmethod
    def of_events(cls, expect: object, expect_last: object) -> Expectation | None:
        """What an `append_many` was given, checked; `None` for nothing.

        Raises:
            EventTooLarge: more keys are named than one batch has events.
            InvalidArgument, InvalidArgumentType: it is no mapping of keys to numbers.
        """
        try:
            return cls._of_events(expect, expect_last)
        except EventLogError as error:
            error.stored = 0
            raise

    @classmethod
    def _of_events(cls, expect: object, expect_last: object) -> Expectation | None:
        if expect is None:
            return None if expect_last is None else cls(_checked_last(expect_last))
        if not isinstance(expect, Mapping):
            raise InvalidArgumentType(
                f"expect={expect!r:.80}; give a dict with the number that each key has"
            )
        if not expect:
            raise InvalidArgument("expect is empty; name one key or more, or leave it out")
        if len(expect) > BATCH_EVENTS_LIMIT:
            raise EventTooLarge(
                f"expect names {len(expect)} keys; one batch may name {BATCH_EVENTS_LIMIT}"
            )
        numbers = {
            check_key(key): _checked(number, f"expect[{key!r:.200}]")
            for key, number in expect.items()
        }
        return cls(_checked_last(expect_last), numbers)

    def check(self, path: str, last: int, last_of: Callable[[str], int]) -> None:
        """Pass if the log is as expected; `last_of` gives the last number of a key, or 0.

        Raises:
            WrongExpectation: it is not.
        """
        if self.last not in (None, last):
            raise wrong_last(path, self.last, last)
        for key, expected in self.of_keys.items():
            found = last_of(key)
            if found != expected:
                raise wrong_expectation(path, key, expected, found)


def check_one_batch(batches: Sized, path: str) -> None:
    """Pass if the events of a conditional append are one batch, which alone is atomic.

    Raises:
        EventTooLarge: they are more.
    """
    if len(batches) > 1:
        raise EventTooLarge(
            f"the events take {len(batches)} batches, and a conditional append to the log {path} is"
            " one: give fewer or smaller events",
            path=path,
            stored=0,
        )


def _checked_last(number: object) -> int | None:
    return None if number is None else _checked(number, "expect_last")


def _checked(given: object, name: str) -> int:
    number = whole_number(given)
    if number is None:
        raise InvalidArgumentType(f"{name} is {given!r:.80}; give a whole number")
    if not 0 <= number <= SEQ_NO_MAX:
        raise InvalidArgument(
            f"{name} is {number}; give the number of the last event that is stored, or 0 for none"
        )
    return number
