"""The range of events that a statement can need at most, out of its WHERE. Pure.

DuckDB asks an Arrow stream for all of its rows, and leaves out then what the WHERE refuses. So the
bounds are taken out of the parsed statement before anything is read: those of `seq_no`, and from
when on `stored_at` has to be. Only where that is sure: one SELECT from `events` alone, which its
WHERE, or the parts of it that are joined by AND, compares with values that are no columns.
Whatever else there is bounds nothing, and the statement means the same either way.

An upper bound of `stored_at` is none of these: where a clock was set back, later events may have
earlier times.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any, Final, NamedTuple, TypeVar

TABLE: Final = "events"
T = TypeVar("T", int, datetime)
_NUMBER: Final = "seq_no"
_TIME: Final = "stored_at"
_FLIPPED: Final = {
    "COMPARE_GREATERTHAN": "COMPARE_LESSTHAN",
    "COMPARE_GREATERTHANOREQUALTO": "COMPARE_LESSTHANOREQUALTO",
    "COMPARE_LESSTHAN": "COMPARE_GREATERTHAN",
    "COMPARE_LESSTHANOREQUALTO": "COMPARE_GREATERTHANOREQUALTO",
    "COMPARE_EQUAL": "COMPARE_EQUAL",
}
_FIXED: Final = {"CONSTANT", "CAST", "FUNCTION", "TYPE"}
_FUNCTIONS: Final = {
    *("+", "-", "now", "get_current_timestamp", "current_timestamp", "today", "current_date"),
    *("to_seconds", "to_minutes", "to_hours", "to_days", "to_weeks", "to_months", "to_years"),
    *("trunc", "date_trunc"),
}
"""They give one value to the whole of a statement."""

Value = Callable[[Any], Any]
"""What an expression of a parsed statement, which has no columns, is worth."""


class Limits(NamedTuple):
    """Events outside of these are of no use to a statement."""

    start: int | None = None
    """The first number."""
    stop: int | None = None
    """The number after the last one."""
    since: datetime | None = None
    """The time of storing of the first one."""

    def and_also(self, other: Limits) -> Limits:
        """What both leave."""
        return Limits(
            _either(max, self.start, other.start),
            _either(min, self.stop, other.stop),
            _either(max, self.since, other.since),
        )


def _either(choose: Callable[[T, T], T], one: T | None, other: T | None) -> T | None:
    if one is None or other is None:
        return other if one is None else one
    return choose(one, other)


def limits_of(parsed: Any, value_of: Value) -> Limits:
    """The limits in a statement, as `json_serialize_sql` writes it."""
    limits = Limits()
    where = _where_of(parsed)
    if where is not None:
        for part in _parts(where):
            limits = limits.and_also(_limits_of_part(part, value_of))
    return limits


def _where_of(parsed: Any) -> Any:
    """The condition of a statement that reads `events` once and nothing else; else nothing."""
    try:
        (statement,) = parsed["statements"]
        node = statement["node"]
        table = node["from_table"]
        is_simple = (
            node["type"] == "SELECT_NODE"
            and not node["cte_map"]["map"]
            and table["type"] == "BASE_TABLE"
            and table["table_name"].lower() == TABLE
            and not table["alias"]
            and not table["sample"]
            and not node["sample"]
            and not any(one["alias"].lower() in (_NUMBER, _TIME) for one in node["select_list"])
            and _count_of_tables(node) == 1
        )
        return node["where_clause"] if is_simple else None
    except (KeyError, TypeError, ValueError, AttributeError):  # another version's form
        return None


def _count_of_tables(node: Any) -> int:
    if isinstance(node, dict):
        return ("table_name" in node) + sum(map(_count_of_tables, node.values()))
    return sum(map(_count_of_tables, node)) if isinstance(node, list) else 0


def _parts(where: Any) -> Iterator[Any]:
    if where.get("type") == "CONJUNCTION_AND":
        for child in where["children"]:
            yield from _parts(child)
    else:
        yield where


def _limits_of_part(part: Any, value_of: Value) -> Limits:
    if part.get("type") == "COMPARE_BETWEEN":
        low = _limits_by("COMPARE_GREATERTHANOREQUALTO", part["input"], part["lower"], value_of)
        return low.and_also(
            _limits_by("COMPARE_LESSTHANOREQUALTO", part["input"], part["upper"], value_of)
        )
    if part.get("class") != "COMPARISON" or part["type"] not in _FLIPPED:
        return Limits()
    left, right = part["left"], part["right"]
    if left.get("class") == "COLUMN_REF":
        return _limits_by(part["type"], left, right, value_of)
    return _limits_by(_FLIPPED[part["type"]], right, left, value_of)


def _limits_by(comparison: str, column: Any, other: Any, value_of: Value) -> Limits:
    name = _column_of(column)
    if name is None or not _is_fixed(other):
        return Limits()
    value = value_of(other)
    has_low = not comparison.startswith("COMPARE_LESSTHAN")
    if name == _TIME:
        return Limits(since=value) if has_low and isinstance(value, datetime) else Limits()
    if not isinstance(value, int) or isinstance(value, bool):
        return Limits()
    start, stop = {
        "COMPARE_GREATERTHAN": (value + 1, None),
        "COMPARE_GREATERTHANOREQUALTO": (value, None),
        "COMPARE_LESSTHAN": (None, value),
        "COMPARE_LESSTHANOREQUALTO": (None, value + 1),
        "COMPARE_EQUAL": (value, value + 1),
    }[comparison]
    return Limits(start, stop)


def _column_of(node: Any) -> str | None:
    names = node.get("column_names") if node.get("class") == "COLUMN_REF" else None
    if not isinstance(names, list) or not all(isinstance(one, str) for one in names):
        return None
    *table, name = [one.lower() for one in names]
    return name if name in (_NUMBER, _TIME) and table in ([], [TABLE]) else None


def _is_fixed(node: Any) -> bool:
    """Whether an expression has no columns, and one value for the whole of a statement."""
    if isinstance(node, list):
        return all(map(_is_fixed, node))
    if not isinstance(node, dict):
        return True
    if node.get("class") not in (None, *_FIXED):
        return False
    name = node.get("function_name")
    return (name is None or name in _FUNCTIONS) and all(map(_is_fixed, node.values()))
