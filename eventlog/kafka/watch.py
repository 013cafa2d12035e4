"""The end of the log, for members that wait for new events: a thread that follows it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from confluent_kafka import KafkaException

from eventlog.api.loops import call_in_this_loop
from eventlog.errors import EventLogError
from eventlog.kafka.client import POLL_S, Client
from eventlog.kafka.reading import READ_MAX, Cursor, Truncated

PAUSE_S = 0.1


class EndWatch:
    """See the module; it begins with the first call, at the end as that is known."""

    def __init__(self, client: Client, topic: str) -> None:
        self._client = client
        self._topic = topic
        self.last = 0
        """The last event that is known."""
        self._lock = threading.Lock()
        self._waiting: list[Callable[[], object]] = []
        self._thread: threading.Thread | None = None
        self._is_closed = False

    def note_last(self, last: int) -> None:
        """There is such an event."""
        self.last = max(self.last, last)

    def call_when_beyond(self, last: int, call: Callable[[], object]) -> None:
        """Have `call` called in this event loop once there is a later event than `last`."""
        call_here = call_in_this_loop(call)
        with self._lock:
            if self.last > last:
                call_here()
                return
            self._waiting.append(call_here)
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="eventlog-watch", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """End the thread."""
        self._is_closed = True

    def _run(self) -> None:
        cursor: Cursor | None = None
        following = self.last
        try:
            while not self._is_closed:
                cursor = cursor or Cursor(self._client, self._topic, is_waiting=True)
                try:
                    messages = cursor.poll(following, READ_MAX, POLL_S)
                except Truncated:
                    following = cursor.end_offset()
                    cursor.close()
                    cursor = None
                    self._note(following)
                except KafkaException:
                    time.sleep(PAUSE_S)  # the library tries again by itself
                else:
                    stored = [one.offset() or 0 for one in messages if one.error() is None]
                    if stored:
                        following = stored[-1] + 1
                        self._note(following)
        except (EventLogError, KafkaException):
            self._note(self.last)  # whoever waits looks, and is told why
        finally:
            if cursor is not None:
                cursor.close()

    def _note(self, last: int) -> None:
        with self._lock:
            self.note_last(last)
            waiting, self._waiting = self._waiting, []
        for call in waiting:
            call()
