"""What conditional appends promise, held against a history.

=============  ================================================================================
entry          fields
=============  ================================================================================
`append`       `batch`, `values`, and of a conditional one `expect`: the last number of each key
`stored`       `batch`, `base`
`wrong`        `batch`, `key`, `last`: refused, since that is the number which the key has
`log`          `first`, `events` (value by number): what is stored at the end
`key_of`       `keys`, by value; of results that are deleted by then nobody knows
=============  ================================================================================

Retention deletes the first events, so of those before `first` only some are known.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tests.simulation.history import Checker

Value = str


class ExpectationChecker(Checker):
    """See the module; all is judged at the end."""

    def __init__(self) -> None:
        super().__init__()
        self._values: dict[int, Sequence[Value]] = {}
        self._expected: dict[int, dict[str, int]] = {}
        self._bases: dict[int, int] = {}
        self._wrong: list[tuple[int, str, int]] = []
        self._at: dict[int, Value] = {}
        self._first = 1

    def on_append(
        self, who: str, batch: int, values: Sequence[Value], expect: Any = None, **_: Any
    ) -> None:
        self._values[batch] = values
        if expect is not None:
            self._expected[batch] = expect

    def on_stored(self, who: str, batch: int, base: int) -> None:
        self._bases[batch] = base
        self._at.update(enumerate(self._values[batch], base))

    def on_wrong(self, who: str, batch: int, key: str, last: int) -> None:
        self._wrong.append((batch, key, last))

    def on_log(self, who: str, first: int, events: dict[int, Value]) -> None:
        self._first = first
        self._at.update(events)
        number_of = {value: number for number, value in events.items()}
        for batch, values in self._values.items():
            if values[0] in number_of:
                self._bases[batch] = number_of[values[0]]

    def on_key_of(self, who: str, keys: dict[Value, str | None]) -> None:
        key_at = {number: keys[value] for number, value in self._at.items() if value in keys}
        for batch, expected in self._expected.items():
            if batch in self._bases:
                for key, number in expected.items():
                    self._check_stored(batch, key, number, key_at)
        for batch, key, last in self._wrong:
            if last == self._expected[batch][key]:
                self.blame("wrong refusal", f"batch {batch} expected {last} of {key!r}, as it was")
            if last and key_at.get(last, key) != key:
                self.blame(
                    "wrong refusal", f"batch {batch}: event {last} is not of the key {key!r}"
                )

    def _check_stored(
        self, batch: int, key: str, number: int, key_at: dict[int, str | None]
    ) -> None:
        """No event of the key stands between the expected one and the batch."""
        base = self._bases[batch]
        after = max(number, self._first - 1 if not number else 0)
        between = [at for at, one in key_at.items() if after < at < base and one == key]
        if between:
            self.blame(
                "broken expectation",
                f"batch {batch} is at {base} and expected {number} of {key!r}, which has {between}",
            )
        if number >= base or (number and key_at.get(number, key) != key):
            self.blame(
                "broken expectation", f"batch {batch}: event {number} is not of the key {key!r}"
            )
