"""What groups promise, held against a history.

===============  ==============================================================================
entry            fields
===============  ==============================================================================
`group`          `ordering`, `max_deliveries`: there is one, and it begins with the first event
`handling`       `seq_no`, `key`, `attempt`, `lease`, `value`: a member's handler begins
`handled`        `seq_no`, `lease`, `how`: it ends as `done`, `returned` (a result), or `failed`
`append`         with `acks` and `lease`: a batch of results, which says that their events are done
`stored`         its answer
`settle`         `op`, `seq_nos`, `lease`: the member begins to say that these are done
`settled`        `op`, `is_taken`: the writer's answer
`died`           the member's process
`cut_off`        the writer dropped the pipe of a member that lives: its `leases` are over
`retry`          `seq_nos`: somebody asks for dead letters to be handed out again, now or later
`log`, `keys`    at the end: what is stored, and the key of each event (`None` for results)
`letters`        at the end: the dead letters, `values` by number; `None` without a copy
`drained`        at the end: everything up to `at` is done, or dead
===============  ==============================================================================

What is known of an event, by what its handlers did:

::

    open --> running --> done
      ^       |   |----> returned --> done          (its result is stored)
      |       |                 `---> unknown       (the member died, perhaps before it was)
      `-------'----> dead                           (it failed too often)
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

from tests.simulation.history import Checker

RESULT = "result of "
"""Values of results are `result of NUMBER by LEASE`."""


class GroupChecker(Checker):
    """See the module."""

    def __init__(self) -> None:
        super().__init__()
        self._has_group = False
        self._ordering = ""
        self._max_deliveries = 1
        self._states: defaultdict[int, list[tuple[int, str]]] = defaultdict(lambda: [(0, "open")])
        """Since which step each event was in which state."""
        self._busy: dict[int, tuple[str, int]] = {}
        """Member and lease of what runs, or was returned."""
        self._failures: Counter[int] = Counter()
        self._begun: list[tuple[int, int, str, int]] = []
        """Step, event, member and lease of each delivery."""
        self._leases_of: defaultdict[str, set[int]] = defaultdict(set)
        self._superseded: set[int] = set()
        self._results: dict[int, tuple[Sequence[int], int]] = {}
        self._settling: dict[int, tuple[Sequence[int], int, set[int]]] = {}
        self._retried: set[int] = set()
        self._events: dict[int, str] = {}
        self._keys: dict[int, str | None] = {}
        self._appended: dict[int, str] = {}
        """The value of each event, as far as its producer was answered."""
        self._batches: dict[int, Sequence[str]] = {}
        self._told: list[tuple[str, int, str]] = []
        """Members, the event that each was given, and the value that it had."""

    def on_group(self, who: str, ordering: str, max_deliveries: int) -> None:
        self._has_group = True
        self._ordering, self._max_deliveries = ordering, max_deliveries

    def _state(self, seq_no: int) -> str:
        return self._states[seq_no][-1][1]

    def _set(self, seq_no: int, state: str) -> None:
        self._states[seq_no].append((self._step, state))

    # --- deliveries --------------------------------------------------------------------------

    def on_handling(
        self, who: str, seq_no: int, key: str | None, attempt: int, lease: int, value: str
    ) -> None:
        self._told.append((who, seq_no, value))
        self._leases_of[who].add(lease)
        if lease in self._superseded:
            return  # it does not know yet, and nothing that comes of it counts
        state = self._state(seq_no)
        if state in {"running", "returned"}:
            other, _ = self._busy[seq_no]
            self.blame("two members", f"{who} was given event {seq_no}, which {other} has")
        elif state == "done":
            self.blame("handled again", f"{who} was given event {seq_no}, which is done")
        elif state == "dead":
            self.blame("handled again", f"{who} was given event {seq_no}, which is dead")
        elif state == "perhaps dead":
            self._failures[seq_no] = 0
        wanted = self._failures[seq_no] + 1
        if attempt != wanted:
            self.blame("miscounted", f"event {seq_no}: attempt {attempt} instead of {wanted}")
        self._begun.append((self._step, seq_no, who, lease))
        self._busy[seq_no] = (who, lease)
        self._set(seq_no, "running")

    def on_handled(self, who: str, seq_no: int, lease: int, how: str) -> None:
        if lease in self._superseded:
            return
        if how == "failed":
            self._fail(seq_no)
        else:
            self._set(seq_no, how)

    def _fail(self, seq_no: int) -> None:
        self._busy.pop(seq_no, None)
        is_dead = self._is_last_delivery(seq_no)
        self._failures[seq_no] += 1
        dead = "perhaps dead" if seq_no in self._retried else "dead"
        self._set(seq_no, dead if is_dead else "open")

    def _is_last_delivery(self, seq_no: int) -> bool:
        return self._failures[seq_no] + 1 >= self._max_deliveries

    def on_died(self, who: str) -> None:
        self._supersede(who)

    def on_cut_off(self, who: str, leases: Sequence[int]) -> None:
        self._leases_of[who] |= set(leases)
        self._supersede(who)

    def _supersede(self, who: str) -> None:
        """Its leases end, as its page says."""
        self._superseded |= self._leases_of.pop(who, set())
        mine = [n for n, (member, _) in self._busy.items() if member == who]
        is_shared = sum(self._state(seq_no) == "running" for seq_no in mine) > 1
        for seq_no in mine:
            state = self._state(seq_no)
            if state == "running" and is_shared and self._is_last_delivery(seq_no):
                self._set(seq_no, "open")  # nobody knows which of them it was
            elif state == "running":
                self._fail(seq_no)
            elif state == "returned":
                self._set(seq_no, "unknown")
            self._busy.pop(seq_no, None)

    def on_retry(self, who: str, seq_nos: Sequence[int]) -> None:
        for seq_no in seq_nos:
            self._retried.add(seq_no)
            if self._state(seq_no) == "dead":
                self._set(seq_no, "perhaps dead")

    # --- acknowledgements --------------------------------------------------------------------

    def on_append(self, who: str, batch: int, values: Sequence[str], **fields: Any) -> None:
        self._batches[batch] = values
        if "acks" in fields:
            self._results[batch] = (fields["acks"], fields["lease"])

    def on_stored(self, who: str, batch: int, base: int) -> None:
        self._appended.update(enumerate(self._batches[batch], start=base))
        seq_nos, lease = self._results.get(batch, ((), 0))
        for seq_no in seq_nos:
            if lease not in self._superseded:
                self._busy.pop(seq_no, None)
            if self._is_anothers(seq_no, lease):
                self._blame_superseded(seq_no, lease)
            elif self._state(seq_no) in {"returned", "unknown"}:
                self._set(seq_no, "done")

    def _is_anothers(self, seq_no: int, lease: int) -> bool:
        given = [found for _, number, _, found in self._begun if number == seq_no]
        return lease in self._superseded and bool(given) and given[-1] != lease

    def _blame_superseded(self, seq_no: int, lease: int) -> None:
        self.blame("superseded delivery", f"what lease {lease} says of event {seq_no} counts still")

    def on_settle(self, who: str, op: int, seq_nos: Sequence[int], lease: int) -> None:
        lost = {n for n in seq_nos if self._is_anothers(n, lease)}
        self._settling[op] = (seq_nos, lease, lost)

    def on_settled(self, who: str, op: int, is_taken: bool) -> None:
        seq_nos, lease, lost = self._settling.pop(op)
        if is_taken:
            for seq_no in sorted(lost):
                self._blame_superseded(seq_no, lease)
        elif lease not in self._superseded:
            self.blame("live delivery", f"lease {lease} of {who} was refused: {seq_nos}")

    # --- at the end --------------------------------------------------------------------------

    def on_log(self, who: str, first: int, events: dict[int, str]) -> None:
        self._events = events
        self._appended.update(events)
        for teller, seq_no, value in self._told:
            self._check_value(f"{teller} was given", seq_no, value)
        found = Counter(_of(value)[0] for value in events.values() if value.startswith(RESULT))
        for seq_no, times in found.items():
            if times > 1:
                self.blame("two results", f"event {seq_no} has {times} results")
        for number, value in events.items():
            if value.startswith(RESULT):
                self._check_result(number, *_of(value))

    def _check_value(self, who: str, seq_no: int, value: str) -> None:
        """Handlers may change their event; nobody else sees that."""
        if value and value != self._appended.get(seq_no, value):
            text = f"{who} event {seq_no} as {value!r} instead of {self._appended[seq_no]!r}"
            self.blame("changed event", text)

    def _check_result(self, number: int, seq_no: int, lease: int) -> None:
        given = [(who, found) for _, which, who, found in self._begun if which == seq_no]
        leases = [found for _, found in given]
        if lease in leases and leases[-1] != lease and seq_no not in self._retried:
            self.blame(
                "superseded delivery",
                f"event {number} is a result of lease {lease}; event {seq_no} was {leases[-1]}'s",
            )
        if self._state(seq_no) == "unknown":
            self._set(seq_no, "done")

    def on_keys(self, who: str, keys: dict[int, str | None]) -> None:
        self._keys = keys
        if self._ordering == "key":
            self._check_order()

    def _check_order(self) -> None:
        """When an event of a key began, all those before it were done, or dead."""
        lines: defaultdict[str, list[int]] = defaultdict(list)
        for seq_no, key in self._keys.items():
            if key is not None and seq_no not in self._retried:
                lines[key].append(seq_no)
        for step, seq_no, who, _ in self._begun:
            key = self._keys.get(seq_no)
            if key is None or seq_no in self._retried:
                continue
            for earlier in lines[key]:
                if earlier >= seq_no:
                    break
                state = self._state_at(earlier, step)
                if state not in {"done", "dead"}:
                    self.blame(
                        "key order",
                        f"{who} was given event {seq_no} of key {key} at step {step}, when"
                        f" {earlier} was {state}",
                    )

    def _state_at(self, seq_no: int, step: int) -> str:
        before = [state for since, state in self._states[seq_no] if since <= step]
        if before[-1] in {"returned", "unknown"} and self._has_result(seq_no):
            return "done"  # when the writer had it; its answer came later, or never
        return before[-1]

    def _has_result(self, seq_no: int) -> bool:
        return any(
            value.startswith(RESULT) and _of(value)[0] == seq_no for value in self._events.values()
        )

    def on_letters(self, who: str, values: dict[int, str | None]) -> None:
        seq_nos = values.keys()
        for seq_no, value in values.items():
            if value is not None:
                self._check_value("a dead letter has", seq_no, value)
        dead = {n for n in self._states if self._state(n) == "dead"}
        perhaps = {n for n in self._states if self._state(n) == "perhaps dead"}
        for seq_no in sorted(perhaps & seq_nos):
            self._set(seq_no, "dead")
        for seq_no in sorted(seq_nos - dead - perhaps):
            self.blame("dead letter", f"event {seq_no} is {self._state(seq_no)}, and a dead letter")
        for seq_no in sorted(dead - seq_nos):
            self.blame("dead letter", f"event {seq_no} is dead, and no dead letter")

    def on_drained(self, who: str, at: int) -> None:
        if not self._has_group:
            return
        for number, value in self._events.items():
            state = self._state(number)
            if value.startswith(RESULT):
                if state != "open" or len(self._states[number]) > 1:
                    self.blame("own result", f"event {number}, a result, was handed out")
            elif state not in {"done", "dead"}:
                self.blame("not handled", f"event {number} is {state} in a group that is drained")
        if at < max(self._events, default=0):
            self.blame("not handled", f"the group is at {at} of {max(self._events)}")


def _of(value: str) -> tuple[int, int]:
    number, _, lease = value.removeprefix(RESULT).partition(" by ")
    return int(number), int(lease)
