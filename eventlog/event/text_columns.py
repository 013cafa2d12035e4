"""Keys and headers of a batch as columns: packed as they come, unpacked when they are asked for.

A column is one MessagePack array with a value for each event (see `record_batch`)::

    keys      array of str or nil        kept by a builder as one packed value for each event
    headers   array of map or nil        kept by a reader as the bytes of the whole column

Keys come again and again, and so do headers, so a builder remembers how the latest ones are packed.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from typing import Any, Final

from eventlog.errors import CorruptLog
from eventlog.event.envelope import TextColumn
from eventlog.event.payload import PLAIN_OPTIONS, pack_plain, unpack
from eventlog.event.texts import check_headers, check_key

NIL: Final = b"\xc0"
KEY_HASH_BYTES: Final = 4
NO_HASH: Final = bytes(KEY_HASH_BYTES)
KNOWN_TEXTS_MAX: Final = 4096
"""Keys, and sets of headers, that a builder remembers: a few hundred KiB."""
KNOWN_BYTES_MAX: Final = 256
"""Longer ones are not remembered."""
_LENGTH_16: Final = struct.Struct(">BH")
_LENGTH_32: Final = struct.Struct(">BI")
_SHORT_TEXTS: Final = [bytes((0xA0 | size,)) for size in range(32)]
"""What MessagePack writes before a text of so many bytes."""


PackedKey = tuple[bytes, bytes, int]
"""A key as it stands in a batch, its hash, and the size of its UTF-8."""
NO_KEY: Final[PackedKey] = (NIL, NO_HASH, 0)


class PackedKeys(dict[str, PackedKey]):
    """The packed form of each key; those that came lately are remembered."""

    def __missing__(self, key: str) -> PackedKey:
        """Pack a key.

        Raises:
            InvalidArgumentType: it is not a string.
            InvalidArgument: it cannot be written as UTF-8.
        """
        try:
            utf8 = key.encode()
        except (AttributeError, UnicodeEncodeError):
            utf8 = check_key(key).encode()
        size = len(utf8)
        header = _SHORT_TEXTS[size] if size < len(_SHORT_TEXTS) else _long_text(size)
        packed = (header + utf8, zlib.crc32(utf8).to_bytes(KEY_HASH_BYTES, "little"), size)
        if size <= KNOWN_BYTES_MAX and type(key) is str:
            if len(self) >= KNOWN_TEXTS_MAX:
                self.clear()
            self[key] = packed
        return packed


class PackedHeaders(dict[tuple[tuple[str, str], ...], bytes]):
    """The packed form of headers, by their items; those that came lately are remembered."""

    def of(self, headers: Mapping[str, str]) -> bytes:
        """The packed form of a mapping.

        Raises:
            InvalidArgument, InvalidArgumentType: as `check_headers`.
        """
        if type(headers) is not dict:
            headers = check_headers(headers)
        try:
            return self[tuple(headers.items())]
        except TypeError:  # one of the values cannot be hashed, or is no text
            check_headers(headers)
            raise

    def __missing__(self, items: tuple[tuple[str, str], ...]) -> bytes:
        """Pack headers; what is no text of UTF-8 is a `TypeError`."""
        headers = dict(items)
        for name, value in items:
            if type(name) is not str or type(value) is not str:
                headers = {str(key): str(text) for key, text in check_headers(headers).items()}
                break
        packed: bytes = pack_plain(headers, None, PLAIN_OPTIONS)
        if len(packed) <= KNOWN_BYTES_MAX:
            if len(self) >= KNOWN_TEXTS_MAX:
                self.clear()
            self[items] = packed
        return packed


class TextColumns:
    """Keys, their hashes and headers of a batch in the making, for the rows that have some.

    A column goes up to the last row that has a value; `build` gives the others nil.
    """

    __slots__ = ("_hashes", "_headers", "_keys", "_known_headers", "_known_keys")

    def __init__(self) -> None:
        self._known_keys = PackedKeys()
        self._known_headers = PackedHeaders()
        self.clear()

    def clear(self) -> None:
        """Begin an empty batch."""
        self._keys: list[bytes] = []
        self._hashes: list[bytes] = []
        self._headers: list[bytes] = []

    def truncate(self, rows: int) -> None:
        """Drop the values of all rows but the first."""
        for column in (self._keys, self._hashes, self._headers):
            del column[rows:]

    def add(
        self, row: int, key: str | None, headers: Mapping[str, str] | None, room: int
    ) -> tuple[int, int]:
        """The bytes of the key and of the headers, which were added if `room` is as large.

        Raises:
            InvalidArgument, InvalidArgumentType: they are no texts; nothing was added.
        """
        packed_key, key_hash, key_bytes = NO_KEY
        if key is not None:
            try:
                packed_key, key_hash, key_bytes = self._known_keys[key]
            except TypeError:  # it cannot be hashed
                check_key(key)
                raise
        packed_headers = b"" if headers is None else self._known_headers.of(headers)
        headers_bytes = len(packed_headers)
        if key_bytes + headers_bytes > room:
            return key_bytes, headers_bytes
        if key is not None:
            if len(self._keys) < row:
                self._hashes += [NO_HASH] * (row - len(self._hashes))
                self._keys += [NIL] * (row - len(self._keys))
            self._hashes.append(key_hash)
            self._keys.append(packed_key)
        if headers is not None:
            if len(self._headers) < row:
                self._headers += [NIL] * (row - len(self._headers))
            self._headers.append(packed_headers)
        return key_bytes, headers_bytes

    def build(self, count: int) -> tuple[bytes, bytes, bytes]:
        """The area of hashes, which is empty without keys, and the columns of keys and headers."""
        hashes = b"".join(self._hashes)
        if hashes:
            hashes += NO_HASH * (count - len(self._hashes))
        return hashes, packed_column(self._keys, count), packed_column(self._headers, count)


def packed_column(values: list[bytes], count: int) -> bytes:
    """The column of so many events; the last ones may have no value."""
    if not values:
        return NIL
    return array_header(count) + b"".join(values) + NIL * (count - len(values))


def array_header(count: int) -> bytes:
    """What MessagePack writes before so many values."""
    if count < 16:
        return bytes((0x90 | count,))
    return _LENGTH_16.pack(0xDC, count) if count < 65_536 else _LENGTH_32.pack(0xDD, count)


def _long_text(size: int) -> bytes:
    """What MessagePack writes before a text of 32 bytes or more."""
    if size < 256:
        return bytes((0xD9, size))
    return _LENGTH_16.pack(0xDA, size) if size < 65_536 else _LENGTH_32.pack(0xDB, size)


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
