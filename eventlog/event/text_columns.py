"""Keys and headers of a batch as columns: put together as they come, unpacked when asked for.

A column is one MessagePack array with a value for each event (see `record_batch`)::

    keys      array of str or nil        packed and hashed when the batch is built, all at once
    headers   array of map or nil        packed as they come: their dict may change afterwards

A reader keeps both as the bytes of the whole column.
"""

from __future__ import annotations

import struct
import sys
import zlib
from array import array
from collections.abc import Mapping
from typing import Any, Final

from eventlog.errors import CorruptLog
from eventlog.event.envelope import TextColumn
from eventlog.event.payload import PLAIN_OPTIONS, pack_plain, unpack
from eventlog.event.texts import Headers, check_headers, check_key

NIL: Final = b"\xc0"
KEY_HASH_BYTES: Final = 4
KNOWN_KEYS_MAX: Final = 4096
"""Keys whose hashes a builder remembers: some hundred KiB."""
_LENGTH_16: Final = struct.Struct(">BH")
_LENGTH_32: Final = struct.Struct(">BI")


class KeyHashes(dict[str | None, int]):
    """The hash of each key, 0 of none; those that came lately are remembered."""

    def __missing__(self, key: str | None) -> int:
        """Work one out."""
        if key is None:
            return 0
        if len(self) >= KNOWN_KEYS_MAX:
            self.clear()
        known = self[key] = zlib.crc32(key.encode())
        return known


class TextColumns:
    """Keys and headers of a batch in the making.

    A column goes up to the last row that has a value; `build` gives the others nil.
    """

    __slots__ = ("_hashes", "_headers", "_keys", "_last_headers")

    def __init__(self) -> None:
        self._hashes = KeyHashes()
        self._last_headers: tuple[dict[str, str], bytes] = {}, b"\x80"
        """The headers that came last, copied, and packed: the same ones come again and again."""
        self.clear()

    def clear(self) -> None:
        """Begin an empty batch."""
        self._keys: list[str | None] = []
        self._headers: list[bytes] = []

    def truncate(self, rows: int) -> None:
        """Drop the values of all rows but the first."""
        del self._keys[rows:]
        del self._headers[rows:]

    def add(self, row: int, key: str | None, headers: Mapping[str, str] | None, room: int) -> int:
        """The bytes of the key and of the headers, which were added if `room` is as large.

        Raises:
            InvalidArgument, InvalidArgumentType: they are no texts; nothing was added.
        """
        size, packed = 0, b""
        if headers is not None:
            last, packed = self._last_headers  # as `_packed_once`: this runs for every event
            if type(headers) is not dict or headers != last:
                packed = self._packed(headers)
            size = len(packed)
        if key is not None:
            if type(key) is not str or not key.isascii():
                key, key_bytes = _checked(key)
                size += key_bytes
            else:
                size += len(key)
            if size <= room:
                keys = self._keys
                if len(keys) < row:
                    keys += [None] * (row - len(keys))
                keys.append(key)
        if headers is not None and size <= room:
            if len(self._headers) < row:
                self._headers += [NIL] * (row - len(self._headers))
            self._headers.append(packed)
        return size

    def add_list(
        self, row: int, count: int, keys: list[str | None] | None, headers: Headers
    ) -> int:
        """The bytes of the keys, plain strings, and headers of so many events, which were added.

        Raises:
            InvalidArgument, InvalidArgumentType, ValueError: some are no texts; what was added is
                to be truncated.
        """
        size = 0
        if keys is not None:
            texts = "".join(filter(None, keys))
            size += len(texts) if texts.isascii() else len(texts.encode())
            self._keys += [*[None] * (row - len(self._keys)), *keys]
        if headers is not None:
            if isinstance(headers, Mapping):
                packed = [self._packed_once(headers)] * count
            else:
                packed = [NIL if one is None else self._packed_once(one) for one in headers]
            size += sum(map(len, packed))
            self._headers += [*[NIL] * (row - len(self._headers)), *packed]
        return size

    def _packed_once(self, headers: Mapping[str, str]) -> bytes:
        """The headers packed, unless they are those that came last."""
        last, packed = self._last_headers
        is_last = type(headers) is dict and headers == last
        return packed if is_last else self._packed(headers)

    def _packed(self, headers: Mapping[str, str]) -> bytes:
        """The headers packed, and remembered."""
        packed: bytes
        try:
            plain = {**headers}
            for text in plain.values():
                if type(text) is not str:
                    raise TypeError
            packed = pack_plain(plain, None, PLAIN_OPTIONS)
        except TypeError:
            checked = check_headers(headers).items()
            plain = {_plain(name): _plain(text) for name, text in checked}
            packed = pack_plain(plain, None, PLAIN_OPTIONS)
        self._last_headers = plain, packed  # in one step: an interrupt may come before or after
        return packed

    def build(self, count: int) -> tuple[bytes, bytes, bytes]:
        """The area of hashes, which is empty without keys, and the columns of keys and headers."""
        hashes, keys, headers = b"", NIL, NIL
        if self._keys:
            self._keys += [None] * (count - len(self._keys))
            column = array("I", map(self._hashes.__getitem__, self._keys))
            if sys.byteorder == "big":
                column.byteswap()
            hashes = column.tobytes()
            keys = pack_plain(self._keys, None, PLAIN_OPTIONS)
        if self._headers:
            rest = NIL * (count - len(self._headers))
            headers = b"".join((array_header(count), *self._headers, rest))
        return hashes, keys, headers


def _checked(key: Any) -> tuple[str, int]:
    """A key, of whatever it may be made, as a plain text; and the size of its UTF-8."""
    utf8 = check_key(key).encode()
    return utf8.decode(), len(utf8)


def _plain(text: str) -> str:
    """The text, of no class of its own."""
    return text if type(text) is str else text.encode().decode()


def array_header(count: int) -> bytes:
    """What MessagePack writes before so many values."""
    if count < 16:
        return bytes((0x90 | count,))
    return _LENGTH_16.pack(0xDC, count) if count < 65_536 else _LENGTH_32.pack(0xDD, count)


def is_column_of(column: TextColumn, count: int) -> bool:
    """Whether it has a value for each of so many events."""
    if not isinstance(column, bytes):
        return column is None or len(column) == count
    return column.startswith((array_header(count), _LENGTH_32.pack(0xDD, count)))


def unpacked(column: bytes, base_seq_no: int) -> list[Any]:
    """The values of a column of the batch that begins with that event.

    Raises:
        CorruptLog: its producer has packed something else.
    """
    try:
        values: list[Any] = unpack(column)
    except ValueError as error:
        raise CorruptLog(
            f"the keys or headers of the batch of event {base_seq_no} cannot be decoded: {error};"
            " they were stored so by their producer",
            seq_no=base_seq_no,
        ) from error
    return values
