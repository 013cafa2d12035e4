"""Peers that wait for a number, and are woken when it is there."""

from __future__ import annotations

import heapq
from itertools import count

from eventlog.local.wire.messages import Wake
from eventlog.local.wire.peer import Peer


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
