"""Arrays as payloads: any object with the buffer protocol, its values as they lie in memory. Pure.

An array is an extension of MessagePack of type 2, without pickling::

    +-------------+-------------------+------------+------------------+------------------------+
    | length of   | dtype, as numpy   | dimensions | size of each     | values, in C order     |
    | dtype (1)   | writes it: "<f8"  | (1)        | (8, each)        |                        |
    +-------------+-------------------+------------+------------------+------------------------+

Numbers are little-endian. The dtype says the byte order of the values, their kind (`b`: bool, `i`:
signed, `u`: unsigned, `f`: float, `c`: complex) and their bytes; "|" is no order.

numpy is used if the program has imported it, and never imported. Without it, an array that
`memoryview` cannot describe is read as the extension that it is: complex numbers, floats of two
bytes, another byte order, an empty array of several dimensions.
"""

from __future__ import annotations

import math
import struct
import sys
from typing import Any, Final, NamedTuple

from eventlog.event.bad_values import type_name

ARRAY_EXTENSION: Final = 2
DIMENSIONS_MAX: Final = 64
"""As many as `memoryview` and numpy know."""
_KINDS: Final = {
    **dict.fromkeys("bhilqn", "i"),
    **dict.fromkeys("BHILQN", "u"),
    **dict.fromkeys(("e", "f", "d"), "f"),
    **dict.fromkeys(("Zf", "Zd"), "c"),
    "?": "b",
    "c": "u",
}
"""The kind of each format of the buffer protocol."""
_NO_ARRAYS: Final = frozenset({"msgspec.Raw", "numpy.datetime64", "numpy.timedelta64"})
"""Types with the buffer protocol whose bytes do not say what they are."""
_NATIVE: Final = "<" if sys.byteorder == "little" else ">"
_ORDERS: Final = {"@": _NATIVE, "=": _NATIVE, "<": "<", ">": ">", "!": ">"}
_FORMATS: Final = {
    **{f"i{struct.calcsize(code)}": code for code in "bhiq"},
    **{f"u{struct.calcsize(code)}": code for code in "BHIQ"},
    "f4": "f",
    "f8": "d",
    "b1": "?",
}
"""The format with which `memoryview` reads a dtype, without its byte order."""


class PackedArray(NamedTuple):
    """An array on its way: what stands before its values, and these."""

    header: bytes
    values: bytes

    @property
    def size(self) -> int:
        """The bytes of the extension."""
        return len(self.header) + len(self.values)


def is_plain_bytes(view: memoryview) -> bool:
    """Whether it is stored as bytes, not as an array."""
    return view.format == "B" and view.ndim == 1


def packed_array(value: Any) -> PackedArray | None:
    """The array, its values copied; `None` for what is none, or only has bytes to show.

    Raises:
        TypeError: it is one that cannot be stored.
    """
    if type_name(value) in _NO_ARRAYS:
        return None
    try:
        view = memoryview(value)
    except TypeError:
        return None
    except (ValueError, BufferError) as error:  # numpy's, for dtypes without a format
        raise TypeError(_advice(value, str(error))) from None
    if view.ndim == 0:
        return None  # a number of numpy's
    dtype = _dtype_of(value, view)
    return PackedArray(array_data(dtype, list(view.shape or ()), b""), view.tobytes())


def _dtype_of(value: Any, view: memoryview) -> str:
    code = view.format or "B"
    order = _ORDERS.get(code[0])
    if order is not None:
        code = code[1:]
    kind = _KINDS.get(code)
    if kind is None:
        raise TypeError(_advice(value, f"its format is {view.format!r}"))
    return f"{'|' if view.itemsize == 1 else order or _NATIVE}{kind}{view.itemsize}"


def _advice(value: Any, why: str) -> str:
    return (
        f"a {type_name(value)} cannot be stored ({why}): give an array of bools, whole numbers,"
        " floats or complex numbers, one for each field; view times as whole numbers"
    )


def array_view(data: memoryview) -> memoryview:
    """The array in the data of an extension, as a view with its format and sizes.

    Raises:
        ValueError: the data is no array, or one that is read with numpy.
    """
    dtype, sizes, values = _parts_of(data)
    code = _FORMATS.get(dtype[1:]) if dtype[0] in ("|", _NATIVE) else None
    if code is not None and (len(sizes) == 1 or 0 not in sizes):
        cast: Any = values.cast  # its types know no format that is worked out
        view: memoryview = cast("@" + code) if len(sizes) == 1 else cast(code, sizes)
        return view  # "@B" tells an array from a view of bytes
    numpy = sys.modules.get("numpy")
    if numpy is None:
        raise ValueError(f"an array of {dtype} and {sizes} is read with numpy")
    view = numpy.frombuffer(values, dtype).reshape(sizes).data
    return view  # noqa: RET504 - the name gives the type


def fields_of(view: memoryview) -> tuple[str, list[int], bytes]:
    """The dtype, the sizes and the values of an array.

    Raises:
        TypeError: it cannot be stored.
    """
    return _dtype_of(view, view), list(view.shape or ()), view.tobytes()


class _Picklable:
    """An array on its way through `pickle` or `copy.deepcopy`, which take no `memoryview`."""

    def __init__(self, view: memoryview) -> None:
        self._view = view

    def __reduce__(self) -> tuple[Any, ...]:
        """What makes the view again."""
        if is_plain_bytes(self._view):
            return memoryview, (self._view.tobytes(),)
        return _unpickled, (array_data(*fields_of(self._view)),)


def _unpickled(data: bytes) -> Any:
    from eventlog.event.payload import unpack_extension  # which imports this module

    return unpack_extension(ARRAY_EXTENSION, data)


def picklable(value: Any) -> Any:
    """A payload, or what has payloads in it, with arrays in a form that becomes them again."""
    if type(value) is memoryview:
        return _Picklable(value)
    if type(value) is dict:
        return {picklable(key): picklable(inner) for key, inner in value.items()}
    if type(value) is list or type(value) is tuple:
        return type(value)(picklable(inner) for inner in value)
    return value


def rebuilt(kind: type, fields: dict[str, Any]) -> Any:
    """A value of the class that has these fields."""
    return kind(**fields)


def array_data(dtype: str, sizes: list[int], values: bytes) -> bytes:
    """The data of the extension."""
    header = bytes((len(dtype),)) + dtype.encode() + bytes((len(sizes),))
    return header + struct.pack(f"<{len(sizes)}Q", *sizes) + values


def _parts_of(data: memoryview) -> tuple[str, tuple[int, ...], memoryview]:
    try:
        dtype = str(data[1 : 1 + data[0]], "ascii")
        ndim = data[1 + data[0]]
        start = 2 + data[0]
        sizes = struct.unpack_from(f"<{ndim}Q", data, start)
    except (struct.error, IndexError, UnicodeDecodeError) as error:
        raise ValueError(f"an array is cut off: {error}") from None
    values = data[start + 8 * ndim :]
    is_known = dtype[:1] in ("|", "<", ">") and dtype[1:] in _DTYPES
    if not is_known or not 0 < ndim <= DIMENSIONS_MAX:
        raise ValueError(f"an array has the dtype {dtype!r} and {ndim} dimensions")
    if math.prod(sizes) * int(dtype[2:]) != len(values):
        raise ValueError(f"an array of {dtype} and {sizes} has {len(values)} bytes")
    return dtype, sizes, values


_DTYPES: Final = frozenset({*_FORMATS, "f2", "c8", "c16"})


def check(data: bytes) -> None:
    """Pass if the data is an array.

    Raises:
        ValueError: it is none.
    """
    _parts_of(memoryview(data))


def as_array(kind: Any, value: Any) -> Any:
    """What msgspec asks for a type that it does not know: a numpy array, uncopied.

    Raises:
        TypeError: the payload is no array, or the type is another one.
    """
    wanted = getattr(kind, "__origin__", kind)
    if isinstance(value, wanted):
        return value
    if (wanted.__module__, wanted.__name__) == ("numpy", "ndarray"):
        if isinstance(value, memoryview):
            return sys.modules["numpy"].asarray(value)
        raise TypeError(f"Expected an array, got `{type(value).__name__}`")
    raise TypeError(f"{wanted.__name__} is no type that payloads are decoded to")
