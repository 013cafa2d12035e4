"""`--where`: an expression over the fields of an envelope.

Python's parser reads it, and a list of what is allowed makes small functions of it. Nothing is
evaluated as Python: names are fields, a dot and brackets look into mappings and lists, and what is
not there is null. A comparison of values that have no order is false. Size and depth are bounded.
"""

from __future__ import annotations

import ast
import operator
import re
import warnings
from collections.abc import Callable
from typing import Any, Final

from rich.cells import cell_len

from eventlog.errors import InvalidArgument
from eventlog.event.envelope import EventEnvelope
from eventlog.terminal.fields import FIELDS, TIMES, Field, Piece, inside
from eventlog.terminal.positions import moment_of
from eventlog.terminal.printing import clean

CHARACTERS_MAX: Final = 2000
DEPTH_MAX: Final = 30
CONSTANTS: Final = {"null": None, "true": True, "false": False}
"""As JSON spells them; Python's own names are good too."""
ALLOWED: Final = (
    "write comparisons, and, or, not, in, parentheses, numbers, 'texts', [lists], len(...),"
    " startswith(..., ...), and fields such as key, headers.name, event.name and event['from']"
)

Compare = Callable[[Any, Any], bool]


def where_of(text: str) -> Callable[[EventEnvelope], bool]:
    """A function that says whether an envelope is meant.

    Raises:
        InvalidArgument: the expression is wrong; the message shows where.
    """
    line = re.sub(r"[\r\n\f\v]", " ", text).strip()
    if len(line) > CHARACTERS_MAX:
        raise InvalidArgument(
            f"--where has {len(line):,} characters; give at most {CHARACTERS_MAX:,}"
        )
    try:
        value = _read(_parsed(line), 0)
    except _Wrong as wrong:
        before = cell_len(clean(line[: wrong.place]))
        raise InvalidArgument(
            f"--where: {wrong.reason}\n  {clean(line)}\n  {' ' * before}^"
        ) from None
    return lambda envelope: bool(value(envelope))


class _Wrong(Exception):
    """The expression is wrong, at a character of it."""

    def __init__(self, reason: str, place: int) -> None:
        super().__init__(reason)
        self.reason = reason
        self.place = place


def _parsed(line: str) -> ast.expr:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Python's compiler, which nobody asked
            tree = ast.parse(line, mode="eval")
    except SyntaxError as error:
        place = (error.offset or len(line) + 1) - 1  # 0 is said of what is missing at the end
        raise _Wrong(f"{error.msg}; {ALLOWED}", place) from None
    except (ValueError, RecursionError, MemoryError):
        raise _Wrong(f"this is no expression; {ALLOWED}", 0) from None
    _number_characters(tree, line)
    return tree.body


def _number_characters(tree: ast.AST, line: str) -> None:
    """Count the places of all nodes in characters; the parser counts bytes."""
    encoded = line.encode()
    for node in ast.walk(tree):
        if isinstance(node, ast.expr):
            node.col_offset = len(encoded[: node.col_offset].decode())


def _read(node: ast.expr, depth: int) -> Field:
    read = READERS.get(type(node))
    if read is None:
        raise _Wrong(f"this is not understood; {ALLOWED}", node.col_offset)
    if depth > DEPTH_MAX:
        raise _Wrong(f"more than {DEPTH_MAX} levels are nested; write less", node.col_offset)
    return read(node, depth + 1)


def _read_constant(node: ast.Constant, _depth: int) -> Field:
    value = node.value
    if value is not None and not isinstance(value, str | int | float):
        raise _Wrong(f"{ast.unparse(node)} is no text and no number", node.col_offset)
    return lambda _envelope: value


def _read_name(node: ast.Name, _depth: int) -> Field:
    if node.id in CONSTANTS:
        value = CONSTANTS[node.id]
        return lambda _envelope: value
    if node.id not in FIELDS:
        raise _Wrong(
            f"there is no field {node.id!r}; there are {', '.join(FIELDS)}", node.col_offset
        )
    return FIELDS[node.id]


def _read_attribute(node: ast.Attribute, depth: int) -> Field:
    return _piece_of(_read(node.value, depth), node.attr)


def _read_subscript(node: ast.Subscript, depth: int) -> Field:
    piece = _literal(node.slice)
    if isinstance(piece, bool) or not isinstance(piece, str | int):
        raise _Wrong("in brackets stands a 'name' or a number", node.slice.col_offset)
    return _piece_of(_read(node.value, depth), piece)


def _literal(node: ast.expr) -> Any:
    match node:
        case ast.Constant(value=value):
            return value
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)):
            return -value
    return None


def _piece_of(whole: Field, piece: Piece) -> Field:
    return lambda envelope: inside(whole(envelope), piece)


def _read_list(node: ast.List | ast.Tuple, depth: int) -> Field:
    values = [_read(one, depth) for one in node.elts]
    return lambda envelope: [value(envelope) for value in values]


def _read_unary(node: ast.UnaryOp, depth: int) -> Field:
    if isinstance(node.op, ast.Not):
        value = _read(node.operand, depth)
        return lambda envelope: not value(envelope)
    number = _literal(node)
    if number is None:
        raise _Wrong("a sign stands before a number only", node.col_offset)
    return lambda _envelope: number


def _read_bool(node: ast.BoolOp, depth: int) -> Field:
    values = [_read(one, depth) for one in node.values]
    decide = all if isinstance(node.op, ast.And) else any
    return lambda envelope: decide(value(envelope) for value in values)


def _is_in(one: Any, many: Any) -> bool:
    return one in many


COMPARISONS: Final[dict[type[ast.cmpop], tuple[Compare, bool]]] = {
    ast.Eq: (operator.eq, True),
    ast.NotEq: (operator.eq, False),
    ast.Lt: (operator.lt, True),
    ast.LtE: (operator.le, True),
    ast.Gt: (operator.gt, True),
    ast.GtE: (operator.ge, True),
    ast.In: (_is_in, True),
    ast.NotIn: (_is_in, False),
}
"""What is asked of two values, and the answer that makes the comparison true."""


def _read_compare(node: ast.Compare, depth: int) -> Field:
    pairs = []
    for left, kind, right in zip(
        [node.left, *node.comparators], node.ops, node.comparators, strict=False
    ):
        if type(kind) not in COMPARISONS:
            raise _Wrong("compare with == or != instead of `is`", node.col_offset)
        sides = _read_side(left, right, depth), _read_side(right, left, depth)
        pairs.append((*sides, *COMPARISONS[type(kind)]))

    def is_so(envelope: EventEnvelope) -> bool:
        return all(
            _answer(compare, one(envelope), other(envelope)) is wanted
            for one, other, compare, wanted in pairs
        )

    return is_so


def _answer(compare: Compare, one: Any, other: Any) -> bool:
    try:
        return bool(compare(one, other))
    except TypeError:  # they have no order, or the other one holds nothing
        return False


def _read_side(node: ast.expr, other: ast.expr, depth: int) -> Field:
    """A side of a comparison; a text beside a time is a time, or how long ago."""
    is_beside_time = isinstance(other, ast.Name) and other.id in TIMES
    if not (is_beside_time and isinstance(node, ast.Constant) and isinstance(node.value, str)):
        return _read(node, depth)
    try:
        moment = moment_of(node.value)
    except InvalidArgument as error:
        raise _Wrong(str(error), node.col_offset) from None
    return lambda _envelope: moment


def _length(value: Any) -> int | None:
    return len(value) if isinstance(value, str | bytes | list | dict) else None


def _starts_with(value: Any, start: Any) -> bool:
    return isinstance(value, str) and isinstance(start, str) and value.startswith(start)


FUNCTIONS: Final[dict[str, tuple[Callable[..., Any], int]]] = {
    "len": (_length, 1),
    "startswith": (_starts_with, 2),
}
"""What may be called, and with how many values."""


def _read_call(node: ast.Call, depth: int) -> Field:
    name = node.func.id if isinstance(node.func, ast.Name) else ""
    call, count = FUNCTIONS.get(name, (None, 0))
    if call is None:
        raise _Wrong("only len(VALUE) and startswith(VALUE, TEXT) are called", node.col_offset)
    if len(node.args) != count or node.keywords:
        raise _Wrong(f"{name} takes {count} value{'s' * (count > 1)}", node.col_offset)
    values = [_read(one, depth) for one in node.args]
    return lambda envelope: call(*(value(envelope) for value in values))


READERS: Final[dict[type[ast.expr], Callable[[Any, int], Field]]] = {
    ast.Attribute: _read_attribute,
    ast.BoolOp: _read_bool,
    ast.Call: _read_call,
    ast.Compare: _read_compare,
    ast.Constant: _read_constant,
    ast.List: _read_list,
    ast.Name: _read_name,
    ast.Subscript: _read_subscript,
    ast.Tuple: _read_list,
    ast.UnaryOp: _read_unary,
}
"""What an expression may hold, and nothing else."""
