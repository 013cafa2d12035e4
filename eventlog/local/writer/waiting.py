"""Peers that wait for a number, and appends that wait until enough is known of their keys.

The first conditional append to a log begins what is known of keys, and an index may have to be made
before its answer is known. Until then it waits here, and everybody else's appends go on. Whether
the log is as expected is decided in the step that stores the batch, so nothing comes in between.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterator
from itertools import count

from msgspec.structs import replace

from eventlog.api.expectation import Expectation
from eventlog.config import MAX_IN_FLIGHT_LIMIT
from eventlog.errors import EventLogError, ProtocolError
from eventlog.event.record_batch import PackedBatch
from eventlog.local.storage.log.last_of_keys import LastOfKeys, NotIndexed
from eventlog.local.storage.log.writable import WritableLog
from eventlog.local.wire.connection import Peer
from eventlog.local.wire.messages import Append, AppendIf, Wake

AnyAppend = Append | AppendIf
Entry = tuple[Peer, AnyAppend]


class Waiting:
    """Peers that wait for a mark to reach a number of theirs."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, Peer, int]] = []
        self._tickets = count()

    def add(self, peer: Peer, request_id: int, seq_no: int) -> None:
        """Wake the peer once the mark is there."""
        heapq.heappush(self._heap, (seq_no, next(self._tickets), peer, request_id))

    def __len__(self) -> int:
        """How many there are."""
        return len(self._heap)

    def wake(self, mark: int) -> int:
        """Answer all who waited for the mark to be where it is now; how many they were."""
        before = len(self._heap)
        while self._heap and self._heap[0][0] <= mark:
            _, _, peer, request_id = heapq.heappop(self._heap)
            peer.say(Wake(request_id, mark))
        return before - len(self._heap)

    def forget(self, peer: Peer) -> None:
        """Drop what a peer that is gone was waiting for."""
        kept = [ticket for ticket in self._heap if ticket[2] is not peer]
        if len(kept) != len(self._heap):
            heapq.heapify(kept)
            self._heap = kept


class Expecting:
    """The conditional appends of one writer; `on_wanted` is called when an index is to be made."""

    def __init__(self, log: WritableLog, on_wanted: Callable[[], None]) -> None:
        self._log = log
        self.on_wanted = on_wanted
        self._waiting: deque[Entry] = deque()
        self._ready: AnyAppend | None = None
        """The one that has waited, and whose turn it is."""

    def __len__(self) -> int:
        """How many wait."""
        return len(self._waiting)

    def admits(self, peer: Peer, message: AppendIf) -> bool:
        """Whether the batch may be stored; if that is not known yet, it waits.

        Raises:
            WrongExpectation: it may not.
            CorruptLog, StorageFailed: nobody can tell.
        """
        last = message.base_seq_no - 1 if message.base_seq_no else None
        expected = Expectation(last, message.last_seq_nos)
        log = self._log
        try:
            if not expected.of_keys:
                expected.check(log.directory, log.last_seq_no, _no_key)
                return True
            keys = self._keys()
            if message is self._ready or keys.is_quick(expected.of_keys):
                expected.check(log.directory, log.last_seq_no, keys.find)
                return True
        except NotIndexed:
            pass
        self.defer(peer, message)
        return False

    def _keys(self) -> LastOfKeys:
        keys = self._log.keep_keys()
        keys.on_full = self.on_wanted
        return keys

    def holds_before(self, peer: Peer, message: AnyAppend) -> bool:
        """Whether an earlier append of the producer waits: so does this one, to keep the order."""
        return bool(self._waiting) and any(
            waiting is peer and one.producer_seq < message.producer_seq
            for waiting, one in self._waiting
        )

    def defer(self, peer: Peer, message: AnyAppend) -> None:
        """Let an append wait until those before it are stored or refused.

        Raises:
            ProtocolError: the peer has more batches on their way than it may.
        """
        put_in_turn(self._waiting, peer, message)
        if len(self._waiting) == 1:
            self.on_wanted()

    def stored(self, message: AppendIf, batch: PackedBatch, base_seq_no: int) -> None:
        """The batch is stored: the numbers of its keys are known, if it has several."""
        if batch.count > 1 and message.last_seq_nos and self._log.keys is not None:
            self._log.keys.learn(batch, base_seq_no, message.last_seq_nos)

    def working(self, resume: Callable[[Entry, EventLogError | None], None]) -> Iterator[None]:
        """Make what is wanted, step by step; `resume` is given each append when it is ready.

        Other messages are carried out between the steps.
        """
        while self._waiting:
            entry = self._waiting[0]
            error: EventLogError | None = None
            try:
                if isinstance(entry[1], AppendIf):
                    yield from self._look_up(entry[1])
            except EventLogError as caught:
                error = caught
            if self._waiting and self._waiting[0] is entry:  # else its peer is gone
                self._waiting.popleft()
                self._ready = entry[1]
                resume(entry, error)
                self._ready = None
        if self._log.keys is not None:
            yield from self._log.keys.save()

    def _look_up(self, message: AppendIf) -> Iterator[None]:
        """Look up all the keys, so that their numbers are known when it is stored."""
        keys = self._keys()
        for key in message.last_seq_nos:
            while True:
                try:
                    keys.find(key)
                    break
                except NotIndexed as missing:
                    yield from keys.index(missing.base_seq_no)
            yield

    def forget_peer(self, peer: Peer) -> None:
        """Drop what a peer that is gone was waiting for; if it lives, it repeats it."""
        self._waiting = deque(entry for entry in self._waiting if entry[0] is not peer)


def _no_key(key: str) -> int:
    raise AssertionError(key)


def put_in_turn(waiting: deque[Entry], peer: Peer, message: AnyAppend) -> None:
    """Put an append behind all others, but before the later ones of its producer.

    Raises:
        ProtocolError: the peer has more batches on their way than it may.
    """
    places = [place for place, entry in enumerate(waiting) if entry[0] is peer]
    if len(places) >= MAX_IN_FLIGHT_LIMIT:
        raise ProtocolError(f"more than {MAX_IN_FLIGHT_LIMIT} batches in flight")
    later = (one for one in places if waiting[one][1].producer_seq > message.producer_seq)
    # Until then its bytes may lie where the next message is received.
    kept = replace(message, payload=bytes(message.payload))
    waiting.insert(next(later, len(waiting)), (peer, kept))
