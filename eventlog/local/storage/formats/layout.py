"""Fixed binary layouts as data: one authority for packing, for offsets and for documentation.

A layout is a list of fields; its `struct.Struct`, the offset of each field and the drawing in a
module's docstring all come from it (a test compares the docstrings), so no offset is ever typed.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Field:
    """One field: its name, its `struct` code (little-endian, no padding) and what it means."""

    name: str
    code: str
    meaning: str


class Layout:
    """Fields one after the other; integers are little-endian and lie on their own alignment."""

    def __init__(self, name: str, *fields: Field) -> None:
        self.name = name
        self.fields = fields
        self._struct = struct.Struct("<" + "".join(field.code for field in fields))
        self.size = self._struct.size
        self.pack = self._struct.pack
        self.pack_into = self._struct.pack_into
        self.unpack_from = self._struct.unpack_from
        self._offsets = dict(self._walk())

    def _walk(self) -> list[tuple[str, int]]:
        offset, places = 0, []
        for field in self.fields:
            size = struct.calcsize("<" + field.code)
            if field.code in "HIQq":
                assert offset % size == 0, f"{self.name}.{field.name} is not aligned"
            places.append((field.name, offset))
            offset += size
        return places

    def offset(self, name: str) -> int:
        """Bytes from the start of the layout to the field."""
        return self._offsets[name]

    def word(self, name: str) -> int:
        """The index of an 8-byte field in a view of 8-byte words."""
        offset = self._offsets[name]
        assert offset % 8 == 0, f"{self.name}.{name} is no aligned word"
        return offset // 8

    def to_dict(self, buffer: bytes | memoryview, offset: int = 0) -> dict[str, Any]:
        """All fields by name."""
        values = self._struct.unpack_from(buffer, offset)
        return dict(zip((field.name for field in self.fields), values, strict=True))

    def table(self) -> str:
        """The drawing that the documentation shows: offset, size, name, meaning."""
        rows = [f"{self.name} ({self.size} bytes)"]
        for field in self.fields:
            size = struct.calcsize("<" + field.code)
            rows.append(f"{self._offsets[field.name]:5} {size:4}  {field.name:16} {field.meaning}")
        return "\n".join(rows)
