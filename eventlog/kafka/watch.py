"""The end of the log, for members that wait for new events: a thread that follows it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from confluent_kafka import KafkaException

from eventlog.api.loops import call_in_this_loop
from eventlog.kafka.client import POLL_S, Client
from eventlog.kafka.reading import READ_MAX, Cursor, Truncated
from eventlog.kafka.refusals import is_unknown_topic

PAUSE_S = 0.1


class EndWatch:
    """The watch over one log's end; it begins with the first call, at the end as that is known."""

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
        """Have `call` called in this event loop once there is a later event than `last`.

        Raises:
            StorageFailed: the topic cannot be followed.
        """
        call_here = call_in_this_loop(call)
        with self._lock:
            if self.last > last:
                call_here()
                return
            self._waiting.append(call_here)
        if self._thread is None:
            cursor = Cursor(self._client, self._topic, is_waiting=True)
            self._thread = threading.Thread(
                target=self._run, args=(cursor, last), name="eventlog-watch", daemon=True
            )
            self._thread.start()

    def close(self) -> None:
        """End the thread."""
        self._is_closed = True

    def _run(self, cursor: Cursor, following: int) -> None:
        try:
            while not self._is_closed:
                try:
                    following = self._follow(cursor, following)
                except KafkaException as raised:
                    if is_unknown_topic(raised):
                        self._note(self.last)  # whoever waits looks, and is told
                    time.sleep(PAUSE_S)  # the library tries again by itself
        finally:
            cursor.close()

    def _follow(self, cursor: Cursor, following: int) -> int:
        """Wait for what comes, for a while; what to follow from then on."""
        try:
            messages = cursor.poll(following, READ_MAX, POLL_S)
        except Truncated:
            end = cursor.end_offset()
        else:
            stored = [int(one.offset() or 0) for one in messages if one.error() is None]
            end = stored[-1] + 1 if stored else 0
        if end:
            self._note(end)
        return end or following

    def _note(self, last: int) -> None:
        with self._lock:
            self.note_last(last)
            waiting, self._waiting = self._waiting, []
        for call in waiting:
            call()
